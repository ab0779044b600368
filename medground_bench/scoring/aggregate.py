"""From scores per record to the numbers of a table, each with its interval.

Every number is a ratio of two sums over records (a mean is one whose denominator counts), so that one bootstrap of
patients serves all numbers of a group, and the mean over LVLMs too. Everything that shows scores (``score``,
``compare``, the pages, the metric module) has its numbers from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from medground_bench.imaging.areas import RaggedBoxes, record_areas
from medground_bench.imaging.overlap import METRICS, BoxScores, score_areas
from medground_bench.scoring.chance import best_chance
from medground_bench.scoring.concepts import CONCEPT_METRICS
from medground_bench.scoring.heatmaps import HEATMAP_METRICS
from medground_bench.scoring.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    cluster_codes,
    ratio_intervals,
    sign_flip_test,
)
from medground_bench.scoring.table import SIZES, RecordTable
from medground_bench.scoring.tokens import TOKEN_METRICS

__all__ = [
    "LEVELS",
    "Aggregate",
    "Quotient",
    "aggregate",
    "aggregate_bounds",
    "aggregate_chance",
    "record_scores",
    "score_quotients",
]

LEVELS = ("all", "macro", "lvlm", "dataset", "dataset_macro", "size", "attribute")
"""Groupings: all records pooled; mean over LVLMs; by LVLM; by dataset pooled and as mean over LVLMs; by
evidence-size tertile; by attribute."""

_SHARE = (0.0, 1.0)
_POSITIVE = (0.0, math.inf)


class Quotient(NamedTuple):
    """A number as a ratio of sums: numerator and denominator per record, each of shape (n,), and what it can be."""

    numerator: np.ndarray
    denominator: np.ndarray
    bounds: tuple[float, float] = _SHARE


@dataclass(frozen=True)
class Aggregate:
    """The numbers of one group of records.

    Attributes
    ----------
    level : str
        One of :data:`LEVELS`.
    group : str
        Which group of the level (the dataset's key, ...); empty for ``all`` and ``macro``.
    records, clusters : int
        How many records and patients it has.
    values : dict of str to Interval
        Metric -> value with its 95 % interval.
    best_chance : str
        The chance row with the greatest mean IoU over the group; empty for the rows of chance themselves.
    p_chance : float
        Two-sided sign-flip p-value of "its mean IoU is that of the best chance row"; NaN with too few patients.
    """

    level: str
    group: str
    records: int
    clusters: int
    values: dict[str, Interval]
    best_chance: str = ""
    p_chance: float = float("nan")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a number that does not exist, and an end that the data do not bound, are null."""
        return {
            "level": self.level,
            "group": self.group,
            "records": self.records,
            "clusters": self.clusters,
            "values": {k: [_plain(x) for x in v] for k, v in self.values.items()},
            "best_chance": self.best_chance,
            "p_chance": _plain(self.p_chance),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Aggregate:
        """The inverse of :meth:`to_json`."""
        return cls(
            data["level"],
            data["group"],
            int(data["records"]),
            int(data["clusters"]),
            {k: _interval(*v) for k, v in data["values"].items()},
            str(data["best_chance"]),
            _number(data["p_chance"]),
        )


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: float | None, otherwise: float = math.nan) -> float:
    return otherwise if value is None else float(value)


def _interval(value: float | None, low: float | None, high: float | None) -> Interval:
    if low is None and high is None:
        return Interval(_number(value), math.nan, math.nan)
    return Interval(_number(value), _number(low, -math.inf), _number(high, math.inf))


def record_scores(
    predicted: RaggedBoxes, evidence: RaggedBoxes, sizes: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """What boxes say about each record, columns of shape (n,).

    Parameters
    ----------
    predicted, evidence : RaggedBoxes
        Boxes per record, native pixels.
    sizes : ndarray, shape (n, 2), optional
        Widths and heights of the images.

    Returns
    -------
    dict of str to ndarray
        The four scores, ``answered`` (1 where a box was predicted) and, with sizes, ``predicted_fraction`` (predicted
        area over image area).
    """
    areas = record_areas(predicted, evidence)
    out = {**score_areas(areas)._asdict(), "answered": (predicted.counts > 0).astype(np.float64)}
    if sizes is not None:
        out["predicted_fraction"] = areas.prediction / sizes.prod(axis=1)
    return out


def score_quotients(
    scores: Mapping[str, np.ndarray],
    evidence_fraction: np.ndarray | None = None,
    chance: Mapping[str, BoxScores] | None = None,
) -> dict[str, Quotient]:
    """All numbers of a submission.

    The four scores, ``coverage``, ``fallback`` and ``degenerate`` are means over records; ``area_ratio`` is mean
    predicted area over mean evidence area (both as shares of the image) and ``precision_lift`` mean precision over
    mean evidence-area fraction: ratios of means, since the mean of ratios is ruled by the tiniest lesion. Heat-map
    scores are means over the records that have a heat map, those of concepts and tokens over the records of which they
    are known (``concept_known``, ``token_known``: the share of these records). What the scores or the evidence fraction
    do not say is left out. ``skill_{metric}_{chance row}`` is ``(s - chance) / (1 - chance)`` of the means.
    """
    one = np.ones(len(scores["iou"]))
    out = {name: Quotient(scores[name], one) for name in METRICS}
    out["coverage"] = Quotient(scores["answered"], one)
    for name in ("fallback", "degenerate"):
        if name in scores:
            out[name] = Quotient(scores[name], one)
    if evidence_fraction is not None:
        out["area_ratio"] = Quotient(scores["predicted_fraction"], evidence_fraction, _POSITIVE)
        out["precision_lift"] = Quotient(scores["precision"], evidence_fraction, _POSITIVE)
    for name in (*HEATMAP_METRICS, *CONCEPT_METRICS, *TOKEN_METRICS):
        if name in scores and not np.isnan(scores[name]).all():
            there = ~np.isnan(scores[name])
            out[name] = Quotient(np.where(there, scores[name], 0.0), there.astype(np.float64))
    for name, what in (("concept_known", "concept_accuracy"), ("token_known", "token_auroc")):
        if what in out:
            out[name] = Quotient(out[what].denominator, one)
    for row, by_chance in (chance or {}).items():
        for name in ("iou", "f1"):
            expected = getattr(by_chance, name)
            out[f"skill_{name}_{row}"] = Quotient(scores[name] - expected, 1 - expected, (-math.inf, 1.0))
    return out


def aggregate(
    quotients: Mapping[str, Quotient],
    table: RecordTable,
    levels: Sequence[str] = LEVELS,
    *,
    chance: Mapping[str, BoxScores] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Aggregate]:
    """Numbers of every group of the levels, with intervals from resampled patients.

    Parameters
    ----------
    quotients : mapping of str to Quotient
        Metric -> its sums per record of the table.
    table : RecordTable
        What the records are.
    levels : sequence of str
        Any of :data:`LEVELS`. The means over LVLMs exist only where there are several.
    chance : mapping of str to BoxScores, optional
        Scores of the chance rows per record: each group's mean IoU is compared with the best of them.
    resamples, confidence, seed
        Of the bootstrap and of the sign flips; without resamples there are no intervals and no p-values.

    Returns
    -------
    list of Aggregate
        In the order of the levels; groups sorted by name, sizes small to large.
    """
    names = list(quotients)
    rows = list(chance or {})
    out = []
    for level, group, masks in (group for name in LEVELS if name in levels for group in _groups(name, table)):
        members = np.logical_or.reduce(masks)
        codes, count = cluster_codes(table.cluster[members])
        sums = _Sums([(mask, codes[mask[members]]) for mask in masks], count)
        found = ratio_intervals(
            sums([quotient.numerator for quotient in quotients.values()]),
            sums([quotient.denominator for quotient in quotients.values()]),
            [quotients[name].bounds for name in names],
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        )
        best, p = "", math.nan
        if chance:
            # Per cluster, its share of the mean over LVLMs of the mean difference.
            records = np.array([mask.sum() for mask in masks]) * len(masks)
            over = (quotients["iou"].numerator - chance[row].iou for row in rows)
            differences = (sums(over) / records[:, None]).sum(axis=1)
            # All differ from the same method: the best chance row is the one that it exceeds least.
            best = best_chance(dict(zip(rows, (-differences.sum(axis=0)).tolist(), strict=True)))
            if resamples:
                p = float(sign_flip_test(differences[:, [rows.index(best)]], resamples=resamples, seed=seed)[0])
        values = dict(zip(names, found, strict=True))
        out.append(Aggregate(level, group, int(members.sum()), count, values, best, p))
    return out


def aggregate_chance(
    chance: Mapping[str, BoxScores], table: RecordTable, levels: Sequence[str] = LEVELS, **options: Any
) -> dict[str, list[Aggregate]]:
    """The four scores of every chance row, group by group, from the same resamples (see :func:`aggregate`)."""
    one = np.ones(len(table))
    quotients = {f"{row} {name}": Quotient(getattr(s, name), one) for row, s in chance.items() for name in METRICS}
    together = aggregate(quotients, table, levels, **options)
    return {
        row: [replace(a, values={name: a.values[f"{row} {name}"] for name in METRICS}) for a in together]
        for row in chance
    }


def aggregate_bounds(
    bounds: Mapping[str, BoxScores], table: RecordTable, levels: Sequence[str] = LEVELS, **options: Any
) -> dict[str, list[Aggregate]]:
    """As :func:`aggregate_chance`, of ceilings and second annotators: each over the records that have it (not NaN)."""
    out: dict[str, list[Aggregate]] = {}
    parts: dict[bytes, dict[str, BoxScores]] = {}
    for row, scores in bounds.items():
        parts.setdefault((~np.isnan(scores.iou)).tobytes(), {})[row] = scores
    for key, rows in parts.items():
        there = np.frombuffer(key, bool)
        some = {row: BoxScores(*(column[there] for column in scores)) for row, scores in rows.items()}
        out.update(aggregate_chance(some, table.take(np.flatnonzero(there)), levels, **options))
    return {row: out[row] for row in bounds}


def _groups(level: str, table: RecordTable) -> list[tuple[str, str, list[np.ndarray]]]:
    """(level, group, masks): one mask, or one per LVLM for a mean over LVLMs."""
    every = np.ones(len(table), bool)
    if not len(table):
        return []
    if level == "all":
        return [(level, "", [every])]
    if level == "macro":
        members = _by_lvlm(table, every)
        return [(level, "", members)] if len(members) > 1 else []
    if level == "dataset_macro":
        found = [(name, _by_lvlm(table, table.dataset == name)) for name in _names(table.dataset)]
        return [(level, name, members) for name, members in found if len(members) > 1]
    if level == "size":
        return [(level, name, [table.size == name]) for name in SIZES if (table.size == name).any()]
    column = {"lvlm": table.lvlm, "dataset": table.dataset, "attribute": table.attribute}[level]
    return [(level, name, [column == name]) for name in _names(column) if name]


def _by_lvlm(table: RecordTable, mask: np.ndarray) -> list[np.ndarray]:
    return [m for name in _names(table.lvlm) if (m := mask & (table.lvlm == name)).any()]


def _names(column: np.ndarray) -> list[str]:
    return sorted(set(column.tolist()))


class _Sums:
    """Sums per cluster of columns over parts of the records, without a copy of all columns side by side.

    Parameters
    ----------
    parts : list of (mask, codes)
        Records, and the cluster of each of these.
    clusters : int
        How many there are.
    """

    def __init__(self, parts: list[tuple[np.ndarray, np.ndarray]], clusters: int) -> None:
        self._parts, self._clusters = parts, clusters

    def __call__(self, columns: Iterable[np.ndarray]) -> np.ndarray:
        """(clusters, parts, columns), each column in one piece; the same column twice is summed once."""
        found: dict[int, np.ndarray] = {}
        kept = []  # what is alive keeps its id
        for column in columns:
            kept.append(column)
            if id(column) not in found:
                sums = [np.bincount(codes, column[mask], self._clusters) for mask, codes in self._parts]
                found[id(column)] = np.stack(sums)
        return np.stack([found[id(column)] for column in kept]).transpose(2, 1, 0)
