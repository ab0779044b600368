"""Unbalanced transport of position and appearance together, after registration.

Every cell of a radiograph carries one unit of mass at the point (y, x, contrast). Between a registered reference and
the target the cost is ``|dy, dx|^2 / reach^2 + (dc)^2 / tone^2``: mass prefers to stay near *and* to arrive on tissue
that looks alike, so that a label settles on the target's own edge where registration left it beside. The cost is a
sum over the three axes, hence the kernel is a product of three small matrices and a Sinkhorn sweep over 25,000 points
costs six small matrix products; the plan is never formed. The problem solved is that of :mod:`medfocus.uot` with
epsilon 1 (the two lengths carry the scale).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["LiftedPlan", "lift", "solve_lifted_uot"]

LIMIT = 2.0  # contrast beyond +-LIMIT counts as LIMIT
_TINY = 1e-30
_NOTHING = 1e-10  # what a kernel leaves of a point's mass there


@dataclass(frozen=True, eq=False)
class LiftedPlan:
    """Plans from n references to one target on a grid lifted by a contrast axis.

    Attributes
    ----------
    u : ndarray, (n, b, h, w) float32
        Scalings of the references' points.
    v : ndarray, (n, b, h, w) float32
        Scalings of the target's points.
    kernels : tuple of ndarray
        (b, b), (h, h) and (w, w).
    iterations : int
        Sweeps until all scalings stood still.
    converged : bool
        Whether they did.
    """

    u: np.ndarray
    v: np.ndarray
    kernels: tuple[np.ndarray, np.ndarray, np.ndarray]
    iterations: int
    converged: bool

    @cached_property
    def arrived(self) -> np.ndarray:
        """Mass that reaches every target cell from each reference, (n, h, w): the less, the worse it is matched."""
        return np.asarray((self.v * _apply(self.kernels, self.u)).sum(1))

    def labels(self, regions: np.ndarray) -> np.ndarray:
        """Share of every target cell's mass that comes from each region.

        Parameters
        ----------
        regions : ndarray, (n, c, h, w)
            Regions of the references on the common grid, 0-1.

        Returns
        -------
        ndarray, (n, c, h, w) float32
            In [0, 1]; 0 where no mass arrives.
        """
        shares = np.zeros(regions.shape, np.float32)
        for k, region in enumerate(np.moveaxis(regions, 1, 0)):
            (y, to_y), (x, to_x) = (
                _reached(region.any(axis), kernel)
                for axis, kernel in (((0, 2), self.kernels[1]), ((0, 1), self.kernels[2]))
            )
            part = self.u[:, :, y, x] * region[:, None, y, x]
            kernels = self.kernels[0], self.kernels[1][to_y, y], self.kernels[2][x, to_x]
            shares[:, k, to_y, to_x] = (self.v[:, :, to_y, to_x] * _apply(kernels, part)).sum(1)
        return shares / np.maximum(self.arrived, _TINY)[:, None]

    def moves(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean displacement (dy, dx) of every reference cell, (n, 2, h, w) in cells, and the mass it is known from."""
        height, width = self.u.shape[-2:]
        mass = (self.u * _apply(self.kernels, self.v)).sum(1)
        axes = np.meshgrid(np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32), indexing="ij")
        means = [(self.u * _apply(self.kernels, self.v * axis)).sum(1) / np.maximum(mass, _TINY) for axis in axes]
        return np.stack([mean - axis for mean, axis in zip(means, axes, strict=True)], 1), mass


def lift(contrast: np.ndarray, valid: np.ndarray, bins: int) -> np.ndarray:
    """(..., h, w) contrast -> (..., bins, h, w) mass, each cell's unit shared by its two nearest bins."""
    position = (np.clip(contrast, -LIMIT, LIMIT) + LIMIT) / (2 * LIMIT) * (bins - 1)
    centres = np.arange(bins, dtype=np.float32)[:, None, None]
    share = np.maximum(0.0, 1.0 - np.abs(position[..., None, :, :] - centres))
    return (share * valid[..., None, :, :]).astype(np.float32)


def solve_lifted_uot(
    references: np.ndarray,
    target: np.ndarray,
    *,
    reach: float,
    tone: float,
    marginal: float,
    tolerance: float = 5e-3,
    max_iterations: int = 100,
) -> LiftedPlan:
    """Transport between lifted grids (:func:`lift`).

    Parameters
    ----------
    references : ndarray, (n, b, h, w)
        Mass of each registered reference.
    target : ndarray, (b, h, w)
        Mass of the target.
    reach : float
        Distance in cells at which moving costs 1.
    tone : float
        Difference of contrast at which changing it costs 1.
    marginal : float
        Weight of both marginal penalties.
    tolerance : float
        Largest relative change of a scaling in one sweep at which it stops; labels are shares, so 5e-3 is ample.
    """
    bins, height, width = target.shape
    step = 2 * LIMIT / (bins - 1)
    kernels = (_gaussian(bins, tone / step), _gaussian(height, reach), _gaussian(width, reach))
    damping = marginal / (marginal + 1.0)
    v = np.broadcast_to(target > 0, references.shape).astype(np.float32)
    u, new, *spare = (np.zeros_like(v) for _ in range(4))
    converged, sweeps = False, 0
    while sweeps < max_iterations and not converged:
        sweeps += 1
        _scale(references, v, kernels, damping, u, spare)
        _scale(target, u, kernels, damping, new, spare)
        least, most = np.minimum(new, v, out=spare[0]), np.maximum(new, v, out=spare[1])
        converged = bool((least >= np.multiply(most, np.float32(1.0 - tolerance), out=most)).all())
        v, new = new, v
    return LiftedPlan(u, v, kernels, sweeps, converged)


def _scale(
    mass: np.ndarray,
    other: np.ndarray,
    kernels: tuple[np.ndarray, np.ndarray, np.ndarray],
    damping: float,
    out: np.ndarray,
    spare: list[np.ndarray],
) -> None:
    """``(mass / (K other)) ** damping`` into ``out``; memory is used again, for there is much of it."""
    _apply(kernels, other, out, spare)
    np.maximum(out, _TINY, out=out)
    np.divide(mass, out, out=out)
    if damping == 0.5:
        np.sqrt(out, out=out)
    else:
        np.power(out, np.float32(damping), out=out)


def _gaussian(size: int, length: float) -> np.ndarray:
    cells = np.arange(size)
    return np.exp(-(((cells[:, None] - cells[None]) / length) ** 2)).astype(np.float32)


def _reached(inside: np.ndarray, kernel: np.ndarray) -> tuple[slice, slice]:
    """The cells from first to last, and those to which the kernel brings something from there."""
    cells = np.flatnonzero(inside)
    if not len(cells):
        return slice(0), slice(0)
    reached = np.flatnonzero(kernel[cells].max(0) > _NOTHING)
    return slice(int(cells[0]), int(cells[-1]) + 1), slice(int(reached[0]), int(reached[-1]) + 1)


def _apply(
    kernels: tuple[np.ndarray, np.ndarray, np.ndarray],
    values: np.ndarray,
    out: np.ndarray | None = None,
    spare: Sequence[np.ndarray | None] = (None, None),
) -> np.ndarray:
    """The product kernel on (n, b, h, w); into ``out`` and by way of two arrays of the same shape where given."""
    tone, rows, columns = kernels
    across = np.matmul(values, columns, out=spare[0])
    spread = np.matmul(rows, across, out=spare[1])
    n, bins, height, width = spread.shape
    flat = None if out is None else out.reshape(n, bins, -1)
    result: np.ndarray = np.matmul(tone, spread.reshape(n, bins, -1), out=flat).reshape(n, bins, height, width)
    return result
