"""Score files -> the tables that the report and the leaderboard show."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from medground_bench.pages.export import Table
from medground_bench.scoring import CHANCE_ROWS, ComparisonReport, Interval, Row, ScoreFile, SubmissionScores
from medground_bench.scoring.outcomes import OUTCOMES
from medground_bench.scoring.places import ELSEWHERE, PLACES, PlaceRow, flat_place_rows, place_rows, place_title
from medground_bench.scoring.protocols.result import joined_notes
from medground_bench.scoring.rows import OUTPUTS, ends_text, interval_text, output_rows, p_text, row_title, too_few
from medground_bench.scoring.statistics import RESAMPLES

__all__ = [
    "ALL_LVLMS",
    "POOLED",
    "breakdown",
    "cell",
    "cost",
    "outcome_table",
    "outputs_table",
    "page_row",
    "pair_table",
    "place_export",
    "place_table",
    "protocol_table",
]

POOLED = "all sources"
ALL_LVLMS = "all LVLMs"


def cell(interval: Interval | None) -> dict[str, Any] | None:
    """A number for a template, with its interval as numbers and as text; None where there is no number."""
    if interval is None:
        return None
    low, high = (None if math.isnan(v) else v for v in (interval.low, interval.high))
    return {"value": interval.value, "low": low, "high": high, "ends": ends_text(interval)}


def cost(parts: Sequence[SubmissionScores]) -> dict[str, float]:
    """Mean cost of a record over submissions, of those that were recorded for all of them, and all ``passes``."""
    weights = [len(one.positions) or 1 for one in parts]
    out = {
        name: sum(w * one.cost[name] for w, one in zip(weights, parts, strict=True)) / sum(weights)
        for name in ("forward", "backward", "seconds")
        if parts and all(name in one.cost for one in parts)
    }
    if "forward" in out:
        out["passes"] = out["forward"] + out.get("backward", 0.0)
    return out


def page_row(row: Row, spent: Mapping[str, float] | None = None) -> dict[str, Any]:
    """A row for a template: who, on what, the cells ``iou, f1, precision, recall, skill, coverage, ...``, and ``p``.

    ``spent`` is what :func:`cost` says of it.
    """
    return {
        "spent": spent or {},
        "few": bool(too_few(row.clusters)),
        "method": row.title,
        "kind": row.kind,
        "chance": row.kind != "method",
        "span": row.span,
        "reach": row.reach,
        "lvlm": row.lvlm,
        "mode": row.mode,
        "dataset": row.aggregate.group or POOLED,
        "records": row.records,
        "patients": row.clusters,
        "skill": cell(row.skill),
        "p": row.p_chance,
        "p_sort": row.aggregate.p_chance if math.isfinite(row.aggregate.p_chance) else 2.0,
        **{name: cell(row.cell(name)) for name in _SUMMARY},
    }


def outputs_table(rows: Iterable[Row]) -> dict[str, Any] | None:
    """The table of concepts and tokens for a template: the columns that are there, and rows of cells; None if empty."""
    found = output_rows(rows)
    used = [(key, title) for key, title in OUTPUTS if any(row.cell(key) for row in found)]
    if not used:
        return None
    shown = [page_row(row) | {"outputs": [cell(row.cell(key)) for key, _ in used]} for row in found]
    return {"columns": [title for _, title in used], "rows": shown}


_SUMMARY = (
    *("iou", "f1", "precision", "recall", "coverage", "fallback", "degenerate"),
    *("area_ratio", "precision_lift", "pointing"),
)


def pair_table(report: ComparisonReport) -> list[dict[str, Any]]:
    """Every pair of methods on IoU for the page's script: mode, both names, the difference, and its test in words."""
    return [
        {
            "mode": p.mode,
            "first": p.result.first,
            "second": p.result.second,
            "difference": interval_text(p.result.difference),
            "words": too_few(p.clusters)
            or f"p {p_text(p.result.p_value, p.clusters)}, "
            f"corrected for all pairs {p_text(p.result.p_holm, p.clusters)}",
        }
        for p in report.pairs
        if p.metric == "iou"
    ]


def outcome_table(found: Iterable[tuple[str, SubmissionScores, Sequence[str]]]) -> dict[str, Any]:
    """How often each class occurs, a row for each method and mode, over all its LVLMs.

    Parameters
    ----------
    found : iterable of (mode, SubmissionScores, classes of its records)

    Returns
    -------
    dict
        ``columns`` (name, about) of the classes that occur, ``rows`` (method, mode, chance, total, counts), most found
        first, and ``modes``.
    """
    counts: dict[tuple[str, str], Counter[str]] = {}
    kinds: dict[str, str] = {}
    for mode, one, names in found:
        counts.setdefault((mode, one.method), Counter()).update(names)
        kinds[one.method] = one.kind
    used = [name for name in OUTCOMES if any(c[name] for c in counts.values())]
    rows: list[dict[str, Any]] = [
        {
            "key": method,
            "method": row_title(kinds[method], method),
            "chance": kinds[method] != "method",
            "mode": mode,
            "total": c.total(),
            "counts": [(name, c[name]) for name in used],
        }
        for (mode, method), c in counts.items()
    ]
    rows.sort(key=lambda row: (row["mode"], *(-count / max(row["total"], 1) for _, count in row["counts"])))
    return {
        "columns": [{"name": name, "about": OUTCOMES[name]} for name in used],
        "rows": rows,
        "modes": sorted({row["mode"] for row in rows}),
    }


def protocol_table(files: Iterable[ScoreFile]) -> dict[str, Any]:
    """What protocols found on every submission: a column for the measure in front of each protocol.

    Returns
    -------
    dict
        ``columns`` (name, measure, arrow, asks, note), empty where no protocol was run, and ``rows`` (method, chance,
        lvlm, mode and a cell for every column).
    """
    found = [one for file in files for one in file.submissions if one.protocols]
    columns: dict[str, dict[str, Any]] = {}
    for one in found:
        for name, summary in one.protocols.items():
            if summary.measures:
                front = summary.measures[0]
                columns.setdefault(
                    name,
                    {
                        "name": name.replace("_", " "),
                        "measure": front.name,
                        "arrow": {"high": "↑", "low": "↓"}.get(front.better, ""),
                        "title": front.title,
                        "asks": summary.asks,
                        "note": joined_notes(o.protocols[name].note for o in found if name in o.protocols),
                        "chance": front.chance if isinstance(front.chance, int | float) else None,
                    },
                )
    rows = []
    for one in sorted(found, key=lambda one: (one.lvlm, one.mode, one.method)):
        cells = []
        for name, column in columns.items():
            whole = one.protocols[name].find() if name in one.protocols else None
            interval = whole.values.get(column["measure"]) if whole else None
            cells.append(cell(interval if interval is not None and math.isfinite(interval.value) else None))
        rows.append(
            {
                "method": row_title(one.kind, one.method),
                "chance": one.kind != "method",
                "lvlm": one.lvlm,
                "mode": one.mode,
                "cells": cells,
            }
        )
    return {"columns": list(columns.values()), "rows": rows}


_SEEN = (
    *(k for k, name in enumerate(PLACES) if name.startswith("right")),
    *(k for k, name in enumerate(PLACES) if not name.startswith(("left", "right")) and name != ELSEWHERE),
    *(k for k, name in enumerate(PLACES) if name.startswith("left")),
    PLACES.index(ELSEWHERE),
)
"""Places as a viewer sees them from left to right: the patient's right, the middle, the patient's left."""

_ALL_FINDINGS = "all findings"


def place_table(files: Sequence[ScoreFile]) -> dict[str, Any]:
    """The share of attribution per place of the chest and finding, for a template.

    Returns
    -------
    dict
        ``columns`` and ``rows`` (method, chance, finding, of, records, patients, left, cells), empty where no anatomy
        is known; ``findings``; and ``note``, which says of how many records it is.
    """
    rows: list[dict[str, Any]] = [
        {
            "method": _place_row_title(row),
            "chance": row.kind != "method",
            "finding": row.finding or _ALL_FINDINGS,
            "of": row.of,
            "records": row.records,
            "patients": row.patients,
            "left": _left_out(row),
            "cells": [row.shares[k].value for k in _SEEN] if row.shares else [],
        }
        for row in place_rows(files)
    ]
    total = sum(len(file.table) for file in files)
    known = sum(int((~np.isnan(f.area_places).any(axis=1)).sum()) for f in files if f.area_places is not None)
    return {
        "columns": [place_title(PLACES[k]) for k in _SEEN],
        "rows": rows,
        "findings": list(dict.fromkeys(row["finding"] for row in rows)),
        "note": f"Anatomy known of {known} of {total} records"
        + ("." if known == total else "; score with --source or --localizer to have it of the others."),
    }


def _left_out(row: PlaceRow) -> str:
    reasons = [(row.unknown, "anatomy unknown"), (row.silent, "nothing named")]
    return ", ".join(f"{count} {reason}" for count, reason in reasons if count)


def _place_row_title(row: PlaceRow) -> str:
    return "evidence (expert)" if row.kind == "evidence" else row_title(row.kind, row.name)


def place_export(files: Sequence[ScoreFile], *, resamples: int = RESAMPLES) -> tuple[Table, list[dict[str, Any]]]:
    """The same for a file: the table of texts, and plain values with intervals over patients."""
    rows = place_rows(files, resamples=resamples)
    cells = [
        (
            row.finding or _ALL_FINDINGS,
            _place_row_title(row),
            row.of,
            str(row.records),
            str(row.patients),
            _left_out(row),
            *(interval_text(row.shares[k]) if row.shares else "" for k in _SEEN),
        )
        for row in rows
    ]
    titles = ("finding", "row", "of", "n", "patients", "left out", *(place_title(PLACES[k]) for k in _SEEN))
    notes = ("Shares of the attribution; brackets: 95 % bootstrap-t intervals over patients.",)
    return Table("Share of attribution per place and finding", titles, tuple(cells), 3, notes), flat_place_rows(rows)


def breakdown(files: Iterable[ScoreFile], level: str, title: str) -> dict[str, Any]:
    """Mean IoU of every method (pooled over LVLMs and modes) in every group of a level.

    The columns are the groups with their number of records and of patients; chance rows come last. ``best`` is the
    greatest mean. Files of different datasets (configs) number their patients apart, so that of a group in several
    of them the number of patients is at least the greatest one.
    """
    sums: dict[str, dict[str, list[float]]] = {}
    patients: dict[str, dict[str, set[int]]] = {}
    counted: set[tuple[str, str]] = set()
    chance = {row: row_title("chance", row) for row in CHANCE_ROWS}
    for file in files:
        column = getattr(file.table, level)
        for one in file.submissions:
            groups = column[one.positions].tolist()
            ids = file.table.id[one.positions].tolist()
            for group, cluster in zip(groups, file.table.cluster[one.positions].tolist(), strict=True):
                patients.setdefault(group, {}).setdefault(file.fingerprint, set()).add(cluster)
            for row, values in [
                (one.method, one.scores["iou"]),
                *((name, file.chance[c].iou[one.positions]) for c, name in chance.items()),
            ]:
                for group, value, record in zip(groups, values.tolist(), ids, strict=True):
                    if (row, record) in counted:  # chance rows come once for each record
                        continue
                    counted.add((row, record))
                    sums.setdefault(row, {}).setdefault(group, []).append(value)
    order = {"small": 0, "medium": 1, "large": 2}
    names = sorted(patients, key=lambda g: (order.get(g, 3), g))
    titles = set(chance.values())
    rows: list[dict[str, Any]] = [
        {
            "method": method,
            "chance": method in titles,
            "means": [sum(v) / len(v) if (v := by_group.get(g)) else None for g in names],
        }
        for method, by_group in sorted(sums.items(), key=lambda item: item[0] in titles)
    ]
    best = max((m for row in rows for m in row["means"] if m is not None), default=0.0) or 1.0
    columns = [
        {
            "name": g,
            "records": max(len(by_group.get(g, ())) for by_group in sums.values()),
            "patients": ("≥ " if len(patients[g]) > 1 else "") + str(max(map(len, patients[g].values()))),
        }
        for g in names
    ]
    return {"title": title, "best": best, "columns": columns, "rows": rows}
