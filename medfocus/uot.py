"""Unbalanced optimal transport between two weight maps on one grid, without ever forming the plan.

The problem (paper, section 4.1, with the entropy of POT's ``reg_type="entropy"``)::

    T* = argmin_T <C, T> + eps * sum T (log T - 1) + lam * KL(T 1 | a) + lam * KL(T' 1 | b)

where ``C`` is the squared Euclidean distance of two cells divided by its 90th percentile over the pairs of support
cells. On a grid the kernel is a product of two small ones, ``exp(-C / eps) = k_y (x) k_x``, so that a Sinkhorn step is
two matrix products of the grid's side. Where ``eps`` is so small that the kernel underflows, the same iteration runs
on logarithms.

Near the solution a plain sweep shrinks the error by exactly ``theta = (lam / (lam + eps))^2`` in its slowest direction
(the linearised sweep is theta times a stochastic matrix with real eigenvalues in [0, 1]). Over-relaxing both half-steps
by ``omega = 2 / (1 + sqrt(1 - theta))`` shrinks it by ``omega - 1`` instead (Young's theory of successive
over-relaxation; Thibault et al., 2021, for Sinkhorn): 0.15 for 0.44 at the published setting, 0.96 for 0.9996 where
epsilon is small. Omega is reached from 1 by Chebyshev's sequence, ``1 / (1 - theta omega / 4)`` (Golub and Varga,
1961), with which the error never grows on the way.

Far from the solution an over-relaxed step may overshoot and circle for ever. A half-step is the exact maximiser of the
concave dual in one side's potential, so any step that does not fall below the old value keeps the dual rising and the
sweeps converging. With ``d`` the distance to the maximiser in units of eps, the loss is ``exp(d) - 1 - d`` (up to
eps / lam): cheap for ``d < 0``, exponential for ``d > 0``. So a step beyond the maximiser upwards is cut to the ``d``
at which the two losses are equal; near the solution the cut never acts, and the rate stays Young's. From time to time
the constant by which one potential may rise and the other fall, the slowest direction of all, is set to its optimum in
closed form (Sejourne et al., Faster Unbalanced Optimal Transport, AISTATS 2022).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from medground_bench.core.errors import GeometryError, MissingDependencyError

__all__ = [
    "GridPlan",
    "PotPlan",
    "cost_scale",
    "image_weights",
    "solve_grid_uot",
    "solve_grid_uot_by_pot",
    "solve_uot_by_pot",
]

QUANTILE = 90.0
SUPPORT = 0.02

_TRANSLATE_EVERY = 20  # sweeps
_SINGLE_SWEEPS, _SINGLE_ERROR = 15, 1e-5
_SAFE_EXPONENT_SINGLE = 120.0  # half of it on either axis
_SAFE_EXPONENT = 450.0  # exp(-x) with x beyond it leaves too little of the exponent range for the scalings u and v


def image_weights(image: np.ndarray, grid: int | None = None, support: float = SUPPORT) -> np.ndarray:
    """A grey image as a distribution over grid cells.

    The image is scaled to [0, 1] by its extremes and averaged over the cells by area; cells above ``support`` keep
    their intensity as weight and the weights are normalised to 1.

    Parameters
    ----------
    image : ndarray, (h, w)
        Any real scale.
    grid : int, optional
        Cells per side; without it the image's own pixels are the cells.
    support : float
        Cells at or below it have no weight.

    Returns
    -------
    ndarray, (grid, grid) or (h, w), float64
        All zero when the image is constant or not finite anywhere: it shows nothing to transport.
    """
    values = np.asarray(image, np.float64)
    if values.ndim != 2 or values.size == 0:
        raise GeometryError(f"an image of shape {values.shape} is not a grey image", expected="(height, width)")
    if not np.isfinite(values).all():
        raise GeometryError("the image holds values that are not finite")
    low, high = values.min(), values.max()
    values = (values - low) / (high - low) if high > low else np.zeros_like(values)
    if grid is not None:
        rows, columns = _averaging(values.shape[0], grid), _averaging(values.shape[1], grid)
        values = rows @ values @ columns.T
    weights = np.where(values > support, values, 0.0)
    total = weights.sum()
    return weights / total if total > 0 else weights


@lru_cache(maxsize=64)
def _averaging(size: int, cells: int) -> np.ndarray:
    """(cells, size) matrix whose rows average ``size / cells`` neighbouring pixels, fractional ones by their share."""
    edges = np.linspace(0.0, size, cells + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0.0, None) * (cells / size)


def cost_scale(reference: np.ndarray, target: np.ndarray, percent: float = QUANTILE) -> float:
    """Percentile of the squared distances between two supports, exact, from how many pairs of cells are how far apart.

    Parameters
    ----------
    reference, target : ndarray, (h, w)
        Supports: cells that are true (or positive).
    percent : float
        Percentile, with linear interpolation as in :func:`numpy.percentile`.

    Returns
    -------
    float
        1.0 when a support is empty or the percentile is 0 (all pairs on one cell), where the scale is arbitrary.
    """
    return float(_scales(np.asarray(reference) > 0, np.asarray(target) > 0, percent))


def _scales(reference: np.ndarray, target: np.ndarray, percent: float = QUANTILE) -> np.ndarray:
    """:func:`cost_scale` of every pair of a batch of supports, (..., H, W) -> (...)."""
    height, width = reference.shape[-2:]
    order, values = _displacements(height, width)
    # Pairs of cells |dy| and |dx| apart, by their cosine transform: whole numbers, so that rounding undoes its error.
    kind = np.float32 if height * width < 2**13 else np.float64  # whose error stays far below 1/2
    (rows, back_rows), (columns, back_columns) = _cosines(height, kind), _cosines(width, kind)
    one, two = (rows @ support.astype(kind) @ columns.T for support in (reference, target))
    # cos(p - q) is a product of cosines and one of sines, along either axis.
    spectrum = one * two
    spectrum = spectrum[..., : height + 1, :] + spectrum[..., height + 1 :, :]
    spectrum = spectrum[..., : width + 1] + spectrum[..., width + 1 :]
    pairs = np.rint(back_rows @ spectrum @ back_columns.T)
    counts = np.cumsum(pairs.reshape(*pairs.shape[:-2], -1)[..., order], -1, dtype=np.float64)
    scales = np.ones(counts.shape[:-1])
    for index in np.ndindex(scales.shape):
        total = int(counts[index][-1])
        position = percent / 100.0 * (total - 1)
        below = math.floor(position)
        if total:
            ranks = (below, min(below + 1, total - 1))
            low, high = values[np.searchsorted(counts[index], ranks, side="right")]
            scales[index] = low + (high - low) * (position - below)
    return np.where(scales > 0, scales, 1.0)


@lru_cache(maxsize=16)
def _displacements(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Order of the (dy, dx) shifts by distance, and their squared lengths in that order."""
    squared = (np.arange(height, dtype=float)[:, None] ** 2 + np.arange(width, dtype=float)[None] ** 2).ravel()
    order = np.argsort(squared, kind="stable")
    return order, squared[order]


@lru_cache(maxsize=32)
def _cosines(size: int, kind: type) -> tuple[np.ndarray, np.ndarray]:
    """Waves of 0 ... ``size`` half periods, cosines then sines, (2 size + 2, size), and the way back, (size, size + 1).

    Back from the sums over all pairs of the cosines of their differences to the number of pairs with each difference.
    """
    angle = np.pi / size * np.outer(np.arange(size + 1), np.arange(size))
    waves = np.concatenate([np.cos(angle), np.sin(angle)])
    ends, nothing = np.arange(size + 1) % size == 0, np.arange(size) == 0
    back = np.cos(angle).T * np.where(ends, 1, 2) * np.where(nothing, 1, 2)[:, None] / (2 * size)
    return waves.astype(kind), back.astype(kind)


@dataclass(frozen=True)
class GridPlan:
    """A transport plan between two grids, kept as two potentials and never formed.

    The plan is ``T[i, j] = exp(log_u[i] + log_v[j] - C[i, j] / epsilon)`` on the supports, 0 elsewhere.

    Attributes
    ----------
    log_u, log_v : ndarray, (..., H, W)
        Log scalings of the reference and target cells, ``-inf`` off the support.
    scale : float or (...) ndarray
        The cost's 90th percentile, in squared cells.
    epsilon, marginal : float
        The two regularisations.
    iterations : int or (...) ndarray of int
        Sweeps until the potentials stood still.
    converged : bool or (...) ndarray of bool
        Whether they did within the allowed sweeps.
    solver : str
        ``"kernel"`` or ``"log"``.
    """

    log_u: np.ndarray
    log_v: np.ndarray
    scale: float | np.ndarray
    epsilon: float
    marginal: float
    iterations: int | np.ndarray
    converged: bool | np.ndarray
    solver: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Batch shape followed by the grid's height and width."""
        return self.log_u.shape

    def push(self, mask: np.ndarray) -> np.ndarray:
        """Mass that the plan carries from each reference mask to every target cell.

        Parameters
        ----------
        mask : ndarray, (..., H, W)
            Boolean or real weights over the reference grid; leading axes broadcast against the batch, so that one
            plan takes a stack of masks, and a batch of B plans takes (B, H, W) or (C, 1, H, W).

        Returns
        -------
        ndarray, (..., H, W)
            Transported mass over the target grid.

        Raises
        ------
        GeometryError
            If the mask is on another grid.
        """
        return self._carry(mask, self.log_u, self.log_v)

    def pull(self, mask: np.ndarray) -> np.ndarray:
        """As :meth:`push`, from target masks back to the reference grid."""
        return self._carry(mask, self.log_v, self.log_u)

    def _carry(self, mask: np.ndarray, source: np.ndarray, sink: np.ndarray) -> np.ndarray:
        weights = np.asarray(mask, float)
        if weights.shape[-2:] != self.shape[-2:]:
            raise GeometryError(f"a mask of {weights.shape[-2:]} is not on the plan's grid {self.shape[-2:]}")
        log_ky, log_kx = _log_axis_kernels(self.shape[-2:], self.scale, self.epsilon)
        if self.solver == "kernel":
            carried: np.ndarray = np.exp(sink) * (np.exp(log_ky) @ (np.exp(source) * weights) @ np.exp(log_kx))
            return carried
        with np.errstate(divide="ignore"):  # log 0 off the mask
            out = np.exp(sink + _log_kernel(np.log(np.maximum(weights, 0.0)) + source, log_ky, log_kx))
            if (weights < 0).any():
                out -= np.exp(sink + _log_kernel(np.log(np.maximum(-weights, 0.0)) + source, log_ky, log_kx))
        return out

    @property
    def row(self) -> np.ndarray:
        """Mass leaving every reference cell, (..., H, W)."""
        return self.pull(np.ones(self.shape))

    @property
    def column(self) -> np.ndarray:
        """Mass arriving at every target cell, (..., H, W)."""
        return self.push(np.ones(self.shape))

    @property
    def mass(self) -> float | np.ndarray:
        """Total transported mass, a float or one per batch item."""
        return _unbatch(self.column.sum((-2, -1)))

    @property
    def cost(self) -> float | np.ndarray:
        """Transport cost ``sum T C`` with C in units of its percentile; times ``scale`` it is in squared cells."""
        # <C, T> from the row-wise second moments: |y-y'|^2 + |x-x'|^2 of the mass that leaves and where it goes.
        leaving, arriving = self.row, self.column
        total = np.zeros(self.shape[:-2])
        for axis in np.mgrid[: self.shape[-2], : self.shape[-1]].astype(float):
            total += ((leaving + arriving) * axis * axis - 2.0 * self.push(axis) * axis).sum((-2, -1))
        return _unbatch(np.maximum(total, 0.0) / self.scale)


def _unbatch(value: np.ndarray) -> float | np.ndarray:
    return value.item() if value.ndim == 0 else value


def _log_axis_kernels(
    grid: tuple[int, ...], scale: float | np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """(..., H, H) and (..., W, W): -d^2 / (scale * eps) along each axis."""
    step = np.asarray(scale, float)[..., None, None] * -epsilon
    rows, columns = (_squared_distances(size) / step for size in grid)
    return rows, columns


@lru_cache(maxsize=16)
def _squared_distances(size: int) -> np.ndarray:
    return np.subtract.outer(np.arange(size), np.arange(size)) ** 2.0


def _log_kernel(values: np.ndarray, log_ky: np.ndarray, log_kx: np.ndarray) -> np.ndarray:
    """log(K exp(values)) for the separable kernel, one axis after the other."""
    inner = _logsumexp(values[..., :, None, :] + log_kx[..., None, :, :], -1)  # (..., H, W)
    return _logsumexp(log_ky[..., :, :, None] + inner[..., None, :, :], -2)


def _logsumexp(values: np.ndarray, axis: int) -> np.ndarray:
    top = values.max(axis, keepdims=True)
    top[np.isneginf(top)] = 0.0  # an empty sum is log 0, not NaN
    values -= top
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(values, out=values).sum(axis)) + top.squeeze(axis))


def solve_grid_uot(
    reference: np.ndarray,
    target: np.ndarray,
    epsilon: float = 0.05,
    marginal: float = 0.1,
    *,
    tolerance: float = 1e-7,
    max_iterations: int = 10_000,
    solver: str = "auto",
) -> GridPlan:
    """Entropic unbalanced transport between weight maps of one grid.

    Parameters
    ----------
    reference, target : ndarray, (..., H, W)
        Non-negative weights, used as they are (:func:`image_weights` normalises); cells of weight 0 are off the
        support. Leading axes are a batch and broadcast: 16 references against one target are solved together.
    epsilon : float
        Entropic regularisation, in units of the scaled cost.
    marginal : float
        Weight of both marginal penalties (lambda).
    tolerance : float
        Largest error left in a log scaling, estimated from the last change and the rate of convergence.
    max_iterations : int
        Sweeps after which the plan is returned with ``converged`` false.
    solver : {"auto", "kernel", "log"}
        ``"auto"`` takes the kernel where it cannot underflow and logarithms elsewhere.

    Returns
    -------
    GridPlan
        With a blank reference or target the optimal plan is zero: ``mass`` 0, ``converged``, no sweeps.

    Raises
    ------
    GeometryError
        If the weights are not two maps of one grid, or hold negative or non-finite values, or a setting is not
        positive.
    """
    if solver not in ("auto", "kernel", "log"):
        raise GeometryError(f"unknown solver {solver!r}", expected="auto, kernel or log")
    a, b = _checked(reference, target, epsilon, marginal)
    scale = _scales(a > 0, b > 0)
    a, b = np.broadcast_arrays(a, b)
    exponent = max(a.shape[-2] - 1, a.shape[-1] - 1, 1) ** 2 * 2.0 / (float(np.min(scale)) * epsilon)
    if solver == "auto":
        solver = "kernel" if exponent < _SAFE_EXPONENT else "log"
    kind = "log" if solver == "log" else "double" if exponent > _SAFE_EXPONENT_SINGLE else "single"
    log_u, log_v, sweeps, settled = _sweep(a, b, scale, epsilon, marginal, tolerance, max_iterations, kind)
    if sweeps.ndim:
        return GridPlan(log_u, log_v, scale, epsilon, marginal, sweeps, settled, solver)
    return GridPlan(log_u, log_v, float(scale), epsilon, marginal, int(sweeps), bool(settled), solver)


def _checked(reference: np.ndarray, target: np.ndarray, epsilon: float, marginal: float) -> list[np.ndarray]:
    """Weights of two maps of one grid, float64."""
    if not (epsilon > 0 and marginal > 0 and math.isfinite(epsilon) and math.isfinite(marginal)):
        raise GeometryError(f"epsilon={epsilon} and marginal={marginal} must be positive numbers")
    a, b = np.asarray(reference, float), np.asarray(target, float)
    if a.ndim < 2 or b.ndim < 2 or a.shape[-2:] != b.shape[-2:] or 0 in a.shape[-2:]:
        raise GeometryError(
            f"weights of shapes {a.shape} and {b.shape} are not on one grid",
            expected="two arrays (..., H, W) with the same H and W",
        )
    for name, weights in (("reference", a), ("target", b)):
        if not np.isfinite(weights).all() or (weights < 0).any():
            raise GeometryError(f"the {name} weights hold negative or non-finite values")
    return [a, b]


def _sweep(
    a: np.ndarray,
    b: np.ndarray,
    scale: np.ndarray,
    epsilon: float,
    marginal: float,
    tolerance: float,
    max_iterations: int,
    kind: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Over-relaxed Sinkhorn sweeps; returns log u, log v, sweeps and converged.

    ``kind`` is "log"; or "double", on the kernel; or "single", the same in single precision as far as that can see.
    """
    damping = marginal / (marginal + epsilon)
    rate = 2.0 / (1.0 + math.sqrt(1.0 - damping**2)) - 1.0  # omega - 1 in the end
    left = rate / (1.0 - rate)  # what a linearly converging error still is, in units of the last change
    relaxation = _relaxations(damping**2)
    log_ky, log_kx = _log_axis_kernels(a.shape[-2:], scale, epsilon)
    ky, kx = np.exp(log_ky), np.exp(log_kx)
    alive = np.asarray((a > 0).any((-2, -1)) & (b > 0).any((-2, -1)))
    if not alive.all():  # pairs with nothing to transport go along as uniform ones
        a, b = np.where(alive[..., None, None], a, 1.0), np.where(alive[..., None, None], b, 1.0)
    on_a, on_b = (a > 0).astype(float), (b > 0).astype(float)

    def step(current: np.ndarray, goal: np.ndarray, sink: np.ndarray, other: np.ndarray, source: np.ndarray) -> Any:
        """Move one side's potential, in place, and say by how much a plain half-step would have."""
        if kind == "log":
            move = _log_kernel(np.where(source > 0, other, -math.inf), log_ky, log_kx)
        else:
            scaling = np.exp(other)
            scaling *= source
            move = ky @ scaling @ kx
            np.log(move, out=move)
        move *= -damping
        move += goal
        move -= current
        move *= sink
        current += move
        excess, cut = next(relaxation)
        current += np.minimum(excess * move, cut)
        return move

    with np.errstate(divide="ignore"):  # log 0 off the support
        # Off the support the potentials are 0 until the end: an infinity would not survive the relaxation.
        goal_a, goal_b = (damping * np.where(w > 0, np.log(w), 0.0) for w in (a, b))
    log_u: np.ndarray = np.zeros(a.shape)
    log_v: np.ndarray = np.zeros(a.shape)
    exact: Any = (ky, kx, on_a, on_b, goal_a, goal_b)
    if kind == "single":
        ky, kx, on_a, on_b, goal_a, goal_b = (x.astype(np.float32) for x in exact)
        log_u, log_v = np.zeros(a.shape, np.float32), np.zeros(a.shape, np.float32)
    settled, sweeps = ~alive, np.where(alive, max_iterations, 0)
    for sweep in range(1, max_iterations + 1):
        if settled.all():
            break
        step(log_u, goal_a, on_a, log_v, on_b)
        change = np.abs(step(log_v, goal_b, on_b, log_u, on_a)).max((-2, -1))
        if kind == "single":
            if sweep == _SINGLE_SWEEPS or (change * left < _SINGLE_ERROR).all():
                kind, (ky, kx, on_a, on_b, goal_a, goal_b) = "double", exact
                log_u, log_v = log_u.astype(float), log_v.astype(float)
            continue
        still = (change * left < tolerance) & ~settled
        sweeps = np.where(still, sweep, sweeps)
        settled = settled | still
        if sweep % _TRANSLATE_EVERY == 0:
            left_over = [
                (w * np.exp(-epsilon / marginal * potential)).sum((-2, -1), keepdims=True)
                for w, potential in ((a, log_u), (b, log_v))
            ]
            shift = marginal / (2 * epsilon) * np.log(left_over[0] / left_over[1])
            log_u += on_a * shift
            log_v -= on_b * shift
    alive = alive[..., None, None]
    log_u, log_v = (np.where(alive & (w > 0), p, -math.inf) for w, p in ((a, log_u), (b, log_v)))
    return log_u, log_v, sweeps, settled


@dataclass(frozen=True)
class PotPlan:
    """A plan between two grids as POT gives it: formed.

    Attributes
    ----------
    plan : ndarray, (n, m)
        Between the cells of the two supports, row-major.
    reference, target : ndarray of bool, (H, W)
        The supports.
    scale : float
        The cost's 90th percentile, in squared cells.
    cost : float
        ``sum T C`` with C in units of its percentile.
    converged : bool
        Whether POT met its own criterion.
    """

    plan: np.ndarray
    reference: np.ndarray
    target: np.ndarray
    scale: float
    cost: float
    converged: bool

    def push(self, mask: np.ndarray) -> np.ndarray:
        """As :meth:`GridPlan.push`."""
        weights = np.asarray(mask, float)
        carried = np.zeros(weights.shape)
        carried[..., self.target] = weights[..., self.reference] @ self.plan
        return carried

    @property
    def mass(self) -> float:
        """Total transported mass."""
        return float(self.plan.sum())


def solve_grid_uot_by_pot(
    reference: np.ndarray, target: np.ndarray, epsilon: float = 0.05, marginal: float = 0.1
) -> PotPlan:
    """The problem of :func:`solve_grid_uot` for one pair, as a dense one, by POT: a cross-check, some 200 times slower.

    Raises
    ------
    GeometryError
        As :func:`solve_grid_uot` and :func:`solve_uot_by_pot`.
    MissingDependencyError
        If POT is not installed.
    """
    a, b = _checked(reference, target, epsilon, marginal)
    on_a, on_b = a > 0, b > 0
    if not (on_a.any() and on_b.any()):
        return PotPlan(np.zeros((on_a.sum(), on_b.sum())), on_a, on_b, 1.0, 0.0, True)
    squared = ((np.argwhere(on_a)[:, None] - np.argwhere(on_b)) ** 2.0).sum(-1)
    scale = float(np.percentile(squared, QUANTILE)) or 1.0
    plan, converged = solve_uot_by_pot(squared / scale, a[on_a], b[on_b], epsilon, marginal)
    return PotPlan(plan, on_a, on_b, scale, float((plan * squared).sum()) / scale, converged)


def solve_uot_by_pot(
    cost: np.ndarray,
    reference_weights: np.ndarray,
    target_weights: np.ndarray,
    epsilon: float = 0.05,
    marginal: float = 0.1,
) -> tuple[np.ndarray, bool]:
    """The same problem for any cost matrix, between supports that need be no grid, by POT.

    POT 0.9's stabilised solver stops short of the solution, so the plain one runs; it works on the kernel itself.

    Parameters
    ----------
    cost : ndarray, (n, m)
        Used as it is.
    reference_weights, target_weights : ndarray, (n,) and (m,)
        Positive weights.

    Returns
    -------
    plan : ndarray, (n, m)
    converged : bool
        Whether POT met its criterion (relative change of a scaling below 1e-10) within 100,000 iterations.

    Raises
    ------
    GeometryError
        If the kernel ``exp(-cost / epsilon)`` underflows so far that POT gives no finite plan.
    MissingDependencyError
        If POT is not installed.
    """
    try:
        from ot.unbalanced import sinkhorn_unbalanced
    except ImportError as error:
        raise MissingDependencyError(
            "solver 'pot' needs POT", remedy='pip install "medground-bench[medfocus]"'
        ) from error
    with warnings.catch_warnings():
        # POT announces that reg_type="entropy" ignores the product reference measure, which is what is wanted, and
        # warns of what is returned or raised here.
        warnings.simplefilter("ignore")
        plan, log = sinkhorn_unbalanced(
            np.asarray(reference_weights, float),
            np.asarray(target_weights, float),
            np.asarray(cost, float),
            epsilon,
            marginal,
            method="sinkhorn",
            reg_type="entropy",
            numItermax=100_000,
            stopThr=1e-10,
            log=True,
        )
    if not np.isfinite(plan).all() or not plan.any():
        raise GeometryError(
            f"POT finds no finite plan with epsilon={epsilon}: the kernel exp(-cost / epsilon) underflows",
            remedy="take the grid solver, which then works on logarithms, or a larger epsilon",
        )
    return plan, bool(log["err"][-1] < 1e-10)


def _relaxations(theta: float) -> Iterator[tuple[float, float]]:
    """omega - 1 of every half-step (Chebyshev's sequence) and :func:`_safe_overshoot` of it."""
    omega, factor = 1.0, theta / 2
    while True:
        yield omega - 1.0, _safe_overshoot(omega - 1.0)
        omega, factor = 1.0 / (1.0 - factor * omega), theta / 4


@lru_cache(maxsize=256)
def _safe_overshoot(excess: float) -> float:
    """How far above its maximiser an over-relaxed log scaling may land.

    From ``-s`` below the maximiser the step lands at ``d = excess * s`` above it. The largest ``d`` at which the loss
    ``exp(d) - 1 - d`` is not above ``exp(-s) - 1 + s``, by bisection.
    """
    if excess <= 0:
        return 0.0
    low, high = 0.0, 64.0
    for _ in range(60):
        middle = (low + high) / 2
        away = middle / excess
        safe = math.expm1(middle) - middle <= math.expm1(-away) + away
        low, high = (middle, high) if safe else (low, middle)
    return low
