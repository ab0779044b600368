"""``medground-bench leaderboard``: a folder of score files on one page."""

from __future__ import annotations

from pathlib import Path

import typer

from medground_bench.core.errors import ScoringError, printable

__all__ = ["command"]


def command(
    results: Path = typer.Argument(..., help="Folder of score files (searched with its subfolders)."),
    out: Path = typer.Option(Path("leaderboard.html"), help="Page to write."),
    report: Path | None = typer.Option(
        None, help="Report of the same submissions: a row leads to a record there. Keep the two where they are."
    ),
    title: str = typer.Option("MedGround-Bench leaderboard", help="Title of the page."),
) -> None:
    """Write the leaderboard: methods x LVLM x mode x dataset, with intervals and chance rows.

    Nothing is written where no score file is found.

    Example: medground-bench leaderboard demo/results --out leaderboard.html
    """
    from medground_bench.pages import write_page
    from medground_bench.pages.leaderboard import collect_results, leaderboard_page, link_to
    from medground_bench.scoring import find_scores

    link = None if report is None else link_to(report, out)
    files, rejected = collect_results(results)
    for entry in rejected:
        typer.echo(printable(f"left out: {entry['path']}: {entry['reason']}"), err=True)
    if not files:
        find_scores([results])  # says what lies there instead
        raise ScoringError("none of the score files can be shown", where=results, remedy="score the submissions again")
    write_page(out, leaderboard_page(files, rejected, title=title, report=link))
    typer.echo(f"written: {out} ({sum(len(f.submissions) for f in files)} submissions)", err=True)
