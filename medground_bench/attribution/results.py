"""What a method may return, and how it becomes an :class:`Attribution`.

====================================  ====================================================================
returned                              read as
====================================  ====================================================================
:class:`Attribution`                  itself
list of ``[x1, y1, x2, y2]``          boxes in native pixels
2-D array or tensor                   where the method declares ``over=``: a heat map over that, any resolution; else:
- of shape (N, 4)                     boxes in native pixels, never a heat map; (4, 4) is refused
- of the frame's shape                a heat map over the frame
- of the token grid's shape           a heat map over the frame
- of the native image's shape         a heat map over the native image
- of any other shape                  refused
====================================  ====================================================================

Arrays are NumPy arrays or torch tensors, on any device and of any real type, bfloat16 included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medground_bench.core.errors import MethodError
from medground_bench.core.schema import Box
from medground_bench.imaging import heatmap_to_boxes, is_degenerate, resize_heatmap

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode

__all__ = ["Attribution", "Over", "as_attribution", "from_heatmap"]

Over = Literal["frame", "native"]
"""What a heat map lies over: the letterboxed frame or the native image."""

_BORDER = 0.01  # pixels: boxes that reach further out of their image are not in native pixels

_EXPECTED = (
    "boxes [[x1, y1, x2, y2], ...] in native pixels, a 2-D heat map over the frame, the token grid or the native image "
    "(NumPy or torch), or an Attribution"
)


@dataclass(frozen=True)
class Attribution:
    """What a method says about one record.

    Attributes
    ----------
    boxes : list of Box
        Evidence boxes in native pixels, half-open, best first. Empty: the method named no evidence.
    heatmap : ndarray or None
        (h, w) float map over the episode's frame, any resolution (the token grid for token-level methods).
    concept : str or None
        Name of the anatomical concept the answer rests on.
    concept_scores : mapping of str to float
        Score of every concept, larger is more important.
    token_scores : ndarray or None
        (T,) score of every response token.
    fallback : bool
        No evidence passed the method's own threshold and the whole image is reported.
    degenerate : bool
        The heat map was constant, zero or not finite, and the whole image is reported.
    extras : mapping
        Anything else worth keeping, JSON-serialisable.
    """

    boxes: list[Box]
    heatmap: np.ndarray | None = None
    concept: str | None = None
    concept_scores: Mapping[str, float] = field(default_factory=dict)
    token_scores: np.ndarray | None = None
    fallback: bool = False
    degenerate: bool = False
    extras: Mapping[str, Any] = field(default_factory=dict)


def from_heatmap(
    heatmap: Any, episode: Episode, *, over: Over = "frame", signed: bool = False, **fields: Any
) -> Attribution:
    """An attribution from a heat map of any resolution, by the benchmark's box protocol.

    The map is brought to the frame's resolution; the threshold is the 90 % quantile of its values above the minimum,
    8-connected components of at least 16 pixels become boxes, at most 10, ranked by mean heat (paper, section 3.2).
    A constant, zero or non-finite map names no evidence: it yields the whole image, marked ``degenerate``.

    Parameters
    ----------
    heatmap : ndarray or tensor, shape (h, w)
        Larger is more important.
    episode : Episode
        What it was computed for.
    over : {"frame", "native"}
        What the map covers: the letterboxed frame (padding included) or the native image. A native map is stored over
        the frame, with its minimum in the padding.
    signed : bool
        Negative values speak against the response. The protocol speaks of values above zero, so boxes come from the
        positive part, taken before the map is resized; the stored map keeps its sign.
    **fields
        Further fields of the :class:`Attribution`.

    Raises
    ------
    MethodError
        If it is not a 2-D map of real numbers.
    """
    values = _array(heatmap)
    if values is None or values.ndim != 2 or not values.size:
        raise MethodError(f"not a heat map: {_describe(heatmap)}", expected="a 2-D array of real numbers")
    box = episode.letterbox
    if over == "native":
        values = box.heatmap_to_frame(values)
    evidence = np.maximum(values, 0) if signed else values  # NaN stays NaN
    if is_degenerate(evidence):
        whole: Box = (0.0, 0.0, float(box.width), float(box.height))
        return Attribution(boxes=[whole], heatmap=values, degenerate=True, **fields)
    frame = resize_heatmap(evidence, (box.frame_height, box.frame_width))
    return Attribution(boxes=box.to_native(heatmap_to_boxes(frame)), heatmap=values, **fields)


def as_attribution(result: Any, episode: Episode, *, over: Over | None = None, signed: bool = False) -> Attribution:
    """What a method returned as an :class:`Attribution` (see the module's table).

    Parameters
    ----------
    result : object
        What the method returned.
    episode : Episode
        What it was given.
    over : {"frame", "native"}, optional
        What its heat maps lie over whatever their resolution, where the method declares it: arrays are heat maps then.
    signed : bool
        Whether they are signed.

    Raises
    ------
    MethodError
        If it is none of what a method may return, or a box has no area, is not finite or leaves the image.
    """
    if isinstance(result, Attribution):
        return replace(
            result,
            boxes=_boxes(result.boxes, episode),
            heatmap=_optional(result.heatmap, 2, "heatmap"),
            token_scores=_optional(result.token_scores, 1, "token_scores"),
        )
    if isinstance(result, list | tuple):
        return Attribution(boxes=_boxes(result, episode))
    values = _array(result)
    if values is None or values.ndim != 2:
        raise MethodError(_describe(result), expected=_EXPECTED)
    if over is not None:
        return from_heatmap(values, episode, over=over, signed=signed)
    if values.shape == (4, 4):
        raise MethodError(
            "a (4, 4) array, which may be four boxes or a heat map",
            expected=_EXPECTED,
            remedy="return boxes as a list ('.tolist()'), a heat map as from_heatmap(map, episode), or declare "
            "@method(..., over='frame'), whose arrays are heat maps",
        )
    if values.shape[1] == 4 or not values.size:
        return Attribution(boxes=_boxes(values, episode))
    return from_heatmap(values, episode, over=_over(values.shape, episode), signed=signed)


def _over(shape: tuple[int, ...], episode: Episode) -> Over:
    """What a map of this shape lies over."""
    box = episode.letterbox
    known: dict[tuple[int, ...], Over] = {
        (box.height, box.width): "native",
        (box.frame_height, box.frame_width): "frame",
    }
    if shape in known:
        return known[shape]
    grid = getattr(episode, "token_grid", None)
    if grid is not None:
        known[grid.map_shape] = "frame"
    if shape not in known:
        tokens = " or {} x {} tokens".format(*grid.map_shape) if grid is not None else ""
        raise MethodError(
            f"a map of {shape[0]} x {shape[1]}, which is neither over the frame nor over the image",
            expected=f"{box.frame_height} x {box.frame_width} (frame){tokens}, or {box.height} x {box.width} (native), "
            "rows x columns",
            remedy="say what it lies over: @method(..., over='frame' or 'native'), or return "
            "from_heatmap(map, episode, over=...); is it transposed?",
        )
    return known[shape]


def _array(value: Any) -> np.ndarray | None:
    """A NumPy array of real numbers from an array or tensor; None from anything else."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):  # a torch tensor, without importing torch
        value = value.detach().cpu()
        if value.is_floating_point() and value.element_size() < 4:  # NumPy has no bfloat16
            value = value.float()
        value = value.numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return value.astype(np.float32) if value.dtype.kind == "b" or value.dtype.itemsize < 4 else value
    return None


def _optional(value: Any, dimensions: int, name: str) -> np.ndarray | None:
    """An array of an attribution, which may be absent but not something else."""
    array = _array(value)
    if value is not None and (array is None or array.ndim != dimensions or not array.size):
        raise MethodError(f"{_describe(value)} as {name}", expected=f"{dimensions}-D real numbers, or None")
    return array


def _boxes(boxes: Any, episode: Episode) -> list[Box]:
    """Boxes as tuples of floats, after a look at every one."""
    values = _array(boxes)
    out: list[Box] = []
    for k, box in enumerate(boxes if values is None else values):
        numbers = _array(box)
        row = list(box) if isinstance(box, Sequence) and not isinstance(box, str) else numbers
        try:
            x1, y1, x2, y2 = (float(v) for v in (() if row is None else row))
        except (TypeError, ValueError):
            raise MethodError(f"{_describe(boxes)} whose item {k} is no box", expected=_EXPECTED) from None
        out.append((x1, y1, x2, y2))
    width, height = episode.letterbox.width, episode.letterbox.height
    for k, (x1, y1, x2, y2) in enumerate(out):
        shown = f"box {k} as [{x1:g}, {y1:g}, {x2:g}, {y2:g}]"
        if not np.isfinite([x1, y1, x2, y2]).all():
            raise MethodError(f"{shown}, which is not finite", expected="four finite numbers")
        if x2 <= x1 or y2 <= y1:
            raise MethodError(
                f"{shown}, which has no area",
                expected="[x1, y1, x2, y2], x1 < x2 and y1 < y2",
                remedy="[x, y, width, height] becomes [x, y, x + width, y + height]; a heat map of four columns is "
                "returned as from_heatmap(map, episode)",
            )
        if min(x1, y1) < -_BORDER or x2 > width + _BORDER or y2 > height + _BORDER:
            raise MethodError(
                f"{shown}, which leaves the image of {width} x {height} pixels",
                expected="native pixels",
                remedy="episode.letterbox.to_native(boxes) maps boxes of the frame back and cuts them to the image",
            )
    return out


def _describe(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"a {type(value).__name__} of shape {tuple(shape)}, {getattr(value, 'dtype', '')}"
    return type(value).__name__
