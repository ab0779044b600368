"""Boxes that are each fine but all in the wrong coordinates: the mistake that costs a whole submission.

Predictions left in the letterboxed 224-pixel frame, in fractions, in a model's 0-1000 scale or with x and y
exchanged are all well-formed. What gives them away is that *every* box fits such coordinates although the images are
larger, or that they fit the evidence much better when read the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medground_bench.imaging import Letterbox
from medground_bench.imaging.areas import MAX_COORDINATE
from medground_bench.imaging.overlap import score_boxes
from medground_bench.submission.format import Fault

__all__ = ["CoordinateCheck"]

BoxList = list[list[float]]

ENOUGH = 20_000
"""Boxes that are looked at."""

_REMEDY = {
    "fractions": "multiply by the image's width and height",
    "frame": "map them back with medground_bench.imaging.Letterbox.fit(width, height).to_native(boxes)",
    "thousandths": "multiply by the image's width and height and divide by 1000",
    "heatmap-shape": "state settings.frame_side null if the maps are over the native image",
    "transposed": "write [x1, y1, x2, y2], not [y1, x1, y2, x2]",
    "xywh": "write [x1, y1, x2, y2], not [x, y, width, height]",
}


@dataclass
class CoordinateCheck:
    """Collects the boxes and map shapes of all rows; :meth:`warnings` judges them together.

    ``frame_side`` is the submission's setting: the side of the square frame of its heat maps; None where they are over
    the native image.
    """

    frame_side: Any = 224
    boxes: list[BoxList] = field(default_factory=list)
    sizes: list[tuple[float, float]] = field(default_factory=list)
    evidence: list[BoxList] = field(default_factory=list)
    native_maps: int = 0
    count: int = 0

    def add_heatmap(self, shape: tuple[int, ...], size: tuple[float, float]) -> None:
        """Add the shape of a heat map, and the size of its record's image."""
        width, height = size
        self.native_maps += bool(self.frame_side) and width != height and shape == (height, width)

    def add(self, boxes: BoxList, size: tuple[float, float], evidence: BoxList) -> None:
        """Add one record: its readable predicted boxes, image size and evidence, all as the files have them.

        After :data:`ENOUGH` boxes no more are looked at: that shows in the first ones as well.
        """
        if boxes and self.count < ENOUGH:
            self.count += len(boxes)
            self.boxes.append([[float(v) for v in box] for box in boxes])
            self.sizes.append(size)
            self.evidence.append(evidence)

    def warnings(self) -> list[Fault]:
        """At most one warning about the boxes, one about exchanged axes or sizes, and one about the maps' frame."""
        found = []
        if self.native_maps:
            message = (
                f"{self.native_maps} heat maps have the shape of their image, which is not square, but are taken to be "
                f"over the square frame of {self.frame_side} pixels"
            )
            found.append(Fault("heatmap-shape", message, _REMEDY["heatmap-shape"], field="heatmap"))
        if not self.boxes:
            return found
        for code, name, limit, convert in (
            ("fractions", "fractions of 0 to 1", 1.0, _from_unit),
            ("frame", "the letterboxed 224-pixel frame", 224.0, _from_letterbox),
            ("thousandths", "a 0-1000 scale", 1000.0, _from_thousand),
        ):
            if self._all_fit(limit):
                message = f"all boxes lie within {limit:g}: they look like {name}, not native pixels"
                found.append(Fault(code, message + self._evidence(convert), _REMEDY[code], field="boxes"))
                break
        if swapped := self._transposed():
            found.append(Fault("transposed", swapped, _REMEDY["transposed"], field="boxes"))
        elif len(found) == bool(self.native_maps) and (
            sized := self._better(_from_xywh, "read as x, y, width, height")
        ):
            found.append(Fault("xywh", sized, _REMEDY["xywh"], field="boxes"))
        return found

    def _all_fit(self, limit: float) -> bool:
        """Whether all boxes on images larger than the limit lie inside it, which native boxes hardly would."""
        larger = [k for k, size in enumerate(self.sizes) if max(size) > limit + 1]
        if not larger or any(max(map(max, self.boxes[k])) > limit * 1.001 for k in larger):
            return False
        much_larger = sum(max(self.sizes[k]) >= 1.25 * limit for k in larger) >= len(larger) / 2
        evidence_beyond = any(max(map(max, self.evidence[k])) > limit for k in larger if self.evidence[k])
        return much_larger or evidence_beyond

    def _iou(self, convert: Callable[[BoxList, tuple[float, float]], BoxList] | None = None) -> np.ndarray:
        boxes: Sequence[BoxList] = self.boxes
        if convert is not None:
            boxes = [convert(b, size) for b, size in zip(self.boxes, self.sizes, strict=True)]
        return score_boxes([_clip(b) for b in boxes], self.evidence).iou

    def _evidence(self, convert: Callable[[BoxList, tuple[float, float]], BoxList]) -> str:
        there, here = float(self._iou(convert).mean()), float(self._iou().mean())
        return f" (mean IoU {here:.3f} as it stands, {there:.3f} if read so)"

    def _transposed(self) -> str | None:
        out, fits_swapped = 0, 0
        for boxes, (width, height) in zip(self.boxes, self.sizes, strict=True):
            if any(x2 > width + 0.01 or y2 > height + 0.01 for _, _, x2, y2 in boxes):
                out += 1
                fits_swapped += all(x2 <= height + 0.01 and y2 <= width + 0.01 for _, _, x2, y2 in boxes)
        if out and fits_swapped == out:
            return f"{out} rows reach out of their image, and all fit it with x and y exchanged"
        return self._better(_swap, "with x and y exchanged")

    def _better(self, convert: Callable[[BoxList, tuple[float, float]], BoxList], how: str) -> str | None:
        """Whether the boxes fit the evidence much better when they are read in another way."""
        here, there = self._iou(), self._iou(convert)
        better, worse = int((there > here).sum()), int((there < here).sum())
        # A sign test at three standard deviations, and a difference that matters.
        if better - worse > 3 * np.sqrt(better + worse) and there.mean() > 1.5 * here.mean() and there.mean() > 0.1:
            return (
                f"{how} {better} of {len(here)} rows fit the evidence better "
                f"(mean IoU {here.mean():.3f} as it stands, {there.mean():.3f} if read so)"
            )
        return None


def _clip(boxes: BoxList) -> BoxList:
    return [[min(max(v, -MAX_COORDINATE), MAX_COORDINATE) for v in box] for box in boxes]


def _swap(boxes: BoxList, size: tuple[float, float]) -> BoxList:
    return [[y1, x1, y2, x2] for x1, y1, x2, y2 in boxes]


def _from_xywh(boxes: BoxList, size: tuple[float, float]) -> BoxList:
    return [[x, y, x + w, y + h] for x, y, w, h in boxes]


def _from_unit(boxes: BoxList, size: tuple[float, float]) -> BoxList:
    (w, h) = size
    return [[x1 * w, y1 * h, x2 * w, y2 * h] for x1, y1, x2, y2 in boxes]


def _from_thousand(boxes: BoxList, size: tuple[float, float]) -> BoxList:
    return _from_unit([[v / 1000 for v in box] for box in boxes], size)


def _from_letterbox(boxes: BoxList, size: tuple[float, float]) -> BoxList:
    return [list(box) for box in Letterbox.fit(int(size[0]), int(size[1])).to_native(boxes)]
