"""``medground-bench atlas``: make a pool of reference radiographs for MedFocus."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    out: Path = typer.Option(..., "--out", help="Folder to write the pool to (replaced if it is a pool)."),
    imagenome: Path | None = typer.Option(
        None, "--imagenome", help="Folder with the Chest ImaGenome gold set and MIMIC-CXR-JPG: real references."
    ),
    phantom: bool = typer.Option(False, "--phantom", help="Make the pool of phantoms that ships with the project."),
    count: int = typer.Option(16, "--count", min=1, help="Number of references."),
) -> None:
    """Make the reference pool that MedFocus transfers anatomy from.

    With --imagenome: normal studies whose boxes cover the 11 concepts; the pool stays on this machine (its data are
    credentialed). With --phantom: procedural references. Your own radiographs need no command: write DIR/pool.json.
    """
    if (imagenome is None) == (not phantom):
        raise typer.BadParameter("give either --imagenome DIR or --phantom")
    from medfocus import build

    if imagenome is not None:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("reading references", total=count)
            pool = build.imagenome_pool(imagenome, count, lambda done, total: bar.update(task, completed=done))
        notes = build.IMAGENOME_NOTES
    else:
        pool, notes = build.phantom_pool(count), build.PHANTOM_NOTES
    pool.to_folder(out, notes)
    typer.echo(f"{len(pool)} references, {len(pool.concepts)} concepts -> {out}")
    if imagenome is not None:
        typer.echo("This folder holds credentialed data: keep it on this machine and never publish it.")
