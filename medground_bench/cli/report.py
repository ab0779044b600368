"""``medground-bench report``: one HTML page about submissions."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["command"]


def command(
    submissions: list[Path] = typer.Argument(..., help="Submission folders.", metavar="SUBMISSION..."),
    dataset: Path = typer.Option(..., help="Dataset folder they were made for."),
    out: Path = typer.Option(Path("report.html"), help="Page to write."),
    scores: list[Path] = typer.Option([], help="Score files to use; submissions in none of them are scored here."),
    verdicts: list[Path] = typer.Option([], help="Verdict folders of the causal filter, for the funnel."),
    records: int = typer.Option(60, min=1, help="Records in the gallery, at most; a seeded sample."),
    seed: int = typer.Option(0, min=0, help="Seed of that sample."),
    title: str = typer.Option("MedGround-Bench report", help="Title of the page."),
) -> None:
    """Write one self-contained page: scores beside chance, funnel, breakdowns and a gallery of records.

    A page with images of credentialed sources says so, and only its owner can read the file.
    """
    from medground_bench.pages.report import write_report
    from medground_bench.scoring import read_scores

    path = write_report(
        out,
        dataset,
        submissions,
        scores=[read_scores(p) for p in scores],
        verdicts=verdicts,
        records=records,
        seed=seed,
        title=title,
    )
    typer.echo(f"written: {path}", err=True)
