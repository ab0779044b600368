"""What a table of scores consists of: one model of a row, and the texts of its cells, for terminal, pages and files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from medground_bench.scoring.ceiling import BOUND_ROWS, bound_kind
from medground_bench.scoring.chance import CHANCE_ROWS
from medground_bench.scoring.statistics import MIN_CLUSTERS, Interval

if TYPE_CHECKING:
    from medground_bench.scoring.aggregate import Aggregate
    from medground_bench.scoring.files import ScoreFile, SubmissionScores

__all__ = [
    "COLUMNS",
    "KINDS",
    "OUTPUTS",
    "Row",
    "ends_text",
    "group_title",
    "interval_text",
    "output_rows",
    "p_text",
    "row_title",
    "submission_rows",
    "too_few",
]

KINDS = ("method", "control", "chance", "ceiling", "human")
"""What a row is about: an attribution method; one that is meant to fail or to succeed for a known reason; a guess that
never looks; the best that a method's output space allows; another annotator. In the order of a table."""

COLUMNS = (("iou", "IoU"), ("f1", "F1"), ("precision", "Precision"), ("recall", "Recall"))
"""The four scores in the order of a table, with their titles."""

OUTPUTS = (
    ("concept_accuracy", "concept accuracy"),
    ("concept_rank", "1 / rank"),
    ("concept_confidence", "confidence"),
    ("concept_brier", "Brier"),
    ("token_auroc", "token AUROC"),
)
"""What is scored of concepts and tokens, in the order of a table, with titles."""

_GUESSES = {
    "any_concept": {"concept_accuracy": "concept_accuracy_uniform", "concept_rank": "concept_rank_uniform"},
    "largest_concept": {"concept_accuracy": "concept_accuracy_largest"},
    "usual_concept": {"concept_accuracy": "concept_accuracy_prior"},
}
"""Chance row of concepts -> its numbers among those of a method's aggregate."""

_NAMES = {
    "any_concept": "any concept",
    "largest_concept": "largest concept",
    "usual_concept": "usual concept of the finding",
    "tokens_at_random": "tokens at random",
    "whole_image": "whole image",
    "random_box": "random box",
    "centre_prior": "centre prior",
    "token_grid": "token grid",
    "tiles": "8 x 8 tiles",
    "pixels": "frame pixels",
    "concepts": "best concept",
    "second_annotator": "second annotator",
}
_GROUPS = {
    "all": "all records",
    "macro": "mean over LVLMs",
    "dataset_macro": "{}, mean over LVLMs",
    "size": "{} evidence",
}


@dataclass(frozen=True)
class Row:
    """One row of a table: whose numbers, over which records.

    Attributes
    ----------
    kind : str
        One of :data:`KINDS`.
    name : str
        The method, or the key of the chance row, ceiling, ...
    mode : str
        ``direct`` or ``reason``.
    lvlms : tuple of str
        The LVLMs whose records they are.
    aggregate : Aggregate
        The numbers, with the numbers of records and patients.
    submission : (int, int) or None
        Which score file and which of its submissions it comes from, where there is one.
    span : (float, float) or None
        Of a method: the IoU of the best chance row and of the ceiling of its output space over the same records;
        None where the ceiling is not known.
    """

    kind: str
    name: str
    mode: str
    lvlms: tuple[str, ...]
    aggregate: Aggregate
    submission: tuple[int, int] | None = None
    span: tuple[float, float] | None = None

    @property
    def title(self) -> str:
        """The name for a reader: ``chance: centre prior``; a method's is its own."""
        return row_title(self.kind, self.name)

    @property
    def lvlm(self) -> str:
        return ", ".join(self.lvlms)

    @property
    def records(self) -> int:
        return self.aggregate.records

    @property
    def clusters(self) -> int:
        """How many patients."""
        return self.aggregate.clusters

    @property
    def order(self) -> tuple[float, int, str]:
        """Best IoU first."""
        iou = self.cell("iou")
        return -iou.value if iou is not None else math.inf, KINDS.index(self.kind), self.name

    def cell(self, metric: str) -> Interval | None:
        """A number of the row; None where it does not exist."""
        interval = self.aggregate.values.get(metric)
        return None if interval is None or math.isnan(interval.value) else interval

    @property
    def skill(self) -> Interval | None:
        """Share of the way from the best chance row (of these records, by IoU) to a perfect IoU."""
        return self.cell(f"skill_iou_{self.aggregate.best_chance}")

    @property
    def reach(self) -> float | None:
        """How far its IoU is on the way from the best chance row to its ceiling; None where that is not known."""
        iou = self.cell("iou")
        if iou is None or self.span is None or self.span[1] <= self.span[0]:
            return None
        return (iou.value - self.span[0]) / (self.span[1] - self.span[0])

    @property
    def p_chance(self) -> str:
        """The p-value against the best chance row as a text; empty for what is not compared with chance."""
        return p_text(self.aggregate.p_chance, self.clusters) if self.aggregate.best_chance else ""

    def flat(self) -> dict[str, Any]:
        """Plain values: ``{metric}``, ``{metric}_low``, ``{metric}_high`` per metric (CSV, JSON)."""
        a = self.aggregate
        out: dict[str, Any] = {
            "mode": self.mode,
            "level": a.level,
            "group": a.group,
            "name": self.name,
            "kind": self.kind,
            "lvlms": " ".join(self.lvlms),
            "records": a.records,
            "clusters": a.clusters,
            "best_chance": a.best_chance,
            "p_chance": a.p_chance if math.isfinite(a.p_chance) else None,
        }
        if self.span is not None:
            out |= {"chance_iou": self.span[0], "ceiling_iou": self.span[1], "reach": self.reach}
        for metric, interval in a.values.items():
            for suffix, value in zip(("", "_low", "_high"), interval, strict=True):
                out[metric + suffix] = float(value) if math.isfinite(value) else None
        return out


def row_title(kind: str, name: str) -> str:
    """What a row of a kind is called for a reader."""
    shown = _NAMES.get(name, name)
    return shown if kind == "method" else f"{kind}: {shown}"


def group_title(level: str, group: str) -> str:
    """What a group of records is called for a reader."""
    return _GROUPS.get(level, "{}").format(group)


def too_few(clusters: int) -> str:
    """What stands in the place of an interval or p-value from too few patients; empty where there are enough."""
    return f"too few patients ({clusters})" if clusters < MIN_CLUSTERS else ""


def interval_text(interval: Interval | None) -> str:
    """``0.123 [0.100, 0.150]``; ``-`` where there is no number, no brackets where there is no interval."""
    if interval is None or math.isnan(interval.value):
        return "-"
    return f"{interval.value:.3f} {ends_text(interval)}".rstrip()


def ends_text(interval: Interval) -> str:
    """``[0.100, 0.150]``; empty where there is no interval."""
    if math.isnan(interval.low):
        return ""
    low, high = (f"{end:.3f}" if math.isfinite(end) else ("-∞" if end < 0 else "∞") for end in interval[1:])
    return f"[{low}, {high}]"


def p_text(p: float, clusters: int) -> str:
    """A p-value with as many digits as say something, or why there is none."""
    if math.isnan(p):
        return too_few(clusters) or "-"
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


def submission_rows(files: Sequence[ScoreFile], levels: Sequence[str] = ("all",)) -> Iterator[Row]:
    """The rows of score files: per level every submission, then chance rows, ceilings and human row of LVLM and mode.

    Parameters
    ----------
    files : sequence of ScoreFile
        What was scored.
    levels : sequence of str
        Of :data:`~medground_bench.scoring.aggregate.LEVELS`.
    """
    seen: set[tuple[str, ...]] = set()
    for level in levels:
        others = []
        for f, file in enumerate(files):
            for s, one in enumerate(file.submissions):
                for a in (a for a in one.aggregates if a.level == level):
                    yield Row(one.kind, one.method, one.mode, (one.lvlm,), a, (f, s), _span(one, a))
                    found = [("chance", row, row, one.find(level, a.group, row)) for row in CHANCE_ROWS]
                    for row in BOUND_ROWS:
                        bound = one.find(level, a.group, bound=row)
                        found.append((bound_kind(row), row, one.bounds.get(row, row), bound))
                    for kind, row, column, numbers in found:
                        # The same records have the same chance rows, whichever method was scored on them.
                        key = (file.fingerprint, one.lvlm, one.mode, level, a.group, column)
                        if key not in seen and numbers is not None:
                            seen.add(key)
                            others.append(Row(kind, row, one.mode, (one.lvlm,), numbers))
        yield from others


def output_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows of a table of concepts and tokens: methods that are scored on either, and what guesses score.

    Parameters
    ----------
    rows : iterable of Row
        Those of :func:`submission_rows`. A guess is over the records of the method that has most of them.
    """
    methods = [r for r in rows if any(r.cell(name) for name, _ in OUTPUTS)]
    guesses: dict[tuple[Any, ...], tuple[float, Row]] = {}
    for row in methods:
        a, place = row.aggregate, (row.mode, row.lvlms, row.aggregate.level, row.aggregate.group)
        known = a.values["concept_known"].value if "concept_known" in a.values else 0.0
        found = {
            name: {out: a.values[column] for out, column in columns.items() if row.cell(column)}
            for name, columns in _GUESSES.items()
        }
        if row.cell("token_auroc"):
            found["tokens_at_random"] = {"token_auroc": Interval(0.5, math.nan, math.nan)}
        for name, values in found.items():
            if values and guesses.get((*place, name), (-1.0, row))[0] < known:
                aggregate = replace(a, values=values, best_chance="", p_chance=math.nan)
                guesses[(*place, name)] = known, Row("chance", name, row.mode, row.lvlms, aggregate)
    return methods + [row for _, row in guesses.values()]


def _span(one: SubmissionScores, a: Aggregate) -> tuple[float, float] | None:
    """IoU of the best chance row and of the method's own ceiling over the records of an aggregate."""
    ceiling = one.find(a.level, a.group, bound=one.own_ceiling)
    chance = one.find(a.level, a.group, a.best_chance) if a.best_chance else None
    if ceiling is None or chance is None or ceiling.records != a.records:
        return None
    return chance.values["iou"].value, ceiling.values["iou"].value
