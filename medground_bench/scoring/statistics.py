"""Uncertainty: the clustered percentile bootstrap and the paired comparison of methods with Holm's correction.

Records of one patient are not independent (the same image is asked about under several attributes and by several
LVLMs), so patients are resampled, not records (Field and Welsh 2007). A resample is a vector of how often each
cluster was drawn; every statistic here is a ratio of sums over records, so that all resamples of all statistics are
one matrix product of those counts with the sums per cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from medground_bench.core.errors import ScoringError

__all__ = ["Comparison", "Interval", "bootstrap_ratios", "bootstrap_sums", "cluster_codes", "compare_methods", "holm"]

RESAMPLES = 10_000
CONFIDENCE = 0.95

_DRAWS_AT_ONCE = 1 << 20


class Interval(NamedTuple):
    """A value with its percentile interval; ``low`` and ``high`` are NaN where there is nothing to resample."""

    value: float
    low: float
    high: float


def cluster_codes(clusters: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, int]:
    """Cluster of every record as an integer from 0, in order of appearance, and how many there are."""
    seen: dict[Any, int] = {}
    values = clusters.tolist() if isinstance(clusters, np.ndarray) else clusters
    codes = np.fromiter((seen.setdefault(c, len(seen)) for c in values), np.int64, len(values))
    return codes, len(seen)


def bootstrap_sums(sums: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Sums over resampled clusters.

    Parameters
    ----------
    sums : ndarray, shape (clusters, k)
        Sums per cluster of ``k`` quantities.
    resamples : int
        Number of resamples, each of as many clusters as there are.
    seed : int
        The same seed draws the same clusters, so that statistics of one call, or of two, are paired.

    Returns
    -------
    ndarray, shape (resamples, k), float64
    """
    sums = np.ascontiguousarray(sums, np.float64)
    out = np.empty((resamples, sums.shape[1]))
    done = 0
    for counts in _draws(len(sums), resamples, np.random.default_rng(seed)):
        np.matmul(counts, sums, out=out[done : done + len(counts)])
        done += len(counts)
    return out


def _draws(clusters: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each cluster is drawn, (b, clusters) at a time: multinomial, through uniform draws."""
    step = max(1, _DRAWS_AT_ONCE // max(clusters, 1))
    for lo in range(0, resamples, step):
        size = min(step, resamples - lo)
        drawn = rng.integers(0, clusters, (size, clusters), dtype=np.uint32).astype(np.int64)
        drawn += np.arange(0, size * clusters, clusters)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * clusters)
        yield counts.reshape(size, clusters).astype(np.float64)


def bootstrap_ratios(
    numerators: np.ndarray,
    denominators: np.ndarray,
    clusters: Sequence[Any] | np.ndarray,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Interval]:
    """Ratios of sums over records with percentile intervals; a mean is the ratio whose denominator is 1.

    Parameters
    ----------
    numerators, denominators : ndarray, shape (n, k)
        Per record; a record that does not belong to a statistic has 0 in both.
    clusters : sequence of length n
        What is resampled: the patient, else the image.

    Returns
    -------
    list of Interval
        ``k`` ratios. The value is NaN where the denominator sums to 0.

    Raises
    ------
    ScoringError
        If the shapes differ or a number is not finite.
    """
    numerators, denominators = _matrix(numerators), _matrix(denominators)
    codes, count = cluster_codes(clusters)
    if not numerators.shape == denominators.shape or len(codes) != len(numerators):
        raise ScoringError(
            f"numerators {numerators.shape}, denominators {denominators.shape} and {len(codes)} clusters differ"
        )
    k = numerators.shape[1]
    both = np.concatenate([numerators, denominators], axis=1)
    unique, place = _unique_columns(both)
    sums = cluster_sums(unique, codes, count)
    total = sums.sum(axis=0)[place]
    values = _ratio(total[:k], total[k:])
    if count < 2:
        return [Interval(float(v), float("nan"), float("nan")) for v in values]
    drawn = bootstrap_sums(sums, resamples=resamples, seed=seed)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    out = []
    for j in range(k):
        low, high = percentiles(_ratio(drawn[:, place[j]], drawn[:, place[k + j]]), tails)
        out.append(Interval(float(values[j]), low, high))
    return out


def cluster_sums(columns: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    """Sums per cluster, (count, k), of columns (n, k)."""
    out = np.empty((count, columns.shape[1]))
    for j in range(columns.shape[1]):
        out[:, j] = np.bincount(codes, columns[:, j], minlength=count)
    return out


def percentiles(values: np.ndarray, tails: tuple[float, float]) -> tuple[float, float]:
    """The tails of a resampled statistic; resamples in which it does not exist are left out."""
    values = values[~np.isnan(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, tails)
    return float(low), float(high)


def _matrix(values: np.ndarray) -> np.ndarray:
    array = np.asarray(values, np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ScoringError("scores to resample must be finite numbers, one row per record")
    return array


def _unique_columns(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct columns, and for every column where it is: most ratios share their denominator."""
    seen: dict[bytes, int] = {}
    place = np.array([seen.setdefault(np.ascontiguousarray(c).tobytes(), len(seen)) for c in columns.T], np.int64)
    first = [int(np.flatnonzero(place == j)[0]) for j in range(len(seen))]
    return columns[:, first], place


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


@dataclass(frozen=True)
class Comparison:
    """Two methods on the same records.

    Attributes
    ----------
    first, second : str
        The methods.
    difference : Interval
        Mean score of ``first`` minus that of ``second``.
    p_value : float
        Two-sided bootstrap p-value of no difference.
    p_holm : float
        The same, corrected for the number of pairs compared (Holm 1979).
    """

    first: str
    second: str
    difference: Interval
    p_value: float
    p_holm: float


def compare_methods(
    scores: Mapping[str, Sequence[float] | np.ndarray],
    clusters: Sequence[Any] | np.ndarray,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Comparison]:
    """All pairs of methods by the paired clustered bootstrap, Holm-corrected over the pairs.

    Every method is resampled with the same draws of patients, so that the difference is taken within a resample.
    The p-value is twice the smaller share of resampled differences on either side of 0 (each with one added, so
    that it is never 0), at most 1: the level at which the percentile interval would just reach 0.

    Parameters
    ----------
    scores : mapping of str to sequence of length n
        Method -> one score per record, all over the same records in the same order.
    clusters : sequence of length n
        The patient (else image) of every record.

    Raises
    ------
    ScoringError
        If the scores are not over the same records, or there are fewer than two clusters.
    """
    names = list(scores)
    codes, count = cluster_codes(clusters)
    for name in names:
        if len(scores[name]) != len(codes):
            raise ScoringError(
                f"method {name!r} has {len(scores[name])} scores for {len(codes)} records",
                remedy="compare methods on the records they share",
            )
    if len(names) < 2:
        return []
    if count < 2:
        raise ScoringError("a comparison needs records of at least two patients or images")
    table = _matrix(np.stack([np.asarray(scores[name], np.float64) for name in names], axis=1))
    sums = cluster_sums(np.concatenate([table, np.ones((len(codes), 1))], axis=1), codes, count)
    drawn = bootstrap_sums(sums, resamples=resamples, seed=seed)
    means = drawn[:, :-1] / drawn[:, -1:]
    centre = table.mean(axis=0)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    pairs = list(combinations(range(len(names)), 2))
    intervals, p_values = [], []
    for a, b in pairs:
        # Identical scores must differ by exactly 0, whatever the rounding of a matrix product.
        same = np.array_equal(table[:, a], table[:, b])
        differences = np.zeros(resamples) if same else means[:, a] - means[:, b]
        low, high = percentiles(differences, tails)
        intervals.append(Interval(0.0 if same else float(centre[a] - centre[b]), low, high))
        side = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
        p_values.append(min(1.0, 2 * (side + 1) / (resamples + 1)))
    corrected = holm(p_values)
    return [
        Comparison(names[a], names[b], interval, p, q)
        for (a, b), interval, p, q in zip(pairs, intervals, p_values, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m times (m - k + 1), made monotone, at most 1."""
    order = np.argsort(p_values, kind="stable")
    m = len(p_values)
    out = [0.0] * m
    running = 0.0
    for rank, i in enumerate(order.tolist()):
        running = max(running, min(1.0, (m - rank) * float(p_values[i])))
        out[i] = running
    return out
