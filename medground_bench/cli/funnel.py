"""``medground-bench funnel``: how many candidates the causal filter left at each gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from medground_bench.causal.funnel import FunnelRow


def command(
    verdicts: list[Path] = typer.Argument(..., help="Folder(s) written by 'medground-bench filter'."),
    by: str = typer.Option("source", help="One row per: lvlm, source or attribute."),
    plot: Path | None = typer.Option(None, help="Write the funnel as a picture (.svg)."),
    csv: Path | None = typer.Option(None, help="Write the table (.csv)."),
) -> None:
    """Count candidates at each gate of the causal filter, as a table and a plot."""
    from rich.console import Console
    from rich.table import Table

    from medground_bench.causal.funnel import GROUPS, read_funnel, write_plot
    from medground_bench.core.console import stdout

    rows = read_funnel(verdicts, by)
    names = [{"model": "LVLM", "dataset": "source"}.get(n, n) for n in GROUPS[by]]
    table = Table(*names, box=None, pad_edge=False, header_style="bold")
    counts = ("candidates", "correct", "foreground", "background", "normal = kept", "undecided", "flagged", "errors")
    for name in counts:
        table.add_column(name, justify="right")
    for row in rows:
        cells = [count for _, count in row.steps()] + [row.undecided, row.flagged, row.errors]
        table.add_row(*row.group, *(f"{c:,}" for c in cells))
    # In a file or a pipe every row stands on one line, whatever its width.
    (stdout if stdout.is_terminal else Console(width=240)).print(table)
    if any(row.flagged for row in rows):
        stdout.print(
            "flagged: an edit looks as if it had failed (nothing changed where it should, or much where it should "
            "not); the candidate is judged all the same",
            style="dim",
            soft_wrap=True,
        )
    skipped = sum(row.skipped for row in rows)
    if skipped:
        stdout.print(f"{skipped} candidates have no valid evidence box and were not judged", style="dim")
    if plot is not None:
        write_plot(rows, plot)
    if csv is not None:
        _write_csv(csv, names, rows)


def _write_csv(path: Path, names: list[str], rows: list[FunnelRow]) -> None:
    import csv

    from medground_bench.core.files import atomic_write
    from medground_bench.core.schema import GATES

    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*names, "candidates", *GATES, "undecided", "flagged", "errors", "skipped"])
        for row in rows:
            writer.writerow(
                [*row.group, row.candidates, *row.passed.values(), row.undecided, row.flagged, row.errors, row.skipped]
            )
