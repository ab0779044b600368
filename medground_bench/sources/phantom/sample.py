"""Drawing a phantom: seed -> image, findings and masks, and the same chest without a finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medground_bench.core.anatomy import CONCEPTS
from medground_bench.core.errors import MedGroundError, nearest
from medground_bench.core.schema import Box
from medground_bench.sources.phantom.anatomy import SIDES, draw_anatomy, draw_exposure, draw_pose, stream
from medground_bench.sources.phantom.concepts import concept_masks
from medground_bench.sources.phantom.findings import DRAWING_ORDER, FINDINGS, Effect, draw_layout, effect
from medground_bench.sources.phantom.marker import CORNERS, stamp_marker
from medground_bench.sources.phantom.scene import Scene

if TYPE_CHECKING:
    from medground_bench.sources.phantom.shapes import Field, Mask

__all__ = ["SIZES", "Finding", "Phantom", "mask_box", "sample_phantom"]

SIZES: tuple[int, int] = (112, 2048)
"""Smallest and largest side of a phantom, pixels."""

_PREVALENCE = 0.27
_NORMAL = 0.08  # share of chests drawn without any finding, beside those that happen to have none


@dataclass(frozen=True)
class Finding:
    """One finding of a phantom.

    Attributes
    ----------
    attribute : str
        One of :data:`FINDINGS`.
    side : {"left", "right", "both", None}
        The patient's side; None for the heart and the aorta.
    location : str
        Anatomical phrase.
    concept : str
        The anatomical concept that holds it best; the composite group when it is on both sides.
    mask : bool array, shape (H, W)
        Where it is.
    boxes : tuple of Box
        Tight half-open boxes of the mask, one per lesion.
    """

    attribute: str
    side: str | None
    location: str
    concept: str
    mask: Mask
    boxes: tuple[Box, ...]


def mask_box(mask: Mask) -> Box | None:
    """Tight half-open box of a mask, None where it is empty."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return (float(cols[0]), float(rows[0]), float(cols[-1] + 1), float(rows[-1] + 1))


class _Drawing:
    """What a phantom and its counterfactuals share: scene, noise and the effects drawn so far."""

    def __init__(self, seed: int, width: int, height: int, marker: str | None = None, contrast: float = 1.0) -> None:
        self.seed, self.width, self.height, self.marker, self.contrast = seed, width, height, marker, contrast
        anatomy = draw_anatomy(seed)
        self.scene = Scene(seed, anatomy, draw_pose(seed, anatomy), width, height)
        self.exposure = draw_exposure(seed)
        self.layout = draw_layout(seed)
        self._effects: dict[str, Effect] = {}

    def effect(self, attribute: str) -> Effect:
        if attribute not in self._effects:
            self._effects[attribute] = effect(attribute, self.scene, self.layout)
        return self._effects[attribute]

    @cached_property
    def noise(self) -> Field:
        """Quantum noise of unit variance, a little correlated by the detector."""
        r = stream(self.seed, "noise")
        white = r.standard_normal((self.height + 1, self.width + 1), dtype=np.float32)
        mixed = white[1:, 1:] + np.float32(0.45) * (white[:-1, 1:] + white[1:, :-1]) + np.float32(0.2) * white[:-1, :-1]
        return np.asarray(mixed / np.float32(np.sqrt(1 + 2 * 0.45**2 + 0.2**2)), np.float32)

    def _marker(self) -> Field:
        """The lead letter L beside the patient's left shoulder."""
        g = self.scene.grid
        unit = min(self.width, self.height)
        column, row = (part * unit for part in self.exposure.marker_at)
        x = g.centre[0] + column / g.unit
        y = g.centre[1] + (row - self.height / 2) / g.unit
        stem = (np.abs(g.x - x) < 0.004) & (np.abs(g.y - y) < 0.020)
        foot = (np.abs(g.x - x - 0.009) < 0.013) & (np.abs(g.y - y - 0.017) < 0.004)
        return np.float32(0.6) * (stem | foot).astype(np.float32)

    def expose(self, depth: Field) -> NDArray[np.uint8]:
        """Attenuation -> 8-bit display values. Local: a pixel depends on its neighbours within the blur only."""
        from scipy.ndimage import gaussian_filter

        e, unit = self.exposure, self.scene.grid.unit
        if e.marker:
            depth = depth + self._marker()
        depth = gaussian_filter(depth, max(0.45, e.blur * unit), truncate=3.0)
        # Fewer quanta reach the detector behind dense tissue.
        depth = depth + self.noise * (np.float32(e.noise) * np.exp(np.float32(0.6) * depth))
        value = (depth - np.float32(0.42)) * np.float32(e.contrast) + np.float32(0.44 + e.brightness)
        # A film-like curve: linear in the middle, soft at both ends.
        value = np.float32(0.5) + np.float32(0.5 / np.tanh(1.05)) * np.tanh(np.float32(2.1) * (value - np.float32(0.5)))
        value = np.clip(value, 0.0, 1.0) ** np.float32(e.gamma)
        value = np.float32(e.collimation) + (np.float32(1.0 - e.collimation)) * value
        return np.rint(value * np.float32(255.0)).astype(np.uint8)


class Phantom:
    """A procedural chest radiograph with exact masks. Made by :func:`sample_phantom`.

    Attributes
    ----------
    seed : int
        What it was drawn from.
    size : tuple of int
        Width and height, pixels.
    attributes : tuple of str
        The findings that are present, in the order of :data:`FINDINGS`.
    """

    def __init__(self, drawing: _Drawing, attributes: tuple[str, ...]) -> None:
        self._drawing = drawing
        self.seed = drawing.seed
        self.size = (drawing.width, drawing.height)
        self.attributes = attributes

    def __repr__(self) -> str:
        return f"Phantom(seed={self.seed}, size={self.size}, attributes={self.attributes})"

    @cached_property
    def image(self) -> NDArray[np.uint8]:
        """The radiograph, (H, W), 8-bit grey, dense tissue bright."""
        depth = self._drawing.scene.attenuation
        for attribute in DRAWING_ORDER:
            if attribute not in self.attributes:
                continue
            changed = self._drawing.effect(attribute).apply(depth)
            contrast = self._drawing.contrast
            depth = changed if contrast == 1 else depth + np.float32(contrast) * (changed - depth)
        image = self._drawing.expose(depth)
        if self._drawing.marker:
            image, _ = stamp_marker(image, self._drawing.marker)
        image.flags.writeable = False
        return image

    @property
    def marker(self) -> str | None:
        """The corner of its marker, None where it has none."""
        return self._drawing.marker

    @property
    def contrast(self) -> float:
        """What of their attenuation the findings have, 1 for all of it."""
        return self._drawing.contrast

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """The findings that are present."""
        out = []
        for attribute in self.attributes:
            e = self._drawing.effect(attribute)
            side = None if not e.sides else "both" if len(e.sides) == 2 else SIDES[e.sides[0]]
            boxes = tuple(box for box in map(mask_box, e.masks) if box is not None)
            mask = np.logical_or.reduce(e.masks)
            out.append(Finding(attribute, side, e.location, e.concept, mask, boxes))
        return tuple(out)

    @cached_property
    def masks(self) -> dict[str, Mask]:
        """Exact masks of the 11 anatomical concepts, each (H, W); an enlarged heart has an enlarged silhouette."""
        enlarged = self._drawing.effect("cardiomegaly").masks[0] if "cardiomegaly" in self.attributes else None
        masks = concept_masks(self._drawing.scene, enlarged)
        return {name: masks[name] for name in CONCEPTS}

    def without(self, attribute: str | None = None) -> Phantom:
        """The same chest, exposure and noise without one finding (all of them when None).

        Raises
        ------
        MedGroundError
            If the phantom does not have that finding.
        """
        if attribute is None:
            return Phantom(self._drawing, ())
        if attribute not in self.attributes:
            raise MedGroundError(
                f"this phantom has no {attribute!r}",
                where=f"phantom {self.seed}",
                expected=f"one of {', '.join(self.attributes) or 'nothing (it is normal)'}",
            )
        return Phantom(self._drawing, tuple(a for a in self.attributes if a != attribute))


def sample_phantom(
    seed: int,
    *,
    size: int | tuple[int, int] = 512,
    findings: Sequence[str] | None = None,
    marker: str | None = None,
    contrast: float = 1.0,
) -> Phantom:
    """Draw a procedural chest radiograph.

    The same seed gives the same chest, exposure and noise whatever findings it carries, and every finding looks the
    same whichever others are beside it.

    Parameters
    ----------
    seed : int
        Not negative.
    size : int or (width, height)
        Pixels, each side from 112 to 2048.
    findings : sequence of str, optional
        Plants exactly these (names of :data:`FINDINGS`; empty for a normal chest). By default they are drawn at
        random, several per image possible.
    marker : str, optional
        Corner of a marker that no question asks about (one of
        :data:`~medground_bench.sources.phantom.marker.CORNERS`); its counterfactuals keep it.
    contrast : float
        What of their attenuation the findings have, above 0 and at most 1. Masks, boxes and all else are the same.

    Raises
    ------
    MedGroundError
        If the seed, the size, a finding, the corner or the contrast is not one.
    """
    width, height = (size, size) if isinstance(size, int | np.integer) else (int(size[0]), int(size[1]))
    low, high = SIZES
    if not (low <= width <= high and low <= height <= high):
        raise MedGroundError(f"a phantom of {width} x {height} pixels", expected=f"sides from {low} to {high} pixels")
    if seed < 0:
        raise MedGroundError(f"seed {seed} is negative", expected="an integer from 0")
    if findings is None:
        r = stream(seed, "presence")
        normal, draws = r.random() < _NORMAL, r.random(len(FINDINGS))
        present = {f for f, draw in zip(FINDINGS, draws, strict=True) if draw < _PREVALENCE and not normal}
    else:
        present = set(findings)
        if unknown := sorted(present - set(FINDINGS)):
            raise MedGroundError(
                f"unknown finding {unknown[0]!r}",
                expected=f"one of {', '.join(FINDINGS)}",
                remedy=nearest(unknown[0], FINDINGS),
            )
    if marker is not None and marker not in CORNERS:
        raise MedGroundError(f"no corner {marker!r}", expected=f"one of {', '.join(CORNERS)}")
    if not 0 < contrast <= 1:
        raise MedGroundError(f"findings of contrast {contrast}", expected="above 0 and at most 1")
    return Phantom(_Drawing(int(seed), width, height, marker, contrast), tuple(f for f in FINDINGS if f in present))
