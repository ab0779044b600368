"""``medground-bench compare``: methods side by side, with chance rows and paired comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medground_bench.core.errors import ScoringError, nearest

if TYPE_CHECKING:
    from medground_bench.scoring import ComparisonReport

__all__ = ["command"]

_LEVELS = ("all", "macro", "lvlm", "dataset", "dataset_macro", "size")


def command(
    scores: list[Path] = typer.Argument(
        ..., help="Score files of 'medground-bench score', or folders that hold some.", metavar="SCORES"
    ),
    out: list[Path] = typer.Option(
        [],
        help="Also write what is shown, by the file's name: .csv (all levels; pairs beside it in .pairs.csv), .json, "
        ".md, .tex, .png, .svg or .pdf; repeatable.",
    ),
    metric: str = typer.Option("iou", help="Metric of the comparisons shown: iou, precision, recall or f1."),
    level: str = typer.Option("all,dataset", help=f"Tables to show, separated by commas: {', '.join(_LEVELS)}."),
    resamples: int = typer.Option(10_000, min=100, help="Bootstrap resamples (and sign flips) of patients."),
    seed: int = typer.Option(0, min=0, help="Seed of the resamples."),
    published: bool = typer.Option(False, "--published", help="Also show the numbers that the paper states."),
) -> None:
    """Compare methods: pooled over LVLMs, beside chance; every pair, and each against chance, tested (Holm).

    Tests flip the signs of patients' differences; fewer than six patients give neither an interval nor a p-value.

    Example: medground-bench compare scores.json --metric f1 --level all,dataset
    """
    from medground_bench.cli._score_tables import console, print_comparison
    from medground_bench.pages.export import check_format
    from medground_bench.scoring import METRICS, compare_scores, find_scores, read_scores

    levels = [name.strip() for name in level.split(",") if name.strip()]
    _check("metric", [metric], METRICS)
    _check("level", levels, _LEVELS)
    for path in out:
        check_format(path)
    report = compare_scores([read_scores(path) for path in find_scores(scores)], resamples=resamples, seed=seed)
    for path in out:
        _write(report, path, {"resamples": resamples, "seed": seed}, levels)
    print_comparison(report, console(), levels=levels, metric=metric)
    if published:
        _print_published()
    for path in out:
        typer.echo(f"written: {path}", err=True)


def _check(what: str, values: list[str], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            expected = f"one of {', '.join(known)}"
            raise ScoringError(f"unknown {what} {value!r}", expected=expected, remedy=nearest(value, known))


def _write(report: ComparisonReport, path: Path, settings: dict[str, Any], levels: list[str]) -> None:
    from medground_bench.pages.export import Table, rows_figure, rows_table, write_table

    shown = [row for row in report.rows if row.aggregate.level in levels]
    title = "Comparison of attribution methods"
    data = {"settings": settings, "rows": report.flat_rows(), "pairs": report.flat_pairs()}
    table = rows_table(shown, title)
    write_table(path, table, flat=report.flat_rows(), data=data, figure=lambda: rows_figure(shown, title))
    if path.suffix.lower() == ".csv" and report.against_chance:
        write_table(path.with_suffix(".pairs.csv"), Table("", (), ()), flat=report.flat_pairs())


def _print_published() -> None:
    from medground_bench.core.console import stdout
    from medground_bench.scoring.published import published_note, published_numbers

    stdout.print("published:", style="bold")
    for one in published_numbers():
        line = f"  {one.method}, {one.dataset}, {one.mode}: {one.metric} {one.value:.4f}"
        stdout.print(line, markup=False, highlight=False, soft_wrap=True)
    stdout.print(f"  ({published_note()})", markup=False, highlight=False, soft_wrap=True)
