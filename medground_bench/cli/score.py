"""``medground-bench score``: submissions against a dataset folder."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["command"]


def command(
    submissions: list[Path] = typer.Argument(..., help="Submission folders.", metavar="SUBMISSION..."),
    dataset: Path = typer.Option(..., help="Dataset folder they were made for."),
    config: str = typer.Option("direct", help="Config of the dataset folder."),
    out: Path = typer.Option(Path("scores.json"), help="Score file to write."),
    partial: bool = typer.Option(False, help="Score incomplete submissions: missing records count as not answered."),
    heatmaps: bool = typer.Option(True, help="Also score heat maps, where rows name them."),
    resamples: int = typer.Option(10_000, min=100, help="Bootstrap resamples (and sign flips) of patients."),
    tolerance: float = typer.Option(0.05, min=0.0, help="Pointing game: tolerance, share of the longer side."),
    source: list[str] = typer.Option(
        [],
        help="NAME=DIR, repeatable: phantoms tell their concepts (a ceiling); another source of the same images is a "
        "second annotator (the human row).",
    ),
    seed: int = typer.Option(0, min=0, help="Seed of the resamples and of the random chance row."),
) -> None:
    """Score submissions: the paper's four numbers between chance and ceilings, with 95 % intervals.

    A submission that is not valid, or was made for another dataset, is refused.
    """
    from medground_bench.cli._score_tables import console, print_scores
    from medground_bench.cli._sources import parse_sources
    from medground_bench.core.console import progress_bar
    from medground_bench.dataset.folder import open_folder
    from medground_bench.scoring import score_submissions, write_scores
    from medground_bench.sources import open_source

    sources = [open_source(name, root) for name, root in parse_sources(source).items()]
    folder = open_folder(dataset, config)
    with progress_bar("scoring") as progress:
        scores = score_submissions(
            submissions,
            folder,
            partial=partial,
            heatmaps=heatmaps,
            resamples=resamples,
            tolerance=tolerance,
            seed=seed,
            sources=sources,
            progress=progress,
        )
    write_scores(scores, out)
    print_scores(scores, console())
    typer.echo(f"written: {out}", err=True)
