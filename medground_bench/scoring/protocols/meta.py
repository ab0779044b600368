"""Evaluating the evaluations: which protocol ranks methods as the causally verified evidence does.

For every LVLM, mode and dataset the methods are ranked by a measure and by the truth; Kendall's tau-b says how far the
two rankings agree, and the mean over LVLMs, modes and datasets is reported, so that a difference between LVLMs is none
between methods. Intervals are percentiles over resampled patients: all means, and so both rankings, are made anew from
the same patients.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.scoring.statistics import MIN_CLUSTERS, Interval

if TYPE_CHECKING:
    from medground_bench.scoring.files import ScoreFile
    from medground_bench.scoring.protocols.result import ProtocolResult

__all__ = ["MIN_METHODS", "Agreement", "kendall_matrix", "rank_agreement"]

MIN_METHODS = 4
"""Fewer methods have no ranking to speak of: of three, one in six agrees by chance."""

Stratum = tuple[str, str, str]
"""Fingerprint of the dataset, LVLM and mode."""


@dataclass(frozen=True)
class Agreement:
    """How far a measure ranks methods as the truth does.

    Attributes
    ----------
    protocol, measure : str
        Whose ranking.
    tau : Interval
        Kendall's tau-b over the methods, controls left out; NaN from fewer than :data:`MIN_METHODS`.
    tau_controls : Interval
        The same with the controls, which every measure should place last.
    methods, strata : int
        Methods (controls left out) that were ranked, at most, and LVLMs x modes x datasets.
    passes, runs : float
        What the protocol costs a record and submission: variants that the LVLM scored or answered, shared ones
        included, and runs of the method.
    """

    protocol: str
    measure: str
    tau: Interval
    tau_controls: Interval
    methods: int
    strata: int
    passes: float
    runs: float


@dataclass(frozen=True)
class _Column:
    """One measure of one submission: sums and counts per patient, oriented so that more is better."""

    sums: Mapping[int, float]
    counts: Mapping[int, int]
    control: bool


Columns = dict[tuple[str, str], dict[Stratum, dict[str, _Column]]]
"""(protocol, measure) -> stratum -> method -> column."""


def rank_agreement(
    results: Sequence[ProtocolResult],
    scores: Sequence[ScoreFile] = (),
    truth: tuple[str, str] = ("scores", "iou"),
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Agreement]:
    """Every measure of every protocol against one truth.

    Parameters
    ----------
    results : sequence of ProtocolResult
        Of any methods, LVLMs and datasets.
    scores : sequence of ScoreFile
        Scores of the same submissions: the measures of the "protocol" ``scores``.
    truth : (protocol, measure)
        What is taken for the truth: the IoU with the verified evidence, or a measure of a protocol, such as
        ``("necessity_edited", "verified")``.
    resamples, seed
        Of the bootstrap over patients.

    Returns
    -------
    list of Agreement
        Best agreement first; the truth itself is left out.

    Raises
    ------
    ScoringError
        If nothing has the truth.
    """
    columns = _columns(results, scores)
    if truth not in columns:
        known = ", ".join(f"{p}.{m}" for p, m in columns)
        raise ScoringError(f"no submission has {'.'.join(truth)}", expected=f"one of {known}")
    cost: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for r in results:
        share = max(len(r.ids), 1)
        spent = (r.count.get("passes", 0) + r.count.get("found", 0)) / share
        cost[r.protocol].append((spent, r.count.get("runs", 0) / share))
    out = []
    for key, by_stratum in columns.items():
        if key == truth:
            continue
        plain, methods, strata = _agreement(by_stratum, columns[truth], False, resamples, seed)
        controls, _, _ = _agreement(by_stratum, columns[truth], True, resamples, seed)
        passes, runs = np.mean(cost.get(key[0], [(0.0, 0.0)]), axis=0).tolist()
        out.append(Agreement(*key, plain, controls, methods, strata, passes, runs))
    return sorted(out, key=lambda a: (math.isnan(a.tau.value), -a.tau.value if not math.isnan(a.tau.value) else 0.0))


def _columns(results: Sequence[ProtocolResult], scores: Sequence[ScoreFile]) -> Columns:
    out: Columns = defaultdict(lambda: defaultdict(dict))
    for r in results:
        for measure in r.measures:
            if measure.better and measure.name in r.values:
                sign = 1 if measure.better == "high" else -1
                column = _column(r.clusters, sign * r.values[measure.name], r.kind == "control")
                out[r.protocol, measure.name][r.dataset, r.lvlm, r.mode][r.method] = column
    for file in scores:
        for one in file.submissions:
            for name in ("iou", "f1", "precision", "recall", "pointing", "energy", "auprc"):
                if name in one.scores and len(one.positions):
                    column = _column(file.table.cluster[one.positions], one.scores[name], one.kind == "control")
                    out["scores", name][file.fingerprint, one.lvlm, one.mode][one.method] = column
    return {key: dict(found) for key, found in out.items()}


def _column(clusters: np.ndarray, values: np.ndarray, control: bool) -> _Column:
    sums: dict[int, float] = defaultdict(float)
    counts: dict[int, int] = defaultdict(int)
    for cluster, value in zip(clusters.tolist(), values.tolist(), strict=True):
        if math.isfinite(value):
            sums[cluster] += value
            counts[cluster] += 1
    return _Column(sums, counts, control)


def _agreement(
    mine: Mapping[Stratum, Mapping[str, _Column]],
    true: Mapping[Stratum, Mapping[str, _Column]],
    controls: bool,
    resamples: int,
    seed: int,
) -> tuple[Interval, int, int]:
    """Mean tau over the strata with its interval, the most methods of a stratum, and the strata."""
    taus, drawn, most = [], [], 0
    rng = np.random.default_rng(seed)
    enough = True
    for stratum in sorted(set(mine) & set(true)):
        names = [n for n in mine[stratum] if n in true[stratum] and (controls or not mine[stratum][n].control)]
        if len(names) < MIN_METHODS:
            continue
        most = max(most, sum(not mine[stratum][n].control for n in names))
        patients = sorted({c for side in (mine, true) for n in names for c in side[stratum][n].counts})
        weights = np.ones((1, len(patients)))
        draws = np.empty((0, len(patients)))
        if len(patients) < MIN_CLUSTERS:
            enough = False
        else:
            draws = rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), resamples).astype(float)
        pair = [
            _means([side[stratum][n] for n in names], patients, np.concatenate([weights, draws]))
            for side in (mine, true)
        ]
        tau = kendall(pair[0], pair[1])
        taus.append(tau[0])
        drawn.append(tau[1:])
    if not taus or all(math.isnan(t) for t in taus):
        return Interval(math.nan, math.nan, math.nan), most, len(taus)
    value = float(np.nanmean(taus))
    if not enough:
        return Interval(value, math.nan, math.nan), most, len(taus)
    stacked = np.stack(drawn)
    there = ~np.isnan(stacked)
    shared = there.sum(axis=0)
    together = np.where(there, stacked, 0).sum(axis=0)[shared > 0] / shared[shared > 0]
    if not len(together):
        return Interval(value, math.nan, math.nan), most, len(taus)
    low, high = np.quantile(together, [0.025, 0.975])
    return Interval(value, float(low), float(high)), most, len(taus)


def _means(columns: Iterable[_Column], patients: Sequence[int], weights: np.ndarray) -> np.ndarray:
    """Means over resampled patients, (resamples, methods)."""
    found = list(columns)
    sums = np.array([[c.sums.get(p, 0.0) for c in found] for p in patients])
    counts = np.array([[float(c.counts.get(p, 0)) for c in found] for p in patients])
    total = weights @ counts
    return np.divide(weights @ sums, total, out=np.full(total.shape, np.nan), where=total > 0)


def kendall(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of the rows of two arrays, (k, n) each; NaN where a row has no order or a value is missing."""
    i, j = np.triu_indices(a.shape[1], 1)

    def signs(values: np.ndarray) -> np.ndarray:
        difference = values[:, i] - values[:, j]
        tiny = 1e-12 * np.maximum(np.abs(values[:, i]), np.abs(values[:, j]))
        return np.where(np.abs(difference) <= tiny, 0.0, np.sign(difference))

    x, y = signs(a), signs(b)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    bad = np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1) | (scale == 0)
    return np.divide((x * y).sum(axis=1), scale, out=np.full(len(a), np.nan), where=~bad)


def kendall_matrix(
    results: Sequence[ProtocolResult],
    scores: Sequence[ScoreFile] = (),
) -> tuple[list[str], np.ndarray]:
    """Rank agreement of the protocols among themselves, by the measure in front of each.

    Returns
    -------
    names : list of str
        ``protocol.measure``.
    tau : ndarray, shape (n, n)
        Mean over LVLMs, modes and datasets, controls left out; NaN where fewer than :data:`MIN_METHODS` are shared.
    """
    columns = _columns(results, scores)
    front = {}
    for r in results:
        named = [m.name for m in r.measures if m.better and (r.protocol, m.name) in columns]
        if named:
            front[r.protocol] = named[0]
    keys = [*front.items(), *([("scores", "iou")] if ("scores", "iou") in columns else [])]
    out = np.full((len(keys), len(keys)), np.nan)
    for i, one in enumerate(keys):
        for j, other in enumerate(keys):
            out[i, j] = _agreement(columns[one], columns[other], False, 0, 0)[0].value
    return [".".join(key) for key in keys], out
