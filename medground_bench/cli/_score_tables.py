"""Score tables in the terminal: fractions with three decimals, 95 % intervals and the number of patients."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from medground_bench.core.errors import printable

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.scoring import ComparisonReport, PairComparison, Row, ScoreFile
    from medground_bench.scoring.protocols.meta import Agreement
    from medground_bench.scoring.protocols.protocol import Measure
    from medground_bench.scoring.protocols.result import ProtocolResult

__all__ = ["console", "print_agreements", "print_comparison", "print_protocol", "print_scores"]


def console() -> Console:
    """Standard output; not folded to 80 columns when it goes into a file or pipe."""
    return Console() if sys.stdout.isatty() else Console(width=220)


def print_scores(scores: ScoreFile, out: Console) -> None:
    """Every submission of a score file: the four scores by dataset beside chance, then what else is known."""
    from medground_bench.scoring.rows import group_title, submission_rows

    for one in scores.submissions:
        rows = list(submission_rows([_only(scores, one)], ("all", "dataset")))
        if not rows:
            continue
        groups = dict.fromkeys((r.aggregate.level, r.aggregate.group) for r in rows)
        columns = ("records", "row", "n", "patients", *_SCORES, *_CHANCE)
        table = _table(f"{one.method}, {one.lvlm}, {one.mode}", columns)
        for level, group in groups:
            mine = [r for r in rows if (r.aggregate.level, r.aggregate.group) == (level, group)]
            mine.sort(key=lambda r: r.order)
            for k, row in enumerate(mine):
                name = group_title(level, group) if k == 0 else ""
                _add(table, name, *_cells(row), *_chance_cells(row), style=_style(row))
            table.add_section()
        out.print(table)
        out.print(_also(rows[0]) + _cost(one.provenance.get("cost")), markup=False, highlight=False)
        _print_outputs([r for r in rows if r.aggregate.level == "all"], out)
        _print_note(out, rows)
        for warning in one.warnings:
            out.print(f"warning: {printable(warning)}", style="yellow", markup=False, highlight=False)
        out.print()


def _print_outputs(rows: Sequence[Row], out: Console) -> None:
    """What is scored of concepts and tokens, if anything is."""
    from medground_bench.scoring.rows import OUTPUTS, interval_text, output_rows

    found = output_rows(rows)
    used = [(key, title) for key, title in OUTPUTS if any(r.cell(key) for r in found)]
    if not found:
        return
    table = _table("concepts and tokens", ("row", "n (concepts)", "n (tokens)", *(title for _, title in used)))
    for row in found:
        counts = []
        for known in ("concept_known", "token_known"):
            share = row.cell(known)
            counts.append("" if share is None else str(round(share.value * row.records)))
        _add(table, row.title, *counts, *(interval_text(row.cell(key)) for key, _ in used), style=_style(row))
    out.print(table)


def print_comparison(report: ComparisonReport, out: Console, *, levels: Sequence[str], metric: str) -> None:
    """Methods, chance rows and ceilings, one table per group, best first; then methods against chance and all pairs."""
    from medground_bench.scoring.rows import group_title, interval_text

    for mode in dict.fromkeys(row.mode for row in report.rows):
        mine = [r for r in report.rows if r.mode == mode]
        for level, group in dict.fromkeys((r.aggregate.level, r.aggregate.group) for r in mine):
            if level not in levels:
                continue
            rows = [r for r in mine if (r.aggregate.level, r.aggregate.group) == (level, group)]
            rows.sort(key=lambda r: -cell.value if (cell := r.cell(metric)) is not None else 1.0)
            asked = {key: m for key, m in report.measures.items() if any(row.cell(key) for row in rows)}
            beside = asked if len(asked) <= _BESIDE else {}
            columns = ("row", "LVLMs", "n", "patients", *_SCORES, *_CHANCE, *_headings(beside))
            table = _table(f"{mode}: {group_title(level, group)}", columns)
            for row in rows:
                title, *cells = _cells(row)
                also = [interval_text(cell) if (cell := row.cell(key)) else "" for key in beside]
                _add(table, title, str(len(row.lvlms)), *cells, *_chance_cells(row), *also, style=_style(row))
            out.print(table)
            _print_asked(rows, asked, beside, out)
            _print_outputs(rows, out)
            _print_note(out, rows)
        for title, pairs in (
            (f"differences in {metric} from the best chance row", report.against_chance),
            (f"paired differences in {metric}", report.pairs),
        ):
            shown = [p for p in pairs if p.mode == mode and p.metric == metric]
            if shown:
                out.print(_pair_table(f"{mode}: {title} (Holm over {len(shown)})", shown))


def _headings(asked: Mapping[str, Measure]) -> list[str]:
    """``flip gain ↑``: the measure, and which end is the good one."""
    return [m.name.replace("_", " ") + {"high": " ↑", "low": " ↓"}.get(m.better, "") for m in asked.values()]


def _print_asked(
    rows: Sequence[Row], asked: Mapping[str, Measure], beside: Mapping[str, Measure], out: Console
) -> None:
    """What protocols found: a line for each that has a column already, else a table of its own."""
    from medground_bench.scoring.rows import interval_text

    for key, measure in beside.items():
        chance = f"; chance: {measure.chance}" if isinstance(measure.chance, int | float) else ""
        out.print(f"  {measure.name} ({key.partition('.')[0]}): {measure.title}{chance}", style="dim", markup=False)
    if len(asked) > len(beside):
        names = [f"{key.partition('.')[0]}: {h}" for key, h in zip(asked, _headings(asked), strict=True)]
        table = _table("what protocols found", ("row", *names))
        for row in (r for r in rows if any(r.cell(key) for key in asked)):
            _add(table, row.title, *(interval_text(row.cell(key)) for key in asked), style=_style(row))
        out.print(table)


_BESIDE = 2  # so many measures of protocols have room beside the scores


def print_protocol(results: Sequence[ProtocolResult], out: Console, *, tables: bool = True) -> None:
    """One protocol on several submissions: a row a submission, best first by the measure in front, and its tables."""
    from medground_bench.scoring.protocols.result import joined_notes
    from medground_bench.scoring.rows import interval_text

    first = results[0]
    shown = [m for m in first.measures if any(m.name in r.values for r in results)]
    if not shown:
        out.print(f"{first.protocol}: no record has a number", markup=False)
        return

    def order(result: ProtocolResult) -> float:
        whole = result.find()
        value = whole.values[shown[0].name].value if whole and shown[0].name in whole.values else float("nan")
        return value if shown[0].better == "low" else -value

    table = _table(f"{first.protocol}, {first.lvlm}, {first.mode}: {first.asks}", ("row", "n", "patients"))
    for measure in shown:
        arrow = {"high": " ↑", "low": " ↓"}.get(measure.better, "")
        table.add_column(Text(printable(measure.name.replace("_", " ") + arrow)), justify="right")
    for result in sorted(results, key=order):
        whole = result.find()
        if whole is None:
            continue
        counted = max(sum(column == column) for column in result.values.values())
        cells = [interval_text(whole.values.get(m.name)) for m in shown]
        style = "dim" if result.kind == "control" else None
        _add(table, result.method, str(counted), str(whole.clusters), *cells, style=style)
    out.print(table)
    if note := joined_notes(r.note for r in results):
        out.print(printable(f"  note: {note}"), style="yellow", markup=False, highlight=False)
    for measure in shown:
        chance = "" if measure.chance is None else f"; chance: {measure.chance}"
        out.print(f"  {measure.name}: {measure.title}{chance}", style="dim", markup=False, highlight=False)
    for result in results:
        for reason, count in result.skipped.items():
            out.print(printable(f"  {result.method}: {count} records left out: {reason}"), markup=False, style="dim")
        for extra in result.tables if tables else ():
            rows = [{str(k): _text(v) for k, v in row.items()} for row in extra.rows]
            if rows:
                inner = _table(f"{result.method}: {extra.title}", list(rows[0]))
                for row in rows:
                    _add(inner, *row.values())
                out.print(inner)


def print_agreements(
    found: Sequence[Agreement], truth: str, names: Sequence[str], matrix: np.ndarray, out: Console
) -> None:
    """Measures by rank agreement with the truth, then the protocols among themselves."""
    from medground_bench.scoring.rows import interval_text

    columns = ("row", "tau", "with controls", "methods", "LVLMs x modes x sets", "passes", "runs")
    table = _table(f"rank agreement with {truth} (Kendall's tau-b over methods)", columns)
    for a in found:
        cells = [interval_text(a.tau), interval_text(a.tau_controls), str(a.methods), str(a.strata)]
        _add(table, f"{a.protocol}.{a.measure}", *cells, f"{a.passes:.0f}", f"{a.runs:.1f}")
    out.print(table)
    out.print("passes and runs of the method: per record and submission, shared ones included", style="dim")
    if len(names) > 1:
        table = _table(
            "protocols among themselves (tau-b, by the measure in front)", ("row", *map(str, range(len(names))))
        )
        for k, name in enumerate(names):
            _add(table, f"{k} {name}", *("-" if v != v else f"{v:.2f}" for v in matrix[k].tolist()))
        out.print(table)


def _text(value: object) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)


_SCORES = ("IoU", "F1", "Precision", "Recall")
_CHANCE = ("skill (IoU)", "p (chance)", "reach")


def _only(scores: ScoreFile, one: object) -> ScoreFile:
    from dataclasses import replace

    return replace(scores, submissions=[s for s in scores.submissions if s is one])


def _cells(row: Row) -> list[str]:
    from medground_bench.scoring.rows import COLUMNS, interval_text

    scores = [interval_text(row.cell(key)) for key, _ in COLUMNS]
    return [row.title, str(row.records), str(row.clusters), *scores]


def _chance_cells(row: Row) -> list[str]:
    from medground_bench.scoring.rows import interval_text

    reach = "" if row.reach is None else f"{row.reach:.2f}"
    return [interval_text(row.skill), row.p_chance, reach] if row.kind in ("method", "control") else [""] * 3


def _style(row: Row) -> str | None:
    return None if row.kind == "method" else "dim"


def _also(row: Row) -> str:
    from medground_bench.scoring.rows import interval_text

    names = (
        ("coverage", "coverage"),
        ("fallback", "fallback"),
        ("degenerate", "degenerate"),
        ("area_ratio", "area ratio"),
        ("precision_lift", "precision lift"),
        ("pointing", "pointing game"),
        ("energy", "energy"),
        ("auprc", "AUPRC"),
        ("auprc_chance", "AUPRC chance"),
    )
    return "; ".join(f"{name} {interval_text(cell)}" for k, name in names if (cell := row.cell(k)) is not None)


def _cost(cost: object) -> str:
    """What the submission says a record costs, in the mean."""
    if not isinstance(cost, dict):
        return ""
    numbers = {key: value for key, value in cost.items() if isinstance(value, int | float)}
    if not {"forward", "backward", "seconds"} <= set(numbers):
        return ""
    return "; a record: {forward:g} passes forward, {backward:g} backward, {seconds:.2f} s".format(**numbers)


def _print_note(out: Console, rows: Iterable[Row]) -> None:
    """Why some rows have no interval."""
    from medground_bench.scoring import MIN_CLUSTERS

    if any(row.clusters < MIN_CLUSTERS for row in rows):
        out.print(f"no interval and no p-value from fewer than {MIN_CLUSTERS} patients", style="dim")


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=Text(printable(title)), title_justify="left", title_style="bold")
    for column in columns:
        text = column in ("records", "row", "first", "second")
        table.add_column(column, no_wrap=True, justify="left" if text else "right")
    return table


def _add(table: Table, *cells: str, style: str | None = None) -> None:
    """A row of texts as they stand: a name may look like markup, or hold what a terminal obeys."""
    table.add_row(*(Text(printable(cell)) for cell in cells), style=style)


def _pair_table(title: str, pairs: Sequence[PairComparison]) -> Table:
    from medground_bench.scoring.rows import interval_text, p_text

    table = _table(title, ("first", "second", "n", "patients", "difference", "p", "p (Holm)"))
    for p in pairs:
        r = p.result
        tests = [p_text(value, r.clusters) for value in (r.p_value, r.p_holm)]
        _add(table, r.first, r.second, str(p.records), str(r.clusters), interval_text(r.difference), *tests)
    return table
