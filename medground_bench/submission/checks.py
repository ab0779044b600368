"""What is wrong with one row of ``predictions.jsonl``, or with the header."""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medground_bench.core.errors import MedGroundError
from medground_bench.core.files import within
from medground_bench.core.schema import MODES
from medground_bench.submission.format import (
    HEADER_FILE,
    HEADER_KEYS,
    MAX_BOXES,
    MAX_FRAME,
    MAX_HEATMAP,
    MAX_VALUES,
    REQUIRED_HEADER,
    ROW_KEYS,
    Fault,
)
from medground_bench.submission.masks import mask_shape_fault, read_mask

__all__ = ["check_header", "check_row", "clean", "is_number", "mask_warnings", "open_heatmap", "row_warnings"]

_TOLERANCE = 0.01  # pixels: rounding of written coordinates is no fault
_FAULTS_PER_ROW = 25


def clean(value: Any, length: int = 120) -> str:
    """Foreign text or value for a message: one line, printable, not too long."""
    text = value if isinstance(value, str) else _short_repr(value)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: length + 1])
    return text if len(text) <= length else text[: length - 3] + "..."


def _short_repr(value: Any) -> str:
    if isinstance(value, list | dict | str):
        return type(value).__name__ if len(value) > 8 else repr(value)[:500]
    try:
        return repr(value)[:500]
    except ValueError:  # an integer with too many digits to print
        return type(value).__name__


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number (booleans are not)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float
        return False


def check_header(header: Any) -> tuple[list[Fault], list[Fault]]:
    """Faults and warnings of ``submission.json``."""
    if not isinstance(header, dict):
        return [_header("type", None, f"holds {type(header).__name__}", "write a JSON object")], []
    faults = []
    for key in REQUIRED_HEADER:
        value = header.get(key)
        if not isinstance(value, str) or not value.strip():
            what = "is missing" if key not in header else f"is {clean(value)}, not a text"
            faults.append(_header("header", key, what, f"set {key!r} to a text"))
    if isinstance(mode := header.get("mode"), str) and mode.strip() and mode not in MODES:
        faults.append(_header("header", "mode", f"unknown mode {clean(mode)!r}", f"use one of {', '.join(MODES)}"))
    for key, kind in (("settings", dict), ("versions", dict)):
        if header.get(key) is not None and not isinstance(header[key], kind):
            faults.append(_header("header", key, f"is {type(header[key]).__name__}", f"make {key!r} an object"))
    settings = header.get("settings")
    side = settings.get("frame_side") if isinstance(settings, dict) else None
    if side is not None and not (isinstance(side, int) and not isinstance(side, bool) and 0 < side <= MAX_FRAME):
        message, remedy = f"is {clean(side)}, not a size in pixels", "give a whole number, or null for native maps"
        faults.append(_header("header", "settings.frame_side", message, remedy))
    warnings = [
        _header("provenance", key, "is missing", f"state {key!r}, so that others can tell what this is")
        for key in HEADER_KEYS
        if key not in header and key not in (*REQUIRED_HEADER, "cost")
    ]
    return faults, warnings


def _header(code: str, field: str | None, message: str, remedy: str) -> Fault:
    return Fault(code, message, remedy, file=HEADER_FILE, field=field)


def check_row(row: Mapping[str, Any], folder: Path, size: tuple[float, float] | None) -> list[Fault]:
    """Faults of a row's fields, without place: the boxes first, then the optional keys.

    Parameters
    ----------
    row : mapping
        The parsed line.
    folder : Path
        The submission, for heat map files.
    size : (width, height) or None
        Of the record's image, when it is known.
    """
    faults: list[Fault] = []
    for fault in _row_faults(row, folder, size):
        faults.append(fault)
        if len(faults) == _FAULTS_PER_ROW:
            faults.append(Fault("more", "more faults in this row are not listed", "correct these first"))
            break
    return faults


def _row_faults(row: Mapping[str, Any], folder: Path, size: tuple[float, float] | None) -> Iterator[Fault]:
    yield from _box_faults(row, size)
    yield from _optional_faults(row)
    if row.get("heatmap") is not None:
        yield from _heatmap_faults(row["heatmap"], folder)


def _box_faults(row: Mapping[str, Any], size: tuple[float, float] | None) -> Iterator[Fault]:
    if "boxes" not in row:
        yield Fault("boxes", "no 'boxes'", "add 'boxes': [] if the method named no evidence", field="boxes")
        return
    boxes = row["boxes"]
    if not isinstance(boxes, list):
        remedy = "write [[x1, y1, x2, y2], ...], an empty list for no evidence"
        yield Fault("boxes", f"'boxes' is {clean(boxes)}, not a list", remedy, field="boxes")
        return
    if boxes and all(map(is_number, boxes)):
        yield Fault("box-type", "numbers, not a list of boxes", "write [[x1, y1, x2, y2], ...]", field="boxes")
        return
    if len(boxes) > MAX_BOXES:
        yield Fault("boxes", f"{len(boxes)} boxes", f"name at most {MAX_BOXES}, the most important", field="boxes")
        return
    for k, box in enumerate(boxes):
        fault = _box_fault(box, size)
        if fault:
            code, message, remedy = fault
            yield Fault(code, message, remedy, field=f"boxes[{k}]")


def _box_fault(box: Any, size: tuple[float, float] | None) -> tuple[str, str, str] | None:
    """Code, message and remedy of the first thing wrong with a box."""
    if not isinstance(box, list):
        return "box-type", f"{clean(box)} is not a box", "write [x1, y1, x2, y2]"
    if len(box) != 4:
        return "arity", f"{len(box)} numbers instead of four", "a box is [x1, y1, x2, y2]"
    if not all(map(is_number, box)):
        return "box-type", f"{clean(box)} is not numbers", "write four numbers in pixels, without quotes"
    if not all(map(_finite, box)):
        return "not-finite", f"{clean(box)} is not finite", "write finite numbers; leave the box out if there is none"
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        remedy = "order it x1 < x2, y1 < y2 (half-open, xyxy)"
        if x2 > 0 and y2 > 0 and (size is None or (x1 + x2 <= size[0] + 1 and y1 + y2 <= size[1] + 1)):
            remedy += "; if it is [x, y, width, height], write [x, y, x + width, y + height]"
        return "reversed", f"{clean(box)} is reversed or has no area", remedy
    if min(x1, y1) < -_TOLERANCE:
        return "negative", f"{clean(box)} has a negative coordinate", "clip the box to the image"
    if size is not None and (x2 > size[0] + _TOLERANCE or y2 > size[1] + _TOLERANCE):
        message = f"{clean(box)} reaches out of the {size[0]:g} x {size[1]:g} image"
        return "outside", message, "use [x1, y1, x2, y2] in pixels of the native image, and clip to it"
    return None


def _optional_faults(row: Mapping[str, Any]) -> Iterator[Fault]:
    if (concept := row.get("concept")) is not None and not isinstance(concept, str):
        yield Fault(
            "type", f"{clean(concept)} is not a text", "name the concept, or leave the key out", field="concept"
        )
    scores = row.get("concept_scores")
    if scores is not None:
        remedy = 'write {"concept": score, ...} with finite numbers'
        if not isinstance(scores, dict):
            yield Fault("type", f"{clean(scores)} is not an object", remedy, field="concept_scores")
        elif len(scores) > MAX_VALUES:
            yield Fault("size", f"{len(scores)} concepts", f"score at most {MAX_VALUES}", field="concept_scores")
        else:
            for name, score in scores.items():
                if not is_number(score) or not _finite(score):
                    field = f"concept_scores[{clean(name, 40)!r}]"
                    yield Fault("type", f"{clean(score)} is not a finite number", remedy, field=field)
    tokens = row.get("tokens")
    if tokens is not None:
        remedy = "write one finite number per response token"
        if not isinstance(tokens, list):
            yield Fault("type", f"{clean(tokens)} is not a list", remedy, field="tokens")
        elif len(tokens) > MAX_VALUES:
            yield Fault("size", f"{len(tokens)} tokens", f"score at most {MAX_VALUES}", field="tokens")
        else:
            for k, token in enumerate(tokens):
                if not is_number(token) or not _finite(token):
                    yield Fault("type", f"{clean(token)} is not a finite number", remedy, field=f"tokens[{k}]")
    if not isinstance(row.get("extras", {}), dict | None):
        yield Fault("type", f"{clean(row['extras'])} is not an object", "write an object", field="extras")
    if row.get("masks") is not None and (wrong := mask_shape_fault(row["masks"])):
        yield Fault("masks", wrong, "write a list of COCO run lengths or names of PNG files", field="masks")
    if not isinstance(row.get("error", ""), str | None):
        yield Fault("type", f"{clean(row['error'])} is not a text", "write a text", field="error")
    for key in ("fallback", "degenerate"):
        if not isinstance(row.get(key, False), bool | None):
            yield Fault("type", f"{clean(row[key])} is not true or false", "write true or false", field=key)


def _heatmap_faults(name: Any, folder: Path) -> Iterator[Fault]:
    if not isinstance(name, str) or not name:
        yield Fault("heatmap", f"{clean(name)} is not a file name", "name a .npy file of the folder", field="heatmap")
        return
    import numpy as np

    try:
        heatmap = open_heatmap(folder, name)
    except MedGroundError as error:
        remedy = error.remedy or "save it with numpy.save(file, heatmap, allow_pickle=False)"
        yield Fault("heatmap", clean(error.message, 200), remedy, field="heatmap")
        return
    if not np.isfinite(heatmap).all():
        message = f"{clean(name)!r} holds values that are not finite"
        yield Fault("heatmap", message, "save finite numbers; leave the key out if there is no map", field="heatmap")


def open_heatmap(folder: Path, name: str) -> Any:
    """The heat map file of a row as a read-only memory-mapped array, (h, w).

    Raises
    ------
    MedGroundError
        If the path leaves the folder, or the file is not a 2-D ``.npy`` array of real numbers.
    """
    import numpy as np

    try:
        path = within(folder, name)
        mode = path.stat().st_mode
    except MedGroundError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise MedGroundError(f"no heat map file {clean(name)!r}", remedy="save it inside the folder") from error
    if not stat.S_ISREG(mode):
        raise MedGroundError(f"{clean(name)!r} is not a regular file", remedy="save it inside the folder")
    try:
        heatmap = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # the header of a hostile file fails in many ways, none of which is ours
        raise MedGroundError(f"{clean(name)!r} is not a .npy array: {clean(str(error))}") from error
    if heatmap.ndim != 2 or heatmap.size == 0 or heatmap.dtype.kind not in "fiu":
        raise MedGroundError(
            f"{clean(name)!r} holds shape {heatmap.shape} of {heatmap.dtype}", remedy="save a 2-D array of real numbers"
        )
    if heatmap.size > MAX_HEATMAP:
        raise MedGroundError(
            f"{clean(name)!r} has {heatmap.size} pixels", remedy=f"save at most {MAX_HEATMAP} (the frame's resolution)"
        )
    return heatmap


def row_warnings(row: Mapping[str, Any]) -> list[Fault]:
    """What is odd about a row without making it wrong."""
    unknown = [key for key in row if key not in ROW_KEYS]
    if not unknown:
        return []
    names = clean(", ".join(map(str, unknown[:5])))
    return [Fault("unknown-key", f"unknown keys: {names}", f"they are ignored; known are {', '.join(ROW_KEYS)}")]


def mask_warnings(row: Mapping[str, Any], folder: Path, size: tuple[float, float] | None) -> list[Fault]:
    """Masks of a row that cannot be evaluated: its boxes still can."""
    masks = row.get("masks")
    if not masks or size is None or mask_shape_fault(masks):
        return []
    for k, item in enumerate(masks):
        try:
            read_mask(folder, item, (int(size[0]), int(size[1])))
        except MedGroundError as error:
            remedy = f"save it as {error.expected}" if error.expected else "correct it, or leave the masks out"
            return [Fault("masks", clean(error.message, 200), remedy, field=f"masks[{k}]")]
    return []
