"""``medground-bench verify``: whether a copy of a source is complete and sound."""

from __future__ import annotations

import typer

from medground_bench.cli._sources import parse_sources


def command(
    source: list[str] = typer.Option(..., help="NAME=DIR of a source; repeat."),
    headers: bool = typer.Option(False, help="Only look at the images' headers instead of decoding them."),
    limit: int = typer.Option(20, min=0, help="Problems to print per kind; 0 prints all."),
) -> None:
    """Check copies of sources: candidates, images, boxes, released positions; exit code 1 on problems."""
    from medground_bench.core.console import progress_bar
    from medground_bench.core.errors import MedGroundError
    from medground_bench.sources.verify import verify_source

    sound = True
    for name, folder in parse_sources(source).items():
        try:
            with progress_bar(f"verifying {name}") as progress:
                report = verify_source(name, folder, decode=not headers, progress=progress)
        except MedGroundError as error:
            typer.secho(f"{name}: cannot be read\n{error}", fg=typer.colors.RED)
            sound = False
            continue
        sound = sound and report.sound
        typer.secho(f"{name}: {'sound' if report.sound else 'problems'}", bold=True)
        for title, value in report.facts().items():
            typer.echo(f"  {title:<28} {value}")
        for title, problems in {**report.problems(), "note": report.notes}.items():
            shown = problems if limit == 0 else problems[:limit]
            for problem in shown:
                typer.echo(f"  {title}: {problem}")
            if len(problems) > len(shown):
                typer.echo(f"  {title}: ... and {len(problems) - len(shown)} more (--limit 0 prints all)")
    if not sound:
        raise typer.Exit(1)
