"""``medground-bench score``: submissions against a dataset folder."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["command"]


def command(
    submissions: list[Path] = typer.Argument(
        ..., help="Submission folders, or folders that hold some.", metavar="SUBMISSION"
    ),
    dataset: Path = typer.Option(..., help="Dataset folder they were made for."),
    config: str | None = typer.Option(None, help="Config of the dataset folder (default: each submission's mode)."),
    out: Path = typer.Option(
        Path("scores.json"), help="Score file to write; of submissions in two modes, one each: scores.MODE.json."
    ),
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

    Example: medground-bench score demo/submissions --dataset demo/medground-bench --out scores.json
    """
    from medground_bench.cli._score_tables import console, print_scores
    from medground_bench.cli._sources import parse_sources
    from medground_bench.core.console import progress_bar
    from medground_bench.dataset.folder import DatasetFolder, open_folder, open_for_mode
    from medground_bench.scoring import score_submissions, write_scores
    from medground_bench.sources import open_source
    from medground_bench.submission import find_submissions, open_submission

    sources = [open_source(name, root) for name, root in parse_sources(source).items()]
    groups: dict[str, tuple[DatasetFolder, list[Path]]] = {}
    for path in find_submissions(submissions):
        mode = str(open_submission(path).header["mode"])
        folder = open_folder(dataset, config) if config is not None else open_for_mode(dataset, mode)
        groups.setdefault(folder.config, (folder, []))[1].append(path)
    for name, (folder, paths) in groups.items():
        with progress_bar(f"scoring {name}") as progress:
            scores = score_submissions(
                paths,
                folder,
                partial=partial,
                heatmaps=heatmaps,
                resamples=resamples,
                tolerance=tolerance,
                seed=seed,
                sources=sources,
                progress=progress,
            )
        target = out if len(groups) == 1 else out.with_name(f"{out.stem}.{name}{out.suffix}")
        write_scores(scores, target)
        print_scores(scores, console())
        typer.echo(f"written: {target}", err=True)
