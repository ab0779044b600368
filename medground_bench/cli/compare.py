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
        [], help="Also write a .json file, or a .csv file (pairs beside it in .pairs.csv); repeatable."
    ),
    metric: str = typer.Option("iou", help="Metric of the comparisons shown: iou, precision, recall or f1."),
    level: str = typer.Option("all,dataset", help=f"Tables to show, separated by commas: {', '.join(_LEVELS)}."),
    resamples: int = typer.Option(10_000, min=100, help="Bootstrap resamples (and sign flips) of patients."),
    seed: int = typer.Option(0, min=0, help="Seed of the resamples."),
) -> None:
    """Compare methods: pooled over LVLMs, beside chance; every pair, and each against chance, tested (Holm).

    Tests flip the signs of patients' differences; fewer than six patients give neither an interval nor a p-value.

    Example: medground-bench compare scores.json --metric f1 --level all,dataset
    """
    from medground_bench.cli._score_tables import console, print_comparison
    from medground_bench.scoring import METRICS, compare_scores, find_scores, read_scores

    levels = [name.strip() for name in level.split(",") if name.strip()]
    _check("metric", [metric], METRICS)
    _check("level", levels, _LEVELS)
    for path in out:
        _check("--out ending", [path.suffix], (".json", ".csv"))
    report = compare_scores([read_scores(path) for path in find_scores(scores)], resamples=resamples, seed=seed)
    for path in out:
        _write(report, path, {"resamples": resamples, "seed": seed})
    print_comparison(report, console(), levels=levels, metric=metric)
    for path in out:
        typer.echo(f"written: {path}", err=True)


def _check(what: str, values: list[str], known: tuple[str, ...]) -> None:
    for value in values:
        if value not in known:
            expected = f"one of {', '.join(known)}"
            raise ScoringError(f"unknown {what} {value!r}", expected=expected, remedy=nearest(value, known))


def _write(report: ComparisonReport, path: Path, settings: dict[str, Any]) -> None:
    import json

    from medground_bench.core.files import atomic_write

    if path.suffix == ".json":
        data = {"settings": settings, "rows": report.flat_rows(), "pairs": report.flat_pairs()}
        with atomic_write(path) as file:
            json.dump(data, file, indent=1, allow_nan=False)
            file.write("\n")
        return
    _write_csv(report.flat_rows(), path)
    if report.against_chance:
        _write_csv(report.flat_pairs(), path.with_suffix(".pairs.csv"))


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    import csv

    from medground_bench.core.files import atomic_write

    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
