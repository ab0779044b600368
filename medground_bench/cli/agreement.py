"""``medground-bench agreement``: how well annotators match each other on the images they share."""

from __future__ import annotations

import typer

from medground_bench.cli._sources import parse_sources


def command(
    source: list[str] = typer.Option(..., help="NAME=DIR of a source; give two or more."),
    seed: int = typer.Option(0, min=0, help="Seed of the intervals' bootstrap."),
) -> None:
    """Compare the boxes of sources that annotate the same images: the human row to read box scores against."""
    from rich.table import Table

    from medground_bench.cli._score_tables import console
    from medground_bench.core.errors import ScoringError
    from medground_bench.scoring.agreement import agreement
    from medground_bench.sources import open_source

    folders = parse_sources(source)
    opened = [open_source(name, folder) for name, folder in folders.items()]
    rows = agreement(opened, seed=seed)
    if not rows:
        raise ScoringError(
            f"{', '.join(folders)} mark the same finding on no image that they share",
            expected="equal image ids: NIH images, or sources with a nih_names.json beside their annotations",
        )
    columns = (
        "boxes of",
        "against",
        "finding",
        "images",
        "patients",
        "boxes",
        "best IoU",
        "IoU",
        "precision",
        "recall",
        "F1",
    )
    table = Table(*columns, title="Annotators among themselves (95 % intervals by patient)", title_justify="left")
    for row in rows:
        scores = (row.best_iou, row.iou, row.precision, row.recall, row.f1)
        counts = map(str, (row.images, row.patients, row.boxes))
        table.add_row(row.first, row.second, row.finding, *counts, *map(_cell, scores))
    console().print(table)
    typer.echo("best IoU: mean over the first's boxes; the others: the second's boxes as a prediction of the first's.")


def _cell(interval: tuple[float, float, float]) -> str:
    value, low, high = interval
    # Too few patients for an interval: the value alone.
    return f"{value:.3f}" if low != low else f"{value:.3f} [{low:.3f}, {high:.3f}]"
