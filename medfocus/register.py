"""Affine registration of every reference to a target, by normalised cross-correlation of local contrast.

First all shifts at once, by FFT, for a grid of scales and aspect ratios (28 cells); then Levenberg-Marquardt steps on
scale and shift, then on the full affine map (56 cells), all references together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medfocus.appearance import SIDE, View, shrink
from medground_bench.core.schema import Box

__all__ = ["Alignment", "ReferenceStack", "sample"]

_COARSE, _FINE = 28, 56
_CANVAS = 42  # coarse cells of a scaled reference: 1.5 times the view
_PADDED = 72  # FFT length: canvas + view, and a fast size
_MAX_SHIFT = 9  # coarse cells, a third of the view
_SCALES = np.exp(np.linspace(-0.35, 0.35, 8))
_ASPECTS = np.exp(np.linspace(-0.2, 0.2, 5))
_MIN_OVERLAP = 0.35  # of the energy: below it a match of two corners would win
_STEPS = 10
_VOTERS = 8  # references whose mean correlation decides between the image and its negative, and that are turned
_TURNS = (-8.0, 8.0)  # degrees, of the starts from which they climb again
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
        """(g, 2): scales (y, x) of the coarse search."""
        return np.array([(s / a**0.5, s * a**0.5) for s in _SCALES for a in _ASPECTS])

    @cached_property
    def _spectra(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Conjugate spectra of all scaled references: contrast, validity, squared contrast; (n, g, P, P/2+1)."""
        from scipy import fft

        contrast, valid = shrink(self.contrast, _COARSE), shrink(self.valid, _COARSE)
        n, count = len(self), len(self._shapes)
        maps = np.zeros((n, 2, 3))
        scaled = np.zeros((2, n, count, _CANVAS, _CANVAS), np.float32)
        for g, (sy, sx) in enumerate(self._shapes):
            maps[:, 0, 0], maps[:, 1, 1] = 1 / sy, 1 / sx
            both = sample(np.stack([contrast, valid], -1), maps, _CANVAS)
            scaled[0, :, g], scaled[1, :, g] = both[..., 0], both[..., 1]
        shape = (_PADDED, _PADDED)
        first, second = (fft.rfft2(part, shape).conj() for part in scaled)
        return first, second, fft.rfft2(scaled[0] ** 2, shape).conj()

    def align(self, target: View) -> Alignment:
        """Register every reference to the target, as it is or, where that correlates better, as a negative."""
        positive, negative, gain = self._search(target)
        starts = {False: positive, True: negative}
        if abs(gain) > _PLAIN:  # one of them is out of the question
            del starts[gain < 0]
        found = {inverted: self._register(target, start, inverted) for inverted, start in starts.items()}
        inverted = max(found, key=lambda which: float(np.sort(found[which][1])[-_VOTERS:].mean()))
        return Alignment(*found[inverted], inverted)

    def _register(self, target: View, start: np.ndarray, inverted: bool) -> tuple[np.ndarray, np.ndarray]:
        """Maps and correlations after scale and shift, then the whole affine map, then the same from turned starts."""
        contrast = -target.contrast if inverted else target.contrast
        maps, _ = self._climb(contrast, target.valid, start, shear=False)
        maps, scores = self._climb(contrast, target.valid, maps, shear=True)
        best = np.argsort(-scores, kind="stable")[:_VOTERS]
        for turn in np.radians(_TURNS):
            rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            turned = maps[best].copy()
            turned[:, :, :2] = turned[:, :, :2] @ rotation
            turned, found = self._climb(contrast, target.valid, turned, shear=True, which=best)
            better = found > scores[best]
            maps[best[better]], scores[best[better]] = turned[better], found[better]
        return maps, scores

    def _search(self, target: View) -> tuple[np.ndarray, np.ndarray, float]:
        """Best scale, aspect and shift of every reference, to the target and to its negative.

        The third is how much better the negative correlates, the median over the references.
        """
        from scipy import fft

        shape = (_PADDED, _PADDED)
        contrast, valid = shrink(target.contrast, _COARSE), shrink(target.valid, _COARSE)
        one, two, three = (fft.rfft2(part, shape) for part in (contrast, contrast**2, valid))
        references, masks, squares = self._spectra
        # Energies of target and reference inside their overlap, for every shift (masked correlation).
        energy = float((contrast**2).sum()) * _MIN_OVERLAP + 1e-6
        product = fft.irfft2(references * one, shape)
        below = np.maximum(fft.irfft2(masks * two, shape), energy)
        below *= np.maximum(fft.irfft2(squares * three, shape), energy)
        scores = product / np.sqrt(below)
        centre = (_CANVAS - _COARSE) // 2
        shifts = np.fft.fftfreq(_PADDED, 1 / _PADDED) + centre
        inside = np.abs(shifts) <= _MAX_SHIFT
        scores = np.where(inside[:, None] & inside[None], scores, 0.0).reshape(len(self), -1)
        best, worst = scores.max(1), scores.min(1)
        # A negative's correlations are those of the original with the sign changed, so one search serves both.
        gain = float(np.median(-worst) - np.median(best))
        return self._start(scores.argmax(1), shifts), self._start(scores.argmin(1), shifts), gain

    def _start(self, chosen: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        """The map of the coarse search's cell."""
        shapes, rest = np.divmod(chosen, _PADDED * _PADDED)
        rows, columns = np.divmod(rest, _PADDED)
        maps = np.zeros((len(self), 2, 3))
        for axis, found in enumerate((rows, columns)):
            scale = self._shapes[shapes, axis]
            maps[:, axis, axis] = 1 / scale
            maps[:, axis, 2] = -shifts[found] * (SIDE // _COARSE) / scale
        return maps

    def _climb(
        self,
        target: np.ndarray,
        valid: np.ndarray,
        maps: np.ndarray,
        *,
        shear: bool,
        which: np.ndarray | slice = slice(None),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Levenberg-Marquardt on |gain * reference - target|^2 over the overlap; keeps the best correlation seen."""
        n, step = len(maps), SIDE // _FINE
        contrast, mask = shrink(self.contrast[which], _FINE), shrink(self.valid[which], _FINE)
        target, valid = shrink(target, _FINE), shrink(valid, _FINE)
        slope_y, slope_x = np.gradient(contrast, axis=(1, 2))
        layers = np.stack([contrast, slope_y, slope_x, mask], -1)
        centre = (_FINE - 1) / 2
        y, x = np.meshgrid(np.arange(_FINE) - centre, np.arange(_FINE) - centre, indexing="ij")
        one = np.ones_like(y)
        terms = [(0, 0, y), (0, 1, x), (0, 2, one), (1, 0, y), (1, 1, x), (1, 2, one)]
        if not shear:
            terms = [terms[0], terms[2], terms[4], terms[5]]
        size = len(terms)
        current = maps.copy()
        current[:, :, 2] /= step
        best, scores = current.copy(), np.full(n, -np.inf)
        damping = np.full(n, 1e-2)
        normal, right = np.tile(np.eye(size), (n, 1, 1)), np.zeros((n, size))
        for _ in range(_STEPS + 1):
            warped = sample(layers, current, _FINE)
            moved, weight = warped[..., 0], warped[..., 3] * valid
            cross = (weight * moved * target).sum((1, 2))
            power = (weight * moved * moved).sum((1, 2)) + 1e-9
            overlap = weight.sum((1, 2)) / max(float(valid.sum()), 1e-9)
            found = cross / np.sqrt(power * (weight * target * target).sum((1, 2)) + 1e-9)
            found *= np.minimum(1.0, overlap / 0.5)
            better = found > scores
            scores, best[better] = np.where(better, found, scores), current[better]
            damping = np.where(better, damping * 0.3, damping * 6.0)
            gain = (cross / power)[:, None, None]
            jacobian = np.stack([gain * weight * warped[..., 1 + axis] * term for axis, _, term in terms], -1)
            jacobian = jacobian.reshape(n, -1, size)
            error = ((target - gain * moved) * weight).reshape(n, -1, 1)
            transposed = jacobian.transpose(0, 2, 1)
            normal[better] = (transposed @ jacobian)[better]
            right[better] = (transposed @ error)[better, :, 0]
            diagonal = np.einsum("nii->ni", normal)
            ridge = damping[:, None] * diagonal + 1e-6 * diagonal.mean(1, keepdims=True) + 1e-9
            move = np.linalg.solve(normal + np.eye(size) * ridge[:, None], right[..., None])[..., 0]
            current = best.copy()
            for k, (row, column, _) in enumerate(terms):
                current[:, row, column] += move[:, k]
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
    n, height, width = layers.shape[:3]
    centre = (size - 1) / 2
    y, x = np.meshgrid(np.arange(size) - centre, np.arange(size) - centre, indexing="ij")
    a = maps[..., None, None]
    rows = a[:, 0, 0] * y + a[:, 0, 1] * x + a[:, 0, 2] + (height - 1) / 2
    columns = a[:, 1, 0] * y + a[:, 1, 1] * x + a[:, 1, 2] + (width - 1) / 2
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    padded = np.zeros((n, height + 2, width + 2, layers.shape[3]), layers.dtype)
    padded[:, 1:-1, 1:-1] = layers
    flat = padded.reshape(n, -1, layers.shape[3])
    item = np.arange(n)[:, None, None]
    top0, top1 = np.clip(top + 1, 0, height + 1), np.clip(top + 2, 0, height + 1)
    left0, left1 = np.clip(left + 1, 0, width + 1), np.clip(left + 2, 0, width + 1)
    stride = width + 2
    upper = flat[item, top0 * stride + left0] * (1 - across) + flat[item, top0 * stride + left1] * across
    lower = flat[item, top1 * stride + left0] * (1 - across) + flat[item, top1 * stride + left1] * across
    return upper * (1 - down) + lower * down
