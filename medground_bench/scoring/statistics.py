"""Uncertainty of ratios of sums whose records come in clusters: intervals, and tests of paired differences.

Records of one patient are not independent (the same image is asked about several attributes and by several LVLMs), so
patients are what is resampled and what is flipped, never records (Field and Welsh 2007).

*Intervals* are bootstrap-t (Efron and Tibshirani 1993, section 12.5; Owen 1988 for how much this gains in small
samples). With the sums per patient ``a_i`` and ``b_i``, the ratio ``r = sum(a) / sum(b)`` has the linearised error
``s^2 = C / (C - 1) * sum((a_i - r b_i)^2) / sum(b)^2``. A resample ``*`` of the ``C`` patients gives
``t* = (r* - r) / s*``, and the interval is ``[r - q_hi s, r - q_lo s]`` with the quantiles of ``t*`` and, for ``s``,
the jackknife's error, which is the larger one in small samples. A resample whose patients are all alike has no error
(``s* = 0``): its ``t*`` is infinite. Where such resamples are so frequent that an end is, and where all patients are at
one of the score's bounds, Wilson's interval (1927) takes the place of that end, with the effective number of patients
``1 / sum(w_i^2)`` (Kish 1965; ``w_i`` a patient's share of the records): between its bounds no score varies more than
one that is always at either. Without bounds such an end stays infinite.

*Tests* are sign-flip permutations by patient (Fisher 1935; Winkler et al. 2014): if two methods are equally good, each
patient's difference is as likely with either sign. All ``2^C`` flips are enumerated up to 14 patients; above, they are
drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from medground_bench.core.errors import ScoringError

__all__ = [
    "MIN_CLUSTERS",
    "Comparison",
    "Interval",
    "bootstrap_ratios",
    "cluster_codes",
    "compare_methods",
    "holm",
    "ratio_intervals",
    "sign_flip_test",
]

RESAMPLES = 10_000
CONFIDENCE = 0.95

MIN_CLUSTERS = 6
"""Below so many patients there is no interval and no p-value: the smallest p that 5 patients allow is 0.0625."""

EXACT_CLUSTERS = 14
"""Up to so many patients all sign flips are enumerated."""

_DRAWS_AT_ONCE = 1 << 20
_RESAMPLES_AT_ONCE = 32
_CLUSTERS_AT_ONCE = 1 << 11
_DRAWS_ENOUGH = 4_000_000
_RESAMPLES_ENOUGH = 1_000
_NONE = float("nan")


class Interval(NamedTuple):
    """A value with its interval.

    ``low`` and ``high`` are NaN where there is no interval (too few patients), and infinite where neither the data nor
    the score's own bounds limit that end.
    """

    value: float
    low: float
    high: float


def cluster_codes(clusters: Sequence[Any] | np.ndarray) -> tuple[np.ndarray, int]:
    """Cluster of every record as an integer from 0, in order of appearance, and how many there are."""
    if isinstance(clusters, np.ndarray) and clusters.dtype.kind in "iu":
        _, first, place = np.unique(clusters, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return rank[place], len(first)
    seen: dict[Any, int] = {}
    values = clusters.tolist() if isinstance(clusters, np.ndarray) else clusters
    codes = np.fromiter((seen.setdefault(c, len(seen)) for c in values), np.int64, len(values))
    return codes, len(seen)


def cluster_sums(columns: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    """Sums per cluster, (count, k), of columns (n, k)."""
    out = np.empty((count, columns.shape[1]))
    for j in range(columns.shape[1]):
        out[:, j] = np.bincount(codes, columns[:, j], minlength=count)
    return out


def ratio_intervals(
    numerators: np.ndarray,
    denominators: np.ndarray,
    bounds: Sequence[tuple[float, float]] | None = None,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Interval]:
    """Ratios of sums over clusters, or means of several such ratios, with bootstrap-t intervals (see the module).

    Parameters
    ----------
    numerators, denominators : ndarray, shape (clusters, parts, k)
        Sums per cluster; a value is the mean over the parts (LVLMs) of the ratios of sums over clusters. Clusters
        without a denominator in any part do not belong to a quantity.
    bounds : sequence of (float, float), optional
        What the ``k`` quantities can be at least and at most; the intervals are cut to it.
    resamples, confidence, seed
        Of the bootstrap; without resamples there are no intervals. From more than 400 clusters fewer resamples are
        drawn (never fewer than 1,000 of those asked for): ``t*`` is all but normal then, and the ends move by less than
        a twentieth of the interval. Quantities over the same clusters are resampled together.

    Returns
    -------
    list of Interval
        ``k`` of them. The value is NaN where a denominator sums to 0; there is no interval from fewer than
        :data:`MIN_CLUSTERS` clusters, and one of no width where all clusters have the same ratio, not at a bound.
    """
    k = numerators.shape[2]
    total = denominators.sum(axis=0)
    ratios = np.divide(numerators.sum(axis=0), total, out=np.full(total.shape, _NONE), where=total != 0)
    values = ratios.mean(axis=0)
    out = [Interval(float(v), _NONE, _NONE) for v in values]
    used = (denominators != 0).any(axis=1)
    together: dict[bytes, list[int]] = {}
    for j in range(k):
        if resamples and np.isfinite(values[j]) and used[:, j].sum() >= MIN_CLUSTERS:
            together.setdefault(used[:, j].tobytes(), []).append(j)
    for members in together.values():
        rows = used[:, members[0]]
        b = _part(denominators, rows, members)
        # Centred sums: a resample's deviation is then a ratio itself, and equal clusters deviate by exactly 0.
        u = ratios[:, members] * b
        np.subtract(_part(numerators, rows, members), u, out=u)
        low, high = _bootstrap_t(u, b, resamples, confidence, seed)
        for place, j in enumerate(members):
            least, most = bounds[j] if bounds is not None else (-math.inf, math.inf)
            ends = [values[j] + low[place], values[j] + high[place]]
            if math.isfinite(most - least):
                share = (b[:, :, place] / total[:, j]).mean(axis=1)
                wilson = _wilson(float(values[j]), least, most, 1 / float((share**2).sum()), confidence)
                at_bound = ends[0] == ends[1] and values[j] in (least, most)
                ends = [w if at_bound or math.isinf(end) else end for end, w in zip(ends, wilson, strict=True)]
            out[j] = Interval(out[j].value, *(float(min(max(end, least), most)) for end in ends))
    return out


def _wilson(value: float, least: float, most: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's interval of the mean of ``n`` values that are at ``least`` or at ``most``."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = (value - least) / (most - least)
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = (most - least) / (1 + z * z / n)
    return least + (middle - half) * scale, least + (middle + half) * scale


def _part(sums: np.ndarray, rows: np.ndarray, columns: list[int]) -> np.ndarray:
    """Some clusters and some quantities of sums (clusters, parts, k); the sums themselves where these are all."""
    if rows.all() and len(columns) == sums.shape[2]:
        return sums
    return sums[rows][:, :, columns]


def _bootstrap_t(
    u: np.ndarray, b: np.ndarray, resamples: int, confidence: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """How far the ends of the intervals lie from the values, (k,) each, of centred sums (clusters, parts, k)."""
    error = _jackknife_error(u, b)
    resamples = min(resamples, max(_RESAMPLES_ENOUGH, _DRAWS_ENOUGH // len(u)))
    draws = [_t_statistics(counts, u, b) for counts in _draws(len(u), resamples, np.random.default_rng(seed))]
    t = np.concatenate(draws)
    tail = (1 - confidence) / 2
    low, high = np.zeros(len(error)), np.zeros(len(error))
    for j in np.flatnonzero(error > 0).tolist():
        drawn = np.sort(t[:, j])
        drawn = drawn[~np.isnan(drawn)]  # a ratio may not exist in some resamples
        if not len(drawn):
            low[j], high[j] = -math.inf, math.inf
            continue
        rank = (len(drawn) + 1) * tail
        lowest = drawn[max(math.floor(rank) - 1, 0)]
        highest = drawn[min(math.ceil(len(drawn) + 1 - rank), len(drawn)) - 1]
        low[j], high[j] = min(-highest * error[j], 0.0), max(-lowest * error[j], 0.0)
    return low, high


def _t_statistics(counts: np.ndarray, u: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``(r* - r) / s*`` of resamples, (resamples, k); infinite where ``s*`` is 0 and ``r*`` is not ``r``."""
    clusters, parts, k = u.shape
    shape = (len(counts), parts, k)
    pairs = list(product(range(parts), repeat=2))
    total, moved = np.zeros(shape), np.zeros(shape)
    squares = np.zeros((len(pairs), 3, len(counts), k))
    for lo in range(0, clusters, _CLUSTERS_AT_ONCE):  # small enough for the cache
        part = slice(lo, lo + _CLUSTERS_AT_ONCE)
        drawn, mine, base = counts[:, part].astype(np.float64), u[part], b[part]
        total += (drawn @ base.reshape(len(base), -1)).reshape(shape)
        moved += (drawn @ mine.reshape(len(mine), -1)).reshape(shape)
        for sums, (i, j) in zip(squares, pairs, strict=True):
            sums[0] += drawn @ (mine[:, i] * mine[:, j])
            sums[1] += drawn @ (mine[:, i] * base[:, j])
            sums[2] += drawn @ (base[:, i] * base[:, j])
    with np.errstate(divide="ignore", invalid="ignore"):
        moved /= total
        variance, scale = np.zeros((len(counts), k)), np.zeros((len(counts), k))
        for (uu, ub, bb), (i, j) in zip(squares, pairs, strict=True):
            weight = total[:, i] * total[:, j]
            both = moved[:, i] * moved[:, j] * bb
            variance += (uu - 2 * moved[:, j] * ub + both) / weight
            scale += np.abs(uu / weight) + np.abs(both / weight)
        deviation = moved.mean(axis=1)
        # What is left of a variance of 0 after rounding is no variance.
        variance = np.where(variance > 1e-12 * scale, variance, 0.0) * clusters / (clusters - 1) / parts**2
        t = deviation / np.sqrt(variance)
    return np.where((deviation == 0) & (variance == 0), 0.0, t)


def _jackknife_error(u: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The standard error from leaving out one cluster at a time, (k,); 0 where all clusters have the same ratio."""
    clusters = len(u)
    error = np.zeros(u.shape[2])
    for j in range(len(error)):
        total = b[:, :, j].sum(axis=0)
        without = total - b[:, :, j]
        # A part that only one cluster has stays as it is without it.
        left = np.divide(-u[:, :, j], without, out=np.zeros_like(without), where=np.abs(without) > 1e-12 * total)
        error[j] = np.sqrt((clusters - 1) * left.mean(axis=1).var())
    noise = 1e-12 * np.abs(b).max(axis=(0, 1)) / np.abs(b.sum(axis=(0, 1)))
    return np.where(error > noise, error, 0.0)


def _draws(clusters: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each cluster is drawn, (b, clusters) at a time: multinomial, through uniform draws."""
    step = max(1, _DRAWS_AT_ONCE // max(clusters, 1))
    together = max(step, _RESAMPLES_AT_ONCE)
    for first in range(0, resamples, together):
        counts = np.empty((min(together, resamples - first), clusters), np.uint16)
        for lo in range(0, len(counts), step):
            size = min(step, len(counts) - lo)
            drawn = rng.integers(0, clusters, (size, clusters), dtype=np.uint32).astype(np.int64)
            drawn += np.arange(0, size * clusters, clusters)[:, None]
            # That one of many clusters is drawn 65,536 times is out of the question.
            counts[lo : lo + size] = np.bincount(drawn.ravel(), minlength=size * clusters).reshape(size, clusters)
        yield counts


def bootstrap_ratios(
    numerators: np.ndarray,
    denominators: np.ndarray,
    clusters: Sequence[Any] | np.ndarray,
    *,
    bounds: Sequence[tuple[float, float]] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Interval]:
    """Ratios of sums over records with their intervals; a mean is the ratio whose denominator is 1.

    Parameters
    ----------
    numerators, denominators : ndarray, shape (n, k)
        Per record; a record that does not belong to a statistic has 0 in both.
    clusters : sequence of length n
        What is resampled: the patient, else the image.
    bounds, resamples, confidence, seed
        See :func:`ratio_intervals`.

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
    a, b = (cluster_sums(side, codes, count)[:, None] for side in (numerators, denominators))
    return ratio_intervals(a, b, bounds, resamples=resamples, confidence=confidence, seed=seed)


def _matrix(values: np.ndarray) -> np.ndarray:
    array = np.asarray(values, np.float64)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or not np.isfinite(array).all():
        raise ScoringError("scores to resample must be finite numbers, one row per record")
    return array


def sign_flip_test(differences: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Two-sided p-values of "no difference": how often the sum is as far from 0 when clusters change their sign.

    Parameters
    ----------
    differences : ndarray, shape (clusters, k)
        Sum of the paired differences of every cluster, for ``k`` pairs.
    resamples : int
        Flips that are drawn where there are more than :data:`EXACT_CLUSTERS` clusters; the observed one is counted
        with them (Phipson and Smyth 2010).
    seed : int
        Of these draws.

    Returns
    -------
    ndarray, shape (k,)
        At least ``2 / 2^clusters``; NaN from fewer than :data:`MIN_CLUSTERS` clusters.
    """
    differences = np.asarray(differences, np.float64)
    clusters, k = differences.shape
    if clusters < MIN_CLUSTERS:
        return np.full(k, _NONE)
    # Sums of the same terms in another order differ in their last digits.
    total = differences.sum(axis=0)
    observed = np.abs(total) - 1e-9 * np.abs(differences).sum(axis=0)
    if clusters <= EXACT_CLUSTERS:
        # Half of the flips: the other half are their mirror images, which are as far from 0.
        bits = np.arange(1 << (clusters - 1))[:, None] >> np.arange(clusters) & 1
        return np.asarray((np.abs((1.0 - 2.0 * bits) @ differences) >= observed).mean(axis=0))
    rng = np.random.default_rng(seed)
    step = max(1, _DRAWS_AT_ONCE // clusters)
    reached = np.zeros(k)
    for lo in range(0, resamples, step):
        size = min(step, resamples - lo)
        flips = np.unpackbits(rng.integers(0, 256, (size, -(-clusters // 8)), dtype=np.uint8), axis=1, count=clusters)
        sums = total - 2.0 * (flips.astype(np.float64) @ differences)
        reached += (np.abs(sums) >= observed).sum(axis=0)
    return np.maximum((reached + 1) / (resamples + 1), 2.0 ** (1 - clusters))


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
        Two-sided sign-flip p-value of no difference; NaN with too few patients.
    p_holm : float
        The same, corrected for the number of pairs compared (Holm 1979).
    clusters : int
        Patients.
    """

    first: str
    second: str
    difference: Interval
    p_value: float
    p_holm: float
    clusters: int


def compare_methods(
    scores: Mapping[str, Sequence[float] | np.ndarray],
    clusters: Sequence[Any] | np.ndarray,
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Comparison]:
    """Pairs of methods by the sign-flip test, Holm-corrected over the pairs, with bootstrap-t intervals.

    Parameters
    ----------
    scores : mapping of str to sequence of length n
        Method -> one score (0 to 1) per record, all over the same records in the same order.
    clusters : sequence of length n
        The patient (else image) of every record.
    pairs : sequence of (str, str), optional
        Which methods to compare; default: all pairs.
    resamples, confidence, seed
        Of the bootstrap and of the drawn flips.

    Raises
    ------
    ScoringError
        If the scores are not over the same records.
    """
    names = list(scores)
    codes, count = cluster_codes(clusters)
    for name in names:
        if len(scores[name]) != len(codes):
            raise ScoringError(
                f"method {name!r} has {len(scores[name])} scores for {len(codes)} records",
                remedy="compare methods on the records they share",
            )
    chosen = list(combinations(names, 2)) if pairs is None else list(pairs)
    if not chosen:
        return []
    columns = {name: np.asarray(scores[name], np.float64) for name in names}
    differences = _matrix(np.stack([columns[a] - columns[b] for a, b in chosen], axis=1))
    sums = cluster_sums(np.concatenate([differences, np.ones((len(codes), 1))], axis=1), codes, count)
    records = np.repeat(sums[:, None, -1:], len(chosen), axis=2)
    intervals = ratio_intervals(
        sums[:, None, :-1],
        records,
        [(-1.0, 1.0)] * len(chosen),
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )
    p_values = sign_flip_test(sums[:, :-1], resamples=resamples, seed=seed).tolist()
    return [
        Comparison(a, b, interval, p, q, count)
        for (a, b), interval, p, q in zip(chosen, intervals, p_values, holm(p_values), strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the k-th smallest of m times (m - k + 1), made monotone, at most 1.

    Pairs without a p-value (NaN) are not counted and stay without one.
    """
    order = [i for i in np.argsort(p_values, kind="stable").tolist() if not math.isnan(p_values[i])]
    out = [_NONE] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * float(p_values[i])))
        out[i] = running
    return out
