"""Methods side by side: pooled over LVLMs as in the paper's table, beside chance, with paired comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.imaging.overlap import METRICS, BoxScores
from medground_bench.scoring.aggregate import aggregate, aggregate_bounds, aggregate_chance, score_quotients
from medground_bench.scoring.ceiling import BOUND_ROWS, bound_kind
from medground_bench.scoring.chance import CHANCE_ROWS, best_chance
from medground_bench.scoring.protocols.result import measure_quotient
from medground_bench.scoring.rows import Row, row_title
from medground_bench.scoring.statistics import CONFIDENCE, RESAMPLES, Comparison, compare_methods, holm
from medground_bench.scoring.table import RecordTable

if TYPE_CHECKING:
    from medground_bench.scoring.files import ScoreFile, SubmissionScores
    from medground_bench.scoring.protocols.protocol import Measure

__all__ = ["ComparisonReport", "MethodScores", "PairComparison", "compare_scores", "pool_methods"]

_LEVELS = ("all", "macro", "lvlm", "dataset", "dataset_macro", "size")


@dataclass(frozen=True)
class MethodScores:
    """One method in one mode, pooled over the submissions for its LVLMs.

    Attributes
    ----------
    kind, method, mode : str
        Which; the kind is ``method`` or ``control``.
    lvlms : tuple of str
        The LVLMs it was submitted for.
    table : RecordTable
        The records of all of them.
    scores : dict of str to ndarray
        Columns over these records (see :class:`~medground_bench.scoring.files.SubmissionScores`).
    chance : dict of str to BoxScores
        Chance rows over the same records.
    bounds : dict of str to BoxScores
        Ceilings and second annotator over the same records, NaN where one is not known.
    own_ceiling : str
        The ceiling of its output space; empty where it is not known, or not the same for all its LVLMs.
    measures : dict of str to Measure
        What protocols say: column of ``scores`` -> its measure.
    """

    kind: str
    method: str
    mode: str
    lvlms: tuple[str, ...]
    table: RecordTable
    scores: dict[str, np.ndarray]
    chance: dict[str, BoxScores]
    bounds: dict[str, BoxScores] = field(default_factory=dict)
    own_ceiling: str = ""
    measures: dict[str, Measure] = field(default_factory=dict)


@dataclass(frozen=True)
class PairComparison:
    """A paired comparison, with the mode and metric it is about and the records the two methods share."""

    mode: str
    metric: str
    records: int
    result: Comparison

    @property
    def clusters(self) -> int:
        """How many patients the shared records are of."""
        return self.result.clusters


@dataclass
class ComparisonReport:
    """Result of :func:`compare_scores`.

    Attributes
    ----------
    rows : list of Row
        Every group of every chance row, ceiling, second annotator and method. All but the methods' are over all records
        that some method covers; ceilings and second annotators over those of them that have one.
    pairs : list of PairComparison
        All pairs of methods, per mode and metric; Holm's correction is over the pairs of one mode and metric.
    against_chance : list of PairComparison
        Every method (``first``) with the chance row (``second``) that does best on its records, per mode and metric;
        Holm's correction is over the methods of one mode and metric.
    measures : dict of str to Measure
        What protocols were joined to the scores: number of the rows, ``"protocol.measure"`` -> its measure.
    """

    rows: list[Row] = field(default_factory=list)
    pairs: list[PairComparison] = field(default_factory=list)
    against_chance: list[PairComparison] = field(default_factory=list)
    measures: dict[str, Measure] = field(default_factory=dict)

    def flat_rows(self) -> list[dict[str, Any]]:
        """One plain dict per row (CSV; see :meth:`Row.flat`)."""
        return [row.flat() for row in self.rows]

    def flat_pairs(self) -> list[dict[str, Any]]:
        """One plain dict per paired comparison (CSV), those with chance first."""
        return [
            {
                "mode": p.mode,
                "metric": p.metric,
                "first": p.result.first,
                "second": p.result.second,
                "family": family,
                "records": p.records,
                "clusters": p.clusters,
                **{
                    name: float(value) if np.isfinite(value) else None
                    for name, value in (
                        *zip(("difference", "difference_low", "difference_high"), p.result.difference, strict=True),
                        ("p_value", p.result.p_value),
                        ("p_holm", p.result.p_holm),
                    )
                },
            }
            for family, pairs in (("chance", self.against_chance), ("methods", self.pairs))
            for p in pairs
        ]


def pool_methods(files: Sequence[ScoreFile]) -> list[MethodScores]:
    """The methods of several score files, each pooled over its LVLMs, per mode, in order of appearance.

    Raises
    ------
    ScoringError
        If files of one mode were scored against different datasets, or two submissions are of the same method,
        LVLM and mode.
    """
    fingerprints: dict[str, ScoreFile] = {}
    parts: dict[tuple[str, str], list[tuple[ScoreFile, SubmissionScores]]] = {}
    for file in files:
        for one in file.submissions:
            first = fingerprints.setdefault(one.mode, file)
            if first.fingerprint != file.fingerprint:
                raise ScoringError(
                    f"scored against another dataset than {first.path}: {file.fingerprint} is not {first.fingerprint}",
                    where=file.path,
                    remedy="score all submissions against the same dataset folder and config",
                )
            mine = parts.setdefault((one.mode, one.method), [])
            if any(one.lvlm == other.lvlm for _, other in mine):
                raise ScoringError(
                    f"method {one.method!r} for {one.lvlm} in mode {one.mode} is there twice",
                    where=file.path,
                    remedy="give each score file once",
                )
            mine.append((file, one))
    return [_pool(mode, method, group) for (mode, method), group in parts.items()]


def _pool(mode: str, method: str, parts: list[tuple[ScoreFile, SubmissionScores]]) -> MethodScores:
    parts = sorted(parts, key=lambda part: part[1].lvlm)
    tables = []
    for file, one in parts:
        table = file.table.take(one.positions)
        # Candidates belong to no LVLM: what was submitted for them is told apart by the submission's.
        lvlm = np.where(table.lvlm == "", one.lvlm, table.lvlm)
        tables.append(RecordTable(**{**{k: getattr(table, k) for k in table.__dataclass_fields__}, "lvlm": lvlm}))
    names = list(dict.fromkeys(name for _, one in parts for name in one.scores))
    scores = {
        name: np.concatenate([one.scores.get(name, np.full(len(one.positions), np.nan)) for _, one in parts])
        for name in names
    }
    chance = {
        row: BoxScores(
            *(np.concatenate([getattr(f.chance[row], m)[one.positions] for f, one in parts]) for m in METRICS)
        )
        for row in CHANCE_ROWS
    }
    joined = RecordTable(**{k: np.concatenate([getattr(t, k) for t in tables]) for k in tables[0].__dataclass_fields__})
    bounds = {
        row: BoxScores(*(np.concatenate([_bound(f, one, row, m) for f, one in parts]) for m in METRICS))
        for row in BOUND_ROWS
        if any(row in one.bounds for _, one in parts)
    }
    own = {one.own_ceiling for _, one in parts}
    lvlms = tuple(one.lvlm for _, one in parts)
    one_own = own.pop() if len(own) == 1 else ""
    measures = {
        key: p.measures[0]
        for _, one in parts
        for name, p in one.protocols.items()
        if p.measures and (key := f"{name}.{p.measures[0].name}") in scores
    }
    return MethodScores(parts[0][1].kind, method, mode, lvlms, joined, scores, chance, bounds, one_own, measures)


def _bound(file: ScoreFile, one: SubmissionScores, row: str, metric: str) -> np.ndarray:
    if row not in one.bounds:
        return np.full(len(one.positions), np.nan)
    column: np.ndarray = getattr(file.bounds[one.bounds[row]], metric)[one.positions]
    return column


def compare_scores(
    files: Sequence[ScoreFile],
    *,
    metrics: Sequence[str] = METRICS,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> ComparisonReport:
    """Tables of all methods beside chance; every pair of methods, and every method with chance, compared.

    Parameters
    ----------
    files : sequence of ScoreFile
        Any number of score files; submissions of one method for several LVLMs are pooled.
    metrics : sequence of str
        What pairs are compared on; Holm's correction is over the pairs of one metric and mode.
    resamples, confidence, seed
        Of the bootstrap.

    Raises
    ------
    ScoringError
        If there is nothing to compare, or the files do not belong together (see :func:`pool_methods`).
    """
    for file in files:
        file.require_records()
    pooled = pool_methods(files)
    if not pooled:
        raise ScoringError("the score files hold no submissions")
    options: dict[str, Any] = {"resamples": resamples, "confidence": confidence, "seed": seed}
    report = ComparisonReport()
    for mode in dict.fromkeys(m.mode for m in pooled):
        methods = [m for m in pooled if m.mode == mode]
        table, chance, bounds = _union(methods)
        lvlms = tuple(sorted(set(table.lvlm.tolist()) - {""}))
        for row, aggregates in aggregate_chance(chance, table, _LEVELS, **options).items():
            report.rows += [Row("chance", row, mode, lvlms, a) for a in aggregates]
        for row, aggregates in aggregate_bounds(bounds, table, _LEVELS, **options).items():
            report.rows += [Row(bound_kind(row), row, mode, lvlms, a) for a in aggregates]
        for m in methods:
            quotients = score_quotients(m.scores, m.table.evidence_fraction, m.chance)
            quotients |= {key: measure_quotient(measure, m.scores[key]) for key, measure in m.measures.items()}
            report.measures |= m.measures
            spans = _spans(m)
            for a in aggregate(quotients, m.table, _LEVELS, chance=m.chance, **options):
                span = spans.get((a.level, a.group, a.best_chance))
                report.rows.append(Row(m.kind, m.method, mode, m.lvlms, a, span=span))
        for metric in metrics:
            report.against_chance += _with_holm([_against_chance(m, metric, options) for m in methods])
            report.pairs += _pairs(methods, mode, metric, options)
    return report


def _spans(m: MethodScores) -> dict[tuple[str, str, str], tuple[float, float]]:
    """(level, group, chance row) -> IoU of that row and of the method's own ceiling over its records."""
    own = m.bounds.get(m.own_ceiling)
    if own is None or np.isnan(own.iou).any():
        return {}
    found = aggregate_chance({**m.chance, m.own_ceiling: own}, m.table, _LEVELS, resamples=0)
    return {
        (a.level, a.group, row): (a.values["iou"].value, ceiling.values["iou"].value)
        for row in CHANCE_ROWS
        for a, ceiling in zip(found[row], found[m.own_ceiling], strict=True)
    }


def _keys(m: MethodScores) -> list[tuple[str, str]]:
    return list(zip(m.table.id.tolist(), m.table.lvlm.tolist(), strict=True))


def _union(
    methods: Sequence[MethodScores],
) -> tuple[RecordTable, dict[str, BoxScores], dict[str, BoxScores]]:
    """The records of several methods, each once, their chance rows, and what bounds them."""
    seen: set[tuple[str, str]] = set()
    keep = []
    for m in methods:
        new = [k for k, key in enumerate(_keys(m)) if key not in seen]
        seen.update(_keys(m))
        keep.append(np.array(new, np.int64))
    columns = RecordTable.__dataclass_fields__
    table = RecordTable(
        **{c: np.concatenate([getattr(m.table, c)[k] for m, k in zip(methods, keep, strict=True)]) for c in columns}
    )
    chance = {
        row: BoxScores(
            *(
                np.concatenate([getattr(m.chance[row], c)[k] for m, k in zip(methods, keep, strict=True)])
                for c in METRICS
            )
        )
        for row in CHANCE_ROWS
    }
    return table, chance, _union_bounds(methods, table)


def _union_bounds(methods: Sequence[MethodScores], table: RecordTable) -> dict[str, BoxScores]:
    """Of every record the bounds of the first method that knows them; NaN where none does."""
    place = {key: k for k, key in enumerate(zip(table.id.tolist(), table.lvlm.tolist(), strict=True))}
    out: dict[str, BoxScores] = {}
    for row in BOUND_ROWS:
        values = np.full((len(METRICS), len(table)), np.nan)
        for m in (m for m in methods if row in m.bounds):
            where = np.array([place[key] for key in _keys(m)], np.int64)
            mine = np.stack(m.bounds[row])
            values[:, where] = np.where(np.isnan(values[:, where]), mine, values[:, where])
        if not np.isnan(values).all():
            out[row] = BoxScores(*values)
    return out


def _against_chance(m: MethodScores, metric: str, options: dict[str, Any]) -> PairComparison:
    """A method with the chance row that does best on its records."""
    rows = {row: getattr(scores, metric) for row, scores in m.chance.items()}
    best = best_chance({row: float(values.mean()) for row, values in rows.items()})
    scores = {m.method: m.scores[metric], row_title("chance", best): rows[best]}
    (result,) = compare_methods(scores, m.table.cluster, **options)
    return PairComparison(m.mode, metric, len(m.table), result)


def _pairs(methods: Sequence[MethodScores], mode: str, metric: str, options: dict[str, Any]) -> list[PairComparison]:
    """All pairs on one metric. Methods over the same records are resampled in one go, others pair by pair."""
    by_key = [dict(zip(_keys(m), range(len(m.table)), strict=True)) for m in methods]
    if all(keys.keys() == by_key[0].keys() for keys in by_key):
        order = [np.array([keys[key] for key in by_key[0]]) for keys in by_key]
        scores = {m.method: m.scores[metric][i] for m, i in zip(methods, order, strict=True)}
        clusters = methods[0].table.cluster[order[0]]
        return [PairComparison(mode, metric, len(clusters), r) for r in compare_methods(scores, clusters, **options)]
    out: list[PairComparison] = []
    for a, b in combinations(range(len(methods)), 2):
        shared = [key for key in by_key[a] if key in by_key[b]]
        if not shared:
            continue  # there is nothing to compare
        left, right = (np.array([keys[key] for key in shared], np.int64) for keys in (by_key[a], by_key[b]))
        scores = {
            methods[a].method: methods[a].scores[metric][left],
            methods[b].method: methods[b].scores[metric][right],
        }
        (result,) = compare_methods(scores, methods[a].table.cluster[left], **options)
        out.append(PairComparison(mode, metric, len(shared), result))
    return _with_holm(out)


def _with_holm(pairs: Sequence[PairComparison]) -> list[PairComparison]:
    """The pairs with Holm's correction over all of them."""
    corrected = holm([p.result.p_value for p in pairs])
    return [replace(p, result=replace(p.result, p_holm=q)) for p, q in zip(pairs, corrected, strict=True)]
