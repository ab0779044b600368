"""Affine registration of every reference to a target, by normalised cross-correlation of local contrast.

First all shifts for a grid of scales and aspect ratios (14 cells). From the best of every quarter of the scales
Levenberg-Marquardt steps on scale and shift; from the best of these on the full affine map, and again from turned
starts (28 cells); then on the affine map once more (56 cells). All references climb together, each until it gains no
more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medfocus.appearance import SIDE, View, shrink
from medground_bench.core.schema import Box

__all__ = ["Alignment", "ReferenceStack", "sample"]

_SEARCH, _COARSE, _FINE = 14, 28, 56
_REACH = 4  # search cells, about a third of the view: the largest shift
_SCALES = np.exp(np.linspace(-0.35, 0.35, 8))
_ASPECTS = np.exp(np.linspace(-0.2, 0.2, 5))
_MIN_OVERLAP = 0.35  # of the energy: below it a match of two corners would win
_STARTS = 4  # parts of the scales
_STEPS, _FIRST = 10, 4  # at most, and on scale and shift
_GAIN = 3e-4  # of correlation: a step that gains less is the last one
_VOTERS = 8  # references whose mean correlation decides between the image and its negative, and that are turned
_TURNS = np.radians([-8.0, 8.0])  # of the starts from which they climb again
_ROTATIONS = np.array([[[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]] for turn in _TURNS])
_PLAIN = 0.1  # gain of correlation beyond which the image, or its negative, is not tried


@dataclass(frozen=True)
class Alignment:
    """Where the references lie on a target.

    Attributes
    ----------
    maps : ndarray, (n, 2, 3)
        Target -> reference, (y, x) in working pixels from the middle of the view.
    scores : ndarray, (n,)
        Normalised cross-correlation over the overlap, at most 1.
    inverted : bool
        The target looks like a negative of the references and was compared as one.
    """

    maps: np.ndarray
    scores: np.ndarray
    inverted: bool

    def box(self, index: int, box: Box) -> Box:
        """A box of the reference's working view on the target's: its edge midpoints, mapped."""
        matrix, shift = self.maps[index, :, :2], self.maps[index, :, 2]
        centre = SIDE / 2
        x1, y1, x2, y2 = box
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        points = np.array([(y, x1), (y, x2), (y1, x), (y2, x)]).T - centre
        mapped = np.linalg.solve(matrix, points - shift[:, None]) + centre
        return float(mapped[1, 0]), float(mapped[0, 2]), float(mapped[1, 1]), float(mapped[0, 3])


class ReferenceStack:
    """The pool's views, and what the search needs of them, computed once."""

    def __init__(self, views: Sequence[View]) -> None:
        self.contrast = np.stack([view.contrast for view in views])
        self.valid = np.stack([view.valid for view in views])

    def __len__(self) -> int:
        return len(self.contrast)

    @cached_property
    def _shapes(self) -> np.ndarray:
        """(g, 2): scales (y, x) of the search."""
        return np.array([(s / a**0.5, s * a**0.5) for s in _SCALES for a in _ASPECTS])

    @cached_property
    def _scaled(self) -> tuple[np.ndarray, np.ndarray]:
        """Every reference in every shape, contrast and validity, (n * g, canvas ** 2)."""
        layers = np.stack([shrink(self.contrast, _SEARCH), shrink(self.valid, _SEARCH)], -1)
        maps = np.zeros((len(self._shapes), 1, 2, 3))
        maps[:, 0, 0, 0], maps[:, 0, 1, 1] = 1 / self._shapes.T
        size = _SEARCH + 2 * _REACH
        scaled = np.stack([sample(layers, np.repeat(m, len(self), 0), size) for m in maps], 1)
        contrast, valid = np.moveaxis(scaled.astype(np.float32), -1, 0).reshape(2, -1, size * size)
        return contrast, valid

    @cached_property
    def _levels(self) -> dict[int, _Level]:
        return {size: _Level(shrink(self.contrast, size), shrink(self.valid, size)) for size in (_COARSE, _FINE)}

    def align(self, target: View) -> Alignment:
        """Register every reference to the target, as it is or, where that correlates better, as a negative."""
        positive, negative, gain = self._search(target)
        starts = {False: positive, True: negative}
        if abs(gain) > _PLAIN:  # one of them is out of the question
            del starts[gain < 0]
        found = {inverted: self._register(target, start, inverted) for inverted, start in starts.items()}
        inverted = max(found, key=lambda which: float(np.sort(found[which][1])[-_VOTERS:].mean()))
        maps, _ = found[inverted]
        return Alignment(*_climb(*self._at(target, _FINE, inverted), np.arange(len(self)), maps), inverted)

    def _at(self, target: View, size: int, inverted: bool) -> tuple[_Level, np.ndarray, np.ndarray]:
        contrast = shrink(target.contrast, size)
        return self._levels[size], -contrast if inverted else contrast, shrink(target.valid, size)

    def _register(self, target: View, starts: np.ndarray, inverted: bool) -> tuple[np.ndarray, np.ndarray]:
        """Maps and correlations after scale and shift, then the whole affine map, then the same from turned starts."""
        at = self._at(target, _COARSE, inverted)
        every = np.arange(len(self))
        maps, scores = _climb(*at, np.tile(every, len(starts)), starts.reshape(-1, 2, 3), shear=False, steps=_FIRST)
        best = scores.reshape(len(starts), -1).argmax(0)
        maps, scores = _climb(*at, every, maps.reshape(starts.shape)[best, every])
        some = np.argsort(-scores, kind="stable")[:_VOTERS]
        turned = np.repeat(maps[some][None], len(_TURNS), 0)
        turned[..., :2] = turned[..., :2] @ _ROTATIONS[:, None]
        turned, found = _climb(*at, np.tile(some, len(_TURNS)), turned.reshape(-1, 2, 3))
        for again, score in zip(np.split(turned, len(_TURNS)), np.split(found, len(_TURNS)), strict=True):
            better = score > scores[some]
            maps[some[better]], scores[some[better]] = again[better], score[better]
        return maps, scores

    def _search(self, target: View) -> tuple[np.ndarray, np.ndarray, float]:
        """Best scale, aspect and shift of every reference, (starts, n, 2, 3), to the target and to its negative.

        The third is how much better the negative correlates, the median over the references.
        """
        contrast, valid = shrink(target.contrast, _SEARCH), shrink(target.valid, _SEARCH)
        references, masks = self._scaled
        # Energies of target and reference inside their overlap, for every shift (masked correlation).
        energy = float((contrast**2).sum()) * _MIN_OVERLAP + 1e-6
        below = np.maximum(masks @ _shifted(contrast**2), energy)
        below *= np.maximum(references**2 @ _shifted(valid), energy)
        scores = (references @ _shifted(contrast) / np.sqrt(below)).reshape(len(self), -1)
        best, worst = scores.max(1), scores.min(1)
        # A negative's correlations are those of the original with the sign changed, so one search serves both.
        gain = float(np.median(-worst) - np.median(best))
        parts = scores.reshape(len(self), _STARTS, -1)
        first = np.arange(_STARTS) * parts.shape[2]
        return self._starts(parts.argmax(2) + first), self._starts(parts.argmin(2) + first), gain

    def _starts(self, chosen: np.ndarray) -> np.ndarray:
        """The maps of the search's cells, (n, starts) -> (starts, n, 2, 3)."""
        shapes, shift = np.divmod(chosen.T, (2 * _REACH + 1) ** 2)
        maps = np.zeros((*shapes.shape, 2, 3))
        for axis, moved in enumerate(np.divmod(shift, 2 * _REACH + 1)):
            scale = self._shapes[shapes, axis]
            maps[..., axis, axis] = 1 / scale
            maps[..., axis, 2] = -(moved - _REACH) * (SIDE // _SEARCH) / scale
        return maps


class _Level:
    """The references at one resolution, with their slopes, ready to be sampled."""

    def __init__(self, contrast: np.ndarray, valid: np.ndarray) -> None:
        self.size = contrast.shape[-1]
        self.padded = _pad(np.stack([contrast, *np.gradient(contrast, axis=(1, 2)), valid], -1).astype(np.float32))
        at = np.arange(self.size, dtype=np.float32) - (self.size - 1) / 2
        y, x = (v.ravel() for v in np.meshgrid(at, at, indexing="ij"))
        self.terms = np.stack([y, x, np.ones_like(x)], 1)
        self.products = (self.terms[:, :, None] * self.terms[:, None]).reshape(-1, 9)


def _shifted(values: np.ndarray) -> np.ndarray:
    """Where the target lies on a reference's canvas if that is moved by every shift, (canvas ** 2, shifts)."""
    side, size = 2 * _REACH + 1, len(values) + 2 * _REACH
    out = np.zeros((side, side, size, size), np.float32)
    for y in range(side):
        for x in range(side):
            out[y, x, side - 1 - y : side - 1 - y + len(values), side - 1 - x : side - 1 - x + len(values)] = values
    return out.reshape(side * side, -1).T


def _climb(
    level: _Level,
    target: np.ndarray,
    valid: np.ndarray,
    which: np.ndarray,
    maps: np.ndarray,
    *,
    shear: bool = True,
    steps: int = _STEPS,
) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt on |gain * reference - target|^2 over the overlap; keeps the best correlation seen.

    Parameters
    ----------
    level : _Level
        The references.
    target, valid : ndarray, (size, size)
        As large as they.
    which : ndarray of int, (m,)
        References that climb.
    maps : ndarray, (m, 2, 3)
        Where from.
    shear : bool
        False climbs on scale and shift alone.
    steps : int
        At most.
    """
    step = SIDE // level.size
    target, valid = target.astype(np.float32).ravel(), valid.astype(np.float32).ravel()
    squared, area = target * target, max(float(valid.sum()), 1e-9)
    free = np.arange(6) if shear else np.array([0, 2, 4, 5])  # of (yy, yx, y, xy, xx, x)
    best = maps.copy()
    best[:, :, 2] /= step
    scores, damping = np.full(len(maps), -np.inf), 1e-2
    normal, right = np.tile(np.eye(len(free)), (len(maps), 1, 1)), np.zeros((len(maps), len(free)))
    current, active = best.copy(), np.arange(len(maps))
    for _ in range(steps + 1):
        moved, slope_y, slope_x, weight = np.moveaxis(_gather(level.padded, which[active], current, level.size), -1, 0)
        weight = weight * valid
        weighed = weight * moved
        cross, power = weighed @ target, np.einsum("np,np->n", weighed, moved) + 1e-9
        found = cross / np.sqrt(power * (weight @ squared) + 1e-9)
        found *= np.minimum(1.0, weight.sum(1) / area / 0.5)
        gained = found - scores[active]
        better = gained > 0
        damping *= 0.3
        up = active[better]
        scores[up], best[up] = found[better], current[better]
        gain = (cross / power)[better, None]
        error = (target - gain * moved[better]) * weight[better]
        slopes = np.stack([slope_y[better], slope_x[better]], 1) * (gain * weight[better])[:, None]
        pairs = (slopes[:, [0, 0, 1, 1]] * slopes[:, [0, 1, 0, 1]]) @ level.products
        whole = pairs.reshape(len(up), 2, 2, 3, 3).transpose(0, 1, 3, 2, 4).reshape(len(up), 6, 6)
        normal[up] = whole[:, free[:, None], free]
        right[up] = ((slopes * error[:, None]) @ level.terms).reshape(len(up), 6)[:, free]
        active = active[gained > _GAIN]
        if not len(active):
            break
        diagonal = np.einsum("nii->ni", normal[active])
        ridge = damping * diagonal + 1e-6 * diagonal.mean(1, keepdims=True) + 1e-9
        move = np.linalg.solve(normal[active] + np.eye(len(free)) * ridge[:, None], right[active, :, None])[..., 0]
        current = best[active]
        current.reshape(-1, 6)[:, free] += move
    best[:, :, 2] *= step
    return best, scores


def sample(layers: np.ndarray, maps: np.ndarray, size: int) -> np.ndarray:
    """Resample a stack of images through affine maps, bilinear, zero outside.

    Parameters
    ----------
    layers : ndarray, (n, h, w, c)
        Images; channels are sampled together.
    maps : ndarray, (n, 2, 3)
        Output -> input, (y, x) from either image's centre, in cells.
    size : int
        Cells per side of the output.

    Returns
    -------
    ndarray, (n, size, size, c)
    """
    out = _gather(_pad(layers), np.arange(len(layers)), maps, size)
    return out.reshape(len(layers), size, size, -1)


def _pad(layers: np.ndarray) -> np.ndarray:
    """Zeros around every image; in one piece of memory, so that :func:`_gather` need not copy it."""
    return np.ascontiguousarray(np.pad(layers, ((0, 0), (1, 1), (1, 1), (0, 0))))


def _gather(padded: np.ndarray, which: np.ndarray, maps: np.ndarray, size: int) -> np.ndarray:
    """As :func:`sample`, of some of the images that :func:`_pad` gave, (m, size * size, c)."""
    _, height, width, channels = padded.shape
    at = (np.arange(size) - (size - 1) / 2).astype(padded.dtype)
    (top, down), (left, across) = (
        _cells(map_, at, length) for map_, length in zip(np.moveaxis(maps, 1, 0), (height, width), strict=True)
    )
    flat = padded.reshape(-1, channels)
    first = top * width + left + (which * (height * width))[:, None]
    upper, right, lower, last = (flat.take(first + offset, 0) for offset in (0, 1, width, width + 1))
    for start, end, share in ((upper, right, across), (lower, last, across), (upper, lower, down)):
        end -= start
        end *= share
        start += end
    return upper


def _cells(map_: np.ndarray, at: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, of (m, 3) maps: the cell before every point, (m, p), and the share of the next, (m, p, 1)."""
    a, b, c = map_.astype(at.dtype).T[..., None, None]
    place = (a * at[:, None] + (b * at + (c + at.dtype.type((length - 1) / 2)))).reshape(len(map_), -1)
    np.clip(place, 0, length - 1, out=place)
    before = np.minimum(place.astype(np.intp), length - 2)
    place -= before
    return before, place[..., None]
