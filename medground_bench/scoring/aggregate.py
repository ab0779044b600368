"""From scores per record to the numbers of a table, each with its interval.

Every number is a ratio of two sums over records (a mean is one whose denominator counts), so that one bootstrap of
patients serves all numbers of all groups, and the mean over LVLMs too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from medground_bench.imaging.overlap import METRICS, BoxScores
from medground_bench.scoring.heatmaps import HEATMAP_METRICS
from medground_bench.scoring.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    bootstrap_sums,
    cluster_codes,
    cluster_sums,
    percentiles,
)
from medground_bench.scoring.table import SIZES, RecordTable

__all__ = ["LEVELS", "Aggregate", "Quotient", "aggregate", "chance_quotients", "score_quotients"]

LEVELS = ("all", "macro", "lvlm", "dataset", "dataset_macro", "size", "attribute")
"""Groupings: all records pooled; mean over LVLMs; by LVLM; by dataset pooled and as mean over LVLMs; by
evidence-size tertile; by attribute."""

_GROUPS_AT_ONCE = 24


class Quotient(NamedTuple):
    """A number as a ratio of sums: numerator and denominator per record, each of shape (n,)."""

    numerator: np.ndarray
    denominator: np.ndarray


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
    """

    level: str
    group: str
    records: int
    clusters: int
    values: dict[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; numbers that do not exist are null."""
        values = {k: [None if np.isnan(x) else float(x) for x in v] for k, v in self.values.items()}
        return {
            "level": self.level,
            "group": self.group,
            "records": self.records,
            "clusters": self.clusters,
            "values": values,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Aggregate:
        """The inverse of :meth:`to_json`."""
        values = {k: Interval(*(float("nan") if x is None else float(x) for x in v)) for k, v in data["values"].items()}
        return cls(data["level"], data["group"], int(data["records"]), int(data["clusters"]), values)


def score_quotients(
    scores: Mapping[str, np.ndarray], evidence_fraction: np.ndarray, chance: Mapping[str, BoxScores] | None = None
) -> dict[str, Quotient]:
    """All numbers of a submission.

    The four scores, ``coverage``, ``fallback`` and ``degenerate`` are means over records; ``area_ratio`` is mean
    predicted area over mean evidence area (both as shares of the image) and ``precision_lift`` mean precision over
    mean evidence-area fraction: ratios of means, since the mean of ratios is ruled by the tiniest lesion. Heat-map
    scores are means over the records that have a heat map. ``skill_{metric}_{chance row}`` is
    ``(s - chance) / (1 - chance)`` of the means.
    """
    one = np.ones(len(evidence_fraction))
    out = {name: Quotient(scores[name], one) for name in METRICS}
    out["coverage"] = Quotient(scores["answered"], one)
    for name in ("fallback", "degenerate"):
        out[name] = Quotient(scores[name], one)
    out["area_ratio"] = Quotient(scores["predicted_fraction"], evidence_fraction)
    out["precision_lift"] = Quotient(scores["precision"], evidence_fraction)
    for name in HEATMAP_METRICS:
        if name in scores and not np.isnan(scores[name]).all():
            there = ~np.isnan(scores[name])
            out[name] = Quotient(np.where(there, scores[name], 0.0), there.astype(np.float64))
    for row, by_chance in (chance or {}).items():
        for name in ("iou", "f1"):
            expected = getattr(by_chance, name)
            out[f"skill_{name}_{row}"] = Quotient(scores[name] - expected, 1 - expected)
    return out


def chance_quotients(scores: BoxScores) -> dict[str, Quotient]:
    """The four scores of a chance row."""
    return {name: Quotient(getattr(scores, name), np.ones(len(scores.iou))) for name in METRICS}


def aggregate(
    quotients: Mapping[str, Quotient],
    table: RecordTable,
    levels: Sequence[str] = LEVELS,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Aggregate]:
    """Numbers of every group of the levels, with percentile intervals from resampled patients.

    Parameters
    ----------
    quotients : mapping of str to Quotient
        Metric -> its sums per record of the table.
    table : RecordTable
        What the records are.
    levels : sequence of str
        Any of :data:`LEVELS`. The means over LVLMs exist only where there are several.

    Returns
    -------
    list of Aggregate
        In the order of the levels; groups sorted by name, sizes small to large.
    """
    groups = [g for level in LEVELS if level in levels for g in _groups(level, table)]
    codes, count = cluster_codes(table.cluster)
    names = list(quotients)
    columns, place = _columns(quotients)
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    out = []
    for lo in range(0, len(groups), _GROUPS_AT_ONCE):
        part = groups[lo : lo + _GROUPS_AT_ONCE]
        sums = [cluster_sums(columns[mask], codes[mask], count) for _, _, masks in part for mask in masks]
        drawn = bootstrap_sums(np.concatenate(sums, axis=1), resamples=resamples, seed=seed) if count > 1 else None
        start = 0
        for level, group, masks in part:
            here = range(start, start + len(masks))
            start += len(masks)
            values = {}
            for k, name in enumerate(names):
                a, b = int(place[2 * k]), int(place[2 * k + 1])
                value = float(np.mean([_divide(sums[j][:, a].sum(), sums[j][:, b].sum()) for j in here]))
                low = high = float("nan")
                if drawn is not None:
                    width = columns.shape[1]
                    replicas = [_divide(drawn[:, j * width + a], drawn[:, j * width + b]) for j in here]
                    low, high = percentiles(np.mean(replicas, axis=0), tails)
                values[name] = Interval(value, low, high)
            members = np.logical_or.reduce(masks)
            patients = len(np.unique(codes[members]))
            out.append(Aggregate(level, group, int(members.sum()), patients, _lone(values, patients)))
    return out


def _lone(values: dict[str, Interval], patients: int) -> dict[str, Interval]:
    """A group of one patient has no interval: there is nothing to resample within it."""
    if patients > 1:
        return values
    return {name: Interval(v.value, float("nan"), float("nan")) for name, v in values.items()}


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


def _columns(quotients: Mapping[str, Quotient]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct columns of all quotients, and where the numerator and denominator of each one are."""
    seen: dict[bytes, int] = {}
    distinct: list[np.ndarray] = []
    place = []
    for pair in quotients.values():
        for values in pair:
            column = np.ascontiguousarray(values, np.float64)
            k = seen.setdefault(column.tobytes(), len(distinct))
            if k == len(distinct):
                distinct.append(column)
            place.append(k)
    return np.stack(distinct, axis=1), np.array(place)


def _divide(numerator: Any, denominator: Any) -> Any:
    numerator, denominator = np.asarray(numerator), np.asarray(denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)
