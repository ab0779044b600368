"""``medground-bench lvlms``: which LVLMs are read, how deep, what was tested; and a check of servers."""

from __future__ import annotations

import typer


def command(
    survey: bool = typer.Option(False, help="Try everything on small models of the real classes; print the table."),
    family: list[str] = typer.Option([], help="Only these families of the survey."),
    check: str | None = typer.Option(None, help="Check a server: openai:MODEL@http://HOST:PORT/v1."),
    against: str | None = typer.Option(None, help="The same model here (key, hub id or folder), to compare with."),
) -> None:
    """List families, levels and known medical checkpoints; survey what works; check a server."""
    if check is not None:
        _check(check, against)
    elif survey:
        _survey(family)
    else:
        _list()


def _list() -> None:
    from rich.table import Table

    from medground_bench.core.console import stdout
    from medground_bench.lvlm.catalogue import OUTSIDE, catalogue
    from medground_bench.lvlm.loading import check_dependencies
    from medground_bench.lvlm.testing import GENERIC

    check_dependencies()
    tested = {"qwen2_5_vl", "gemma3", "clip", "siglip", *GENERIC}
    table = Table("family", "level", "tested on", "medical checkpoints (not loaded here)", box=None, pad_edge=False)
    rest = []
    for entry in catalogue():
        if entry.level == "measured" and not entry.checkpoints:
            rest.append(entry.family)
            continue
        how = "small models of the real class" if entry.family in tested else "nothing"
        table.add_row(entry.family, entry.level, how, ", ".join(entry.checkpoints))
    stdout.print(table)
    stdout.print(
        "\nread by their own processor, geometry measured, not tested one by one: " + ", ".join(rest),
        highlight=False,
        soft_wrap=True,
    )
    for name, reason in OUTSIDE.items():
        stdout.print(f"not read: {name} ({reason})", highlight=False, soft_wrap=True)


def _survey(families: list[str]) -> None:
    from medground_bench.attribution.survey import markdown
    from medground_bench.attribution.survey import survey as run
    from medground_bench.core.console import progress_bar
    from medground_bench.lvlm.loading import check_dependencies
    from medground_bench.lvlm.testing import GENERIC

    check_dependencies()
    with progress_bar("survey") as progress:
        rows = list(run(families or ["qwen2_5_vl", "gemma3", *GENERIC], progress=progress))
    typer.echo(markdown(rows), nl=False)


def _check(address: str, against: str | None) -> None:
    from medground_bench.cli._lvlm import load_for_command
    from medground_bench.lvlm.server.conformance import check_server
    from medground_bench.lvlm.server.model import ServerLvlm

    local = load_for_command(against) if against else None
    server = ServerLvlm.connect(address, local=local)
    for name, value in check_server(server, local=local).items():
        typer.echo(f"{name}: {value}")
    typer.echo("conforms" if local else "conforms (its values are compared with nothing: give --against)")
