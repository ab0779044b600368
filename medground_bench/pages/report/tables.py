"""Score files -> the rows of the tables that the report and the leaderboard show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from medground_bench.scoring import CHANCE_ROWS, Aggregate, ScoreFile, SubmissionScores

__all__ = ["breakdown", "cell", "score_rows"]

POOLED = "all sources"

CHANCE_TITLES = {
    "whole_image": "chance: whole image",
    "random_box": "chance: random box",
    "centre_prior": "chance: centre prior",
}


def cell(aggregate: Aggregate | None, metric: str) -> dict[str, float | None] | None:
    """Value and interval of one metric for a template; None where it does not exist."""
    interval = aggregate.values.get(metric) if aggregate is not None else None
    if interval is None or math.isnan(interval.value):
        return None
    low, high = (None if math.isnan(v) else v for v in (interval.low, interval.high))
    return {"value": interval.value, "low": low, "high": high}


def best_chance(one: SubmissionScores, level: str = "all", group: str = "") -> str:
    """The chance row with the highest IoU over a group of a submission's records."""
    ious = {row: cell(one.find(level, group, row), "iou") for row in CHANCE_ROWS}
    return max(CHANCE_ROWS, key=lambda row: -1.0 if (value := ious[row]) is None else (value["value"] or 0.0))


def score_rows(files: Sequence[ScoreFile], levels: Sequence[str] = ("all",)) -> Iterator[dict[str, Any]]:
    """Rows of a table of results: every submission, then the chance rows of each LVLM and mode.

    Parameters
    ----------
    files : sequence of ScoreFile
        What was scored.
    levels : sequence of str
        ``"all"`` (all records of an LVLM and mode) and ``"dataset"`` (each source apart).

    Yields
    ------
    dict
        ``method, lvlm, mode, dataset, chance, records`` and the cells ``iou, f1, precision, recall, skill, coverage,
        fallback, degenerate``; ``submission`` is the index pair (file, submission), None for chance rows.
    """
    seen: set[tuple[str, str, str, str, str]] = set()
    for level in levels:
        chance: list[dict[str, Any]] = []
        for f, file in enumerate(files):
            for s, one in enumerate(file.submissions):
                for aggregate in (a for a in one.aggregates if a.level == level):
                    dataset = aggregate.group or POOLED
                    base = {"lvlm": one.lvlm, "mode": one.mode, "dataset": dataset, "records": aggregate.records}
                    skill = f"skill_iou_{best_chance(one, level, aggregate.group)}"
                    yield {
                        **base,
                        "method": one.method,
                        "chance": False,
                        "submission": (f, s),
                        "skill": cell(aggregate, skill),
                        **{m: cell(aggregate, m) for m in _SUMMARY},
                    }
                    for row in CHANCE_ROWS:
                        # The same records have the same chance rows, whichever method was scored on them.
                        key = (file.fingerprint, one.lvlm, one.mode, dataset, row)
                        if key in seen:
                            continue
                        seen.add(key)
                        by_chance = one.find(level, aggregate.group, row)
                        cells = {m: cell(by_chance, m) for m in _SUMMARY}
                        chance.append(
                            {
                                **base,
                                "method": CHANCE_TITLES[row],
                                "chance": True,
                                "submission": None,
                                "skill": None,
                                **cells,
                            }
                        )
        yield from chance


_SUMMARY = ("iou", "f1", "precision", "recall", "coverage", "fallback", "degenerate")


def breakdown(files: Iterable[ScoreFile], level: str, title: str) -> dict[str, Any]:
    """Mean IoU of every method (pooled over LVLMs and modes) in every group of a level.

    The columns are the groups with their number of records; chance rows come last. ``best`` is the greatest mean.
    """
    sums: dict[str, dict[str, list[float]]] = {}
    counts: dict[str, int] = {}
    counted: set[tuple[str, str]] = set()
    for file in files:
        column = getattr(file.table, level)
        for one in file.submissions:
            groups = column[one.rows]
            ids = file.table.id[one.rows]
            for row, values in [
                (one.method, one.scores["iou"]),
                *((CHANCE_TITLES[c], file.chance[c].iou[one.rows]) for c in CHANCE_ROWS),
            ]:
                for group, value, record in zip(groups.tolist(), values.tolist(), ids.tolist(), strict=True):
                    if (row, record) in counted:  # chance rows come once for each record
                        continue
                    counted.add((row, record))
                    sums.setdefault(row, {}).setdefault(group, []).append(value)
    for by_group in sums.values():
        for group, values in by_group.items():
            counts[group] = max(counts.get(group, 0), len(values))
    order = {"small": 0, "medium": 1, "large": 2}
    names = sorted(counts, key=lambda g: (order.get(g, 3), g))
    chance = set(CHANCE_TITLES.values())
    rows: list[dict[str, Any]] = [
        {
            "method": method,
            "chance": method in chance,
            "means": [sum(v) / len(v) if (v := by_group.get(g)) else None for g in names],
        }
        for method, by_group in sorted(sums.items(), key=lambda item: item[0] in chance)
    ]
    best = max((m for row in rows for m in row["means"] if m is not None), default=0.0) or 1.0
    return {"title": title, "best": best, "columns": [{"name": g, "records": counts[g]} for g in names], "rows": rows}
