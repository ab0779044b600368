"""``medground-bench xbench``: two-tower models, what they recognise and where they look."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import typer

from medground_bench.core.errors import MedGroundError


def command(
    lvlm: list[str] = typer.Option(..., help="Two-tower model: hub id or folder; repeat for several."),
    source: str = typer.Option(..., help="NAME=DIR of a source with boxes."),
    method: str = typer.Option("similarity_map", help="Methods that make the maps, separated by commas."),
    side: int = typer.Option(224, min=16, help="Side of the letterboxed frame in pixels."),
    limit: int | None = typer.Option(None, min=1, help="Only the first N images."),
    out: Path | None = typer.Option(None, help="Also write the rows as CSV."),
    device: str | None = typer.Option(None, help="cpu, cuda, cuda:1 ... (default: by what is there)."),
    dtype: str | None = typer.Option(None, help="float32, bfloat16 or float16 (default: by device)."),
) -> None:
    """Recognition (AUROC) and localisation (pointing game, IoU) per finding and size, and whether they go together."""
    import csv
    import dataclasses

    from rich.table import Table

    from medground_bench.attribution.method import get_method
    from medground_bench.cli._lvlm import load_for_command
    from medground_bench.cli._sources import parse_sources
    from medground_bench.core.console import progress_bar, stdout
    from medground_bench.core.files import atomic_write
    from medground_bench.scoring.xbench import XbenchRow, xbench
    from medground_bench.sources import open_source

    (name, folder), *more = parse_sources([source]).items()
    if more:
        raise MedGroundError("one source at a time: findings of different sources are not the same")
    keys = {Path(one).name: one for one in lvlm}
    if len(keys) < len(lvlm):
        raise MedGroundError("two models of one name", expected="folders or hub ids with different last parts")
    models = {key: partial(load_for_command, one, key=key, device=device, dtype=dtype) for key, one in keys.items()}
    methods = [get_method(one.strip()) for one in method.split(",") if one.strip()]
    with progress_bar("xbench") as progress:
        rows = xbench(models, open_source(name, folder), methods, side=side, limit=limit, progress=progress)
    table = Table("model", "method", "group", "n", "pointing", "IoU", "AUROC", "AUROC ~ IoU", box=None, pad_edge=False)
    for column in table.columns[3:]:
        column.justify = "right"
    for row in rows:
        numbers = [row.pointing, row.iou, row.auroc, row.correlation]
        cells = ["" if value != value else f"{value:.3f}" for value in numbers]
        table.add_row(row.model, row.method, row.group, str(row.candidates), *cells)
    stdout.print(table)
    if out is not None:
        with atomic_write(out) as file:
            writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(XbenchRow)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(map(dataclasses.asdict, rows))
