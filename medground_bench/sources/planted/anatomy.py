"""Where the chest's parts lie on a canvas: what a localiser says, and the geometry that planting draws on.

A localiser is a callable in the entry-point group ``medground_bench.localizers``: its factory takes settings (``pool``
for one that transfers references) and gives ``localizer(image) -> Localization``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medground_bench.core.anatomy import CONCEPTS
from medground_bench.core.errors import MethodError, SourceError, nearest

__all__ = [
    "ENTRY_POINT_GROUP",
    "SIDES",
    "CanvasAnatomy",
    "Localization",
    "Localizer",
    "available_localizers",
    "load_localizer",
]

ENTRY_POINT_GROUP = "medground_bench.localizers"

SIDES: tuple[str, str] = ("right", "left")
"""The patient's sides, in the order in which the viewer sees them from left to right."""

Mask = NDArray[np.bool_]
Field = NDArray[np.float32]

_WORK = 256  # longer side of the grid on which the geometry is worked out, pixels


@dataclass(frozen=True, eq=False)
class Localization:
    """What a localiser found on one image.

    Attributes
    ----------
    masks : mapping of str to bool array, shape (H, W)
        Concepts of :data:`medground_bench.core.anatomy.CONCEPTS` on the native image; one that is not found is absent.
    confidence : float
        0 to 1: how much the image looks like a frontal chest radiograph whose anatomy the masks describe.
    """

    masks: Mapping[str, Mask]
    confidence: float


class Localizer(Protocol):
    """Finds the concepts on a grey radiograph (uint8, shape (H, W), dense tissue bright)."""

    def __call__(self, image: NDArray[np.uint8]) -> Localization: ...


def available_localizers() -> list[str]:
    """Names that :func:`load_localizer` knows: those of installed packages."""
    return sorted({entry.name for entry in metadata.entry_points(group=ENTRY_POINT_GROUP)})


def load_localizer(name: str = "multi_atlas", **settings: Any) -> Localizer:
    """Build a localiser by name.

    Raises
    ------
    MethodError
        If no installed package brings a localiser of that name.
    """
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP, name=name):
        factory = entry.load()
        known = inspect.signature(factory).parameters
        if wrong := [key for key in settings if key not in known and not _takes_any(known)]:
            raise MethodError(
                f"localizer {name!r} has no setting {wrong[0]!r}",
                expected=", ".join(known) or "no settings",
                remedy=nearest(wrong[0], known),
            )
        localizer: Localizer = factory(**settings)
        return localizer
    raise MethodError(
        f"unknown localiser {name!r}",
        expected="one of " + (", ".join(available_localizers()) or "none: no installed package brings a localiser"),
        remedy=nearest(name, available_localizers())
        or "install the package that brings it; 'multi_atlas' comes with medground-bench itself",
    )


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


class CanvasAnatomy:
    """The anatomy of one canvas, at any resolution of it.

    Geometry is worked out once on a grid whose longer side is 256; a canvas of any size with the same aspect ratio is
    planted with the same object. Coordinates and lengths of all properties are cells of that grid. Pairs are
    (patient's right, patient's left).

    Parameters
    ----------
    localization : Localization
        Masks on the native image.

    Raises
    ------
    SourceError
        If a lung, the heart or the upper mediastinum is missing.
    """

    def __init__(self, localization: Localization) -> None:
        masks = localization.masks
        for concept in ("right lung", "left lung", "cardiac silhouette", "upper mediastinum"):
            if concept not in masks or not np.any(masks[concept]):
                raise SourceError(f"no {concept} was found", expected="a frontal chest radiograph")
        height, width = masks["right lung"].shape
        scale = _WORK / max(height, width)
        self.confidence = float(localization.confidence)
        self.aspect = width / height
        self.shape = (max(1, round(height * scale)), max(1, round(width * scale)))
        self.masks: dict[str, Mask] = {c: _shrink(masks[c], self.shape) for c in CONCEPTS if c in masks}
        self.masks.update({f"{side} lung": _largest(self.masks[f"{side} lung"]) for side in SIDES})

    @cached_property
    def lungs(self) -> tuple[Mask, Mask]:
        """The lung fields without the heart."""
        heart = self.masks["cardiac silhouette"]
        right, left = (self.masks[f"{side} lung"] & ~heart for side in SIDES)
        return right, left

    @cached_property
    def depth(self) -> tuple[Field, Field]:
        """Distance of every cell of a lung field to the field's edge."""
        right, left = (ndimage.distance_transform_edt(lung).astype(np.float32) for lung in self.lungs)
        return right, left

    @cached_property
    def soft(self) -> tuple[Field, Field]:
        """The lungs with soft edges, 0 to 1."""
        right, left = (ndimage.gaussian_filter(self.masks[f"{s} lung"].astype(np.float32), 1.2) for s in SIDES)
        return right, left

    @cached_property
    def apex(self) -> tuple[float, float]:
        """Topmost row of each lung."""
        right, left = (float(np.flatnonzero(lung.any(1))[0]) for lung in self._whole)
        return right, left

    @cached_property
    def base(self) -> tuple[float, float]:
        """Lowest row of each lung: its costophrenic angle."""
        right, left = (float(np.flatnonzero(lung.any(1))[-1] + 1) for lung in self._whole)
        return right, left

    @cached_property
    def wall(self) -> tuple[Field, Field]:
        """Column of each lung's outer edge in every row, continued above and below the lung."""
        return self._edge(outer=True)

    @cached_property
    def inner(self) -> tuple[Field, Field]:
        """Column of each lung's edge at the mediastinum in every row, continued above and below the lung."""
        return self._edge(outer=False)

    @cached_property
    def width(self) -> float:
        """Width of the chest inside the ribs: the unit of lengths."""
        rows = slice(int(min(self.apex)), int(max(self.base)))
        return float(max(1.0, (self.wall[1][rows] - self.wall[0][rows]).max()))

    @cached_property
    def heart(self) -> tuple[float, float, float, float]:
        """Box of the cardiac silhouette: x1, y1, x2, y2."""
        return mask_box(self.masks["cardiac silhouette"])

    @cached_property
    def midline(self) -> float:
        """Column of the spine: the middle of the upper mediastinum."""
        return float(np.mean(np.nonzero(self.masks["upper mediastinum"])[1]) + 0.5)

    @property
    def _whole(self) -> tuple[Mask, Mask]:
        return self.masks["right lung"], self.masks["left lung"]

    def _edge(self, outer: bool) -> tuple[Field, Field]:
        edges = []
        for side, lung in enumerate(self._whole):
            rows = np.flatnonzero(lung.any(1))
            first = lung[rows].argmax(1)
            last = lung.shape[1] - lung[rows, ::-1].argmax(1)
            column = first if (side == 0) == outer else last
            every = np.interp(np.arange(lung.shape[0]), rows, column.astype(float))
            edges.append(ndimage.gaussian_filter1d(every, 2.0, mode="nearest").astype(np.float32))
        return edges[0], edges[1]

    def zone(self, side: int, y: float) -> str:
        """Third of the lung's height in which a row lies: upper, mid or lower."""
        share = (y - self.apex[side]) / max(1.0, self.base[side] - self.apex[side])
        return ("upper", "mid", "lower")[int(np.clip(share * 3, 0, 2))]

    def implausible(self) -> str | None:
        """Why these lungs cannot be those of a frontal radiograph, None when they can."""
        height, width = self.shape
        areas = [float(lung.sum()) / (height * width) for lung in self._whole]
        centres = [float(np.nonzero(lung)[1].mean()) for lung in self._whole]
        if min(areas) < 0.03:
            return f"a lung covers {min(areas):.1%} of the image"
        if sum(areas) > 0.75:
            return f"the lungs cover {sum(areas):.0%} of the image"
        if max(areas) > 3.5 * min(areas):
            return "one lung is over three times as large as the other"
        if centres[1] - centres[0] < 0.15 * width:
            return "the lungs do not lie side by side"
        return None


def mask_box(mask: Mask) -> tuple[float, float, float, float]:
    """Tight half-open box of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _shrink(mask: Mask, shape: tuple[int, int]) -> Mask:
    from PIL import Image

    grey = Image.fromarray(np.asarray(mask, np.uint8) * 255)
    return np.asarray(grey.resize((shape[1], shape[0]), Image.Resampling.BOX)) >= 128


def _largest(mask: Mask) -> Mask:
    """The largest piece of a mask, without holes."""
    labels, count = ndimage.label(mask)
    if count > 1:
        mask = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.asarray(ndimage.binary_fill_holes(mask), bool)
