"""Greedy orders of regions, and the values that an order gives them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["Objective", "order_map", "search_regions"]

_FULL, _BEST, _WORST = 5, 10, 8  # the fast search looks at all every 5 steps, else at 10; the other end, at 8

Objective = Callable[[np.ndarray], np.ndarray]
"""(N, n) bool, sets of regions -> (N,) objective, which :func:`search_regions` maximises."""


def search_regions(objective: Objective, count: int, search: str) -> tuple[list[int], list[float]]:
    """Order of all regions, best first, and the objective of each initial part of it."""
    front: list[int] = []
    back: list[int] = []
    scores: list[float] = []
    pending = np.arange(count)
    ranked = pending

    def of(base: list[int], candidates: np.ndarray) -> np.ndarray:
        sets = np.zeros((len(candidates), count), bool)
        sets[:, base] = True
        sets[range(len(candidates)), candidates] = True
        return objective(sets)

    while len(pending):
        full = search != "fast" or len(front) % _FULL == 0
        candidates = pending if full else np.sort(ranked[:_BEST])
        found = of(front, candidates)
        if full:
            ranked = candidates[np.argsort(-found, kind="stable")]
        best = int(candidates[int(np.argmax(found))])
        front.append(best)
        scores.append(float(found.max()))
        pending, ranked = pending[pending != best], ranked[ranked != best]
        if search == "bidirectional" and len(pending) > _WORST:
            last = np.sort(ranked[-_WORST:])
            worst = int(last[int(np.argmin(of(back, last)))])
            back.append(worst)
            pending, ranked = pending[pending != worst], ranked[ranked != worst]
    for region in reversed(back):
        scores.append(float(of(front, np.array([region]))[0]))
        front.append(region)
    return front, scores


def order_map(scores: np.ndarray, base: float, kind: str) -> np.ndarray:
    """Values of the regions in their order, 0 to 1, from the objective after each step; all 0 if it never changes."""
    drops = np.abs(np.diff(scores, prepend=base))
    if not drops.any():
        return np.zeros(len(scores))
    if kind == "rank":
        return 1 - np.arange(len(scores)) / len(scores)
    left = -np.cumsum(drops) + (drops if kind == "shifted" else 0)
    spread = np.ptp(left)
    return (left - left.min()) / spread if spread else np.ones(len(scores))
