"""Whether labels can be told from the shapes of maps alone: logistic regression, judged on other patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medground_bench.scoring.statistics import cluster_codes
from medground_bench.scoring.xbench import auroc

__all__ = ["Told", "fit_logistic", "told_apart"]

_FOLDS = 5
_RESAMPLES = 1000


class Told(NamedTuple):
    """Area under the ROC curve of telling labels, with a 95 % interval over patients."""

    auroc: float
    low: float
    high: float


def fit_logistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights, intercept last, that minimise ``sum log(1 + exp(-(2y - 1) (x.w + b))) + |w|^2 / 2``, by Newton's method.

    Parameters
    ----------
    x : ndarray, (n, d)
        Features.
    y : ndarray, (n,) bool
        Labels.
    """
    design = np.column_stack([x, np.ones(len(x))])
    ridge = np.append(np.ones(x.shape[1]), 1e-9)  # the intercept is free
    weights = np.zeros(design.shape[1])

    def loss(w: np.ndarray) -> float:
        return float(np.logaddexp(0, np.where(y, -1, 1) * (design @ w)).sum() + ridge @ w**2 / 2)

    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        gradient = design.T @ (p - y) + ridge * weights
        step = np.linalg.solve((design.T * (p * (1 - p))) @ design + np.diag(ridge), gradient)
        size, before = 1.0, loss(weights)
        while loss(weights - size * step) > before and size > 1e-6:
            size /= 2
        weights = weights - size * step
        if np.abs(gradient).max() < 1e-8:
            break
    return weights


def told_apart(
    x: np.ndarray, y: np.ndarray, patients: Sequence[tuple[str, str]], *, seed: int = 0, resamples: int = _RESAMPLES
) -> Told:
    """How well labels are told by a model that was fitted to the maps of other patients, in five folds.

    Parameters
    ----------
    x : ndarray, (n, d)
        Maps.
    y : ndarray, (n,) bool
        Labels.
    patients : sequence of (dataset, patient)
        Whose maps.
    """
    codes, count = cluster_codes(list(patients))
    rng = np.random.default_rng(seed)
    fold = (rng.permutation(count) % _FOLDS)[codes]
    scores = np.zeros(len(x))
    for k in np.unique(fold):
        weights = fit_logistic(x[fold != k], y[fold != k])
        scores[fold == k] = x[fold == k] @ weights[:-1] + weights[-1]
    members = [np.flatnonzero(codes == c) for c in range(count)]
    drawn = []
    for _ in range(resamples):
        chosen = np.concatenate([members[c] for c in rng.integers(0, count, count)])
        drawn.append(auroc(scores[chosen][y[chosen]], scores[chosen][~y[chosen]]))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Told(auroc(scores[y], scores[~y]), float(low), float(high))
