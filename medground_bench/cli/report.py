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
    out: list[Path] = typer.Option(
        [Path("report.html")],
        help="Page (.html) to write; or its main table, by the name: .csv, .json, .md, .tex, .png, .svg or .pdf. "
        "Repeatable.",
    ),
    scores: list[Path] = typer.Option(
        [], help="Score files (or folders of some) to use; submissions in none are scored here."
    ),
    verdicts: list[Path] = typer.Option(
        [], help="Verdict folders of the causal filter, for the funnel and the edited images."
    ),
    source: list[str] = typer.Option(
        [],
        help="NAME=DIR, repeatable: phantoms tell which predictions lie in the wrong organ, and in which place of the "
        "chest those that are scored here.",
        metavar="NAME=DIR",
    ),
    localizer: str = typer.Option(
        "", help="Finds the places of the chest on other images that are scored here, e.g. multi_atlas."
    ),
    pool: str = typer.Option("", help="Reference pool of the localizer (default: its own)."),
    places: list[Path] = typer.Option(
        [],
        help="Also write the share of attribution per place and finding, with intervals, by the name: .csv, .json, "
        ".md or .tex. Repeatable.",
    ),
    pictures: list[Path] = typer.Option(
        [],
        help="Also write the mean map of every method from its best to its worst records (AggAtt), by the name: .png, "
        ".svg or .pdf; numbers: .csv, .json, .md or .tex. Repeatable.",
    ),
    records: int = typer.Option(
        60,
        min=1,
        help="Records in the gallery, at most; a seeded sample. Of more than 200 the pictures lie in a folder beside "
        "the page.",
    ),
    seed: int = typer.Option(0, min=0, help="Seed of that sample."),
    title: str = typer.Option("MedGround-Bench report", help="Title of the page."),
) -> None:
    """Write one page: scores between chance and ceiling, what goes wrong, two methods side by side, every record.

    A page with images of credentialed sources says so, and only its owner can read the file.

    Example: medground-bench report demo/submissions --dataset demo/medground-bench --verdicts demo/verdicts
    """
    from medground_bench.cli._sources import parse_sources
    from medground_bench.core.errors import MedGroundError
    from medground_bench.pages.export import check_format, write_rows, write_table
    from medground_bench.pages.report import scored, write_report
    from medground_bench.pages.report.aggregated import aggregated, write_aggregated
    from medground_bench.pages.report.tables import place_export
    from medground_bench.scoring import find_scores, read_scores, submission_rows
    from medground_bench.sources import open_source
    from medground_bench.sources.planted import load_localizer
    from medground_bench.submission import find_submissions

    for path in out:
        check_format(path, others=(".html",))
    for path in (*places, *pictures):
        check_format(path)
    find = load_localizer(localizer, **({"pool": pool} if pool else {})) if localizer else None
    known = [open_source(name, root) for name, root in parse_sources(source).items()]
    found = find_submissions(submissions)
    given = [read_scores(p) for p in find_scores(scores)]
    folders, files = scored(dataset, found, given, sources=known, localizer=find)
    table, flat = place_export(files) if places else (None, [])
    if table is not None and not flat:
        raise MedGroundError(
            "the anatomy of no image is known, so that no attribution lies in a known place",
            expected="scores made with it, or submissions that are scored here",
            remedy="give --source or --localizer, here or to medground-bench score",
        )
    for path in places:
        if table is not None:
            write_table(path, table, flat=flat, data={"title": table.title, "rows": flat})
            typer.echo(f"written: {path}", err=True)
    maps = aggregated(folders, files, found, seed=seed) if pictures else []
    for path in pictures:
        typer.echo(f"written: {write_aggregated(path, maps)}", err=True)
    for path in out:
        if path.suffix.lower() == ".html":
            write_report(
                path,
                dataset,
                found,
                scores=files,
                verdicts=verdicts,
                sources=known,
                records=records,
                seed=seed,
                title=title,
            )
        else:
            write_rows(path, list(submission_rows(files, ("all", "dataset"))), title=title)
        typer.echo(f"written: {path}", err=True)
