"""Masks of a submission: COCO run lengths or PNG files, native size, one a region.

A row may have ``"masks": [...]`` beside its boxes. An item is the name of a PNG inside the folder, whose two values are
background (the lower one) and region, or an object ``{"size": [height, width], "counts": ...}``: run lengths of the
mask read column by column, background first, as a list of numbers or as COCO's compressed text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.errors import SubmissionError
from medground_bench.core.files import within

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["MAX_MASKS", "decode_rle", "encode_rle", "mask_shape_fault", "read_mask"]

MAX_MASKS = 100
"""Greatest number of masks of one record."""

_MAX_PIXELS = 1 << 26
_MAX_RUNS = 2_000_000


def mask_shape_fault(masks: Any) -> str | None:
    """What is wrong with the form of a row's ``masks``, without reading them; None if nothing is."""
    if not isinstance(masks, list):
        return "'masks' is not a list"
    if len(masks) > MAX_MASKS:
        return f"{len(masks)} masks, and at most {MAX_MASKS} are read"
    for k, item in enumerate(masks):
        if isinstance(item, str) and item:
            continue
        size = item.get("size") if isinstance(item, dict) else None
        whole = isinstance(size, list) and len(size) == 2 and all(type(v) is int and v > 0 for v in size)
        if not whole or not isinstance(item.get("counts"), str | list):
            return f'item {k} is neither a PNG\'s name nor {{"size": [height, width], "counts": ...}}'
    return None


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """A mask from COCO run lengths, (height, width) bool.

    Raises
    ------
    SubmissionError
        If the runs do not add up to the size.
    """
    height, width = (int(v) for v in rle["size"])
    if height * width > _MAX_PIXELS:
        raise SubmissionError(f"a mask of {height} x {width}", expected=f"at most {_MAX_PIXELS} pixels")
    counts = rle["counts"]
    if len(counts) > _MAX_RUNS:
        raise SubmissionError(f"a mask of {len(counts)} runs", expected=f"at most {_MAX_RUNS}")
    runs = _runs(counts) if isinstance(counts, str) else counts
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != height * width:
        raise SubmissionError(
            "the run lengths do not add up to the mask's size", expected=f"{height * width} pixels, {height} x {width}"
        )
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(width, height).T


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """A mask, (height, width) bool, as uncompressed COCO run lengths."""
    flat = np.asarray(mask, bool).T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": [int(v) for v in mask.shape], "counts": [0, *runs] if flat.size and flat[0] else runs}


def _runs(text: str) -> list[int]:
    """COCO's compressed run lengths: groups of 5 bits, low ones first, from the fourth on as differences."""
    out: list[int] = []
    value = shift = 0
    for letter in text:
        group = ord(letter) - 48
        if not 0 <= group < 64 or shift > 60:
            raise SubmissionError("the run lengths are not COCO's compressed text")
        value |= (group & 0x1F) << shift
        shift += 5
        if not group & 0x20:
            if group & 0x10:
                value -= 1 << shift
            out.append(value + (out[-2] if len(out) > 2 else 0))
            value = shift = 0
    return out


def read_mask(folder: Path, item: Any, size: tuple[int, int]) -> np.ndarray:
    """One mask of a row over the native image, (height, width) bool.

    Parameters
    ----------
    folder : Path
        The submission.
    item : str or mapping
        See the module's docstring.
    size : (width, height)
        Of the image.

    Raises
    ------
    SubmissionError
        If it has another size, more than two values, or cannot be read.
    """
    mask = decode_rle(item) if not isinstance(item, str) else _read_png(folder, item)
    if mask.shape != size[::-1]:
        raise SubmissionError(
            f"a mask of {mask.shape[1]} x {mask.shape[0]} pixels", expected=f"the native size, {size[0]} x {size[1]}"
        )
    return mask


def _read_png(folder: Path, name: str) -> np.ndarray:
    from PIL import Image as pil

    path = within(folder, name)
    try:
        with pil.open(path, formats=("PNG",)) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise SubmissionError(f"a mask of {image.width} x {image.height} pixels", where=name)
            values = np.asarray(image.convert("L") if image.mode not in ("1", "L", "I;16") else image)
    except (OSError, ValueError, SyntaxError) as error:
        raise SubmissionError(f"no mask can be read from it: {error}", where=name, expected="a PNG") from error
    found = np.unique(values)
    if len(found) > 2:
        raise SubmissionError(f"a mask of {len(found)} values", where=name, expected="two: background and region")
    return values > found[0] if len(found) == 2 else values > 0
