"""The path integral of integrated gradients: Gauss-Legendre nodes, refined where completeness fails.

The integral over a piece [a, b] of the path is known exactly, s(b) - s(a), so the error of every piece can be
seen, and the worst piece is cut in two until the error of the whole is small enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["PathIntegral", "integrate_path"]

Evaluate = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(places on the path (k,), weights (k,)) -> sum of weight times gradient at the places, float64."""


@dataclass(frozen=True)
class PathIntegral:
    """What :func:`integrate_path` found.

    Attributes
    ----------
    gradient : ndarray
        Mean gradient along the path, in the shape of the input.
    error : float
        Completeness error: ``|sum of attributions - (s(1) - s(0))| / |s(1) - s(0)|``.
    evaluations : int
        Places where the gradient was taken.
    pieces : int
        Pieces into which the path was cut.
    start : float
        The score at the baseline.
    """

    gradient: np.ndarray
    error: float
    evaluations: int
    pieces: int
    start: float


@dataclass
class _Piece:
    start: float
    stop: float
    gradient: np.ndarray
    error: float


def integrate_path(
    evaluate: Evaluate,
    score: Callable[[float], float],
    difference: np.ndarray,
    *,
    steps: int,
    tolerance: float,
    max_steps: int,
) -> PathIntegral:
    """Mean gradient along the straight path from the baseline (0) to the input (1).

    Parameters
    ----------
    evaluate : callable
        Weighted sum of gradients at places on the path.
    score : callable
        The score at a place on the path.
    difference : ndarray
        Input minus baseline.
    steps : int
        Gauss-Legendre nodes on the whole path. The halves of a piece that is cut get a quarter as many each.
    tolerance : float
        Completeness error, as a fraction of the score's change, from which on the path is refined.
    max_steps : int
        No refinement beyond so many gradients. At least one piece is always computed.
    """
    scores = {0.0: score(0.0), 1.0: score(1.0)}
    change = scores[1.0] - scores[0.0]
    scale = max(abs(change), np.finfo(float).tiny)

    def piece(start: float, stop: float, count: int) -> _Piece:
        nodes, weights = np.polynomial.legendre.leggauss(count)
        width = stop - start
        gradient = evaluate(start + width * (nodes + 1) / 2, width * weights / 2)
        total = float((gradient * difference).sum(dtype=np.float64))
        return _Piece(start, stop, gradient, total - (scores[stop] - scores[start]))

    pieces, evaluations = [piece(0.0, 1.0, steps)], steps
    fewer = max(1, steps // 4)
    while abs(sum(p.error for p in pieces)) / scale > tolerance and evaluations + 2 * fewer <= max_steps:
        worst = max(pieces, key=lambda p: abs(p.error))
        middle = (worst.start + worst.stop) / 2
        scores[middle] = score(middle)
        pieces.remove(worst)
        pieces += [piece(worst.start, middle, fewer), piece(middle, worst.stop, fewer)]
        evaluations += 2 * fewer
    error = abs(sum(p.error for p in pieces)) / scale
    return PathIntegral(np.sum([p.gradient for p in pieces], axis=0), error, evaluations, len(pieces), scores[0.0])
