"""``medground-bench report``: one HTML page about submissions."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["command"]


def command(
    submissions: list[Path] = typer.Argument(
        ..., help="Submission folders, or folders that hold some.", metavar="SUBMISSION"
    ),
    dataset: Path = typer.Option(..., help="Dataset folder they were made for."),
    out: Path = typer.Option(Path("report.html"), help="Page to write."),
    scores: list[Path] = typer.Option(
        [], help="Score files (or folders of some) to use; submissions in none are scored here."
    ),
    verdicts: list[Path] = typer.Option([], help="Verdict folders of the causal filter, for the funnel."),
    records: int = typer.Option(60, min=1, help="Records in the gallery, at most; a seeded sample."),
    seed: int = typer.Option(0, min=0, help="Seed of that sample."),
    title: str = typer.Option("MedGround-Bench report", help="Title of the page."),
) -> None:
    """Write one self-contained page: scores beside chance, funnel, breakdowns and a gallery of records.

    A page with images of credentialed sources says so, and only its owner can read the file.

    Example: medground-bench report demo/submissions --dataset demo/medground-bench --verdicts demo/verdicts
    """
    from medground_bench.pages.report import write_report
    from medground_bench.scoring import find_scores, read_scores
    from medground_bench.submission import find_submissions

    path = write_report(
        out,
        dataset,
        find_submissions(submissions),
        scores=[read_scores(p) for p in find_scores(scores)],
        verdicts=verdicts,
        records=records,
        seed=seed,
        title=title,
    )
    typer.echo(f"written: {path}", err=True)
