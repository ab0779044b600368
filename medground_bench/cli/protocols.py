"""``medground-bench protocols``: what protocols are installed and what they need."""

from __future__ import annotations

__all__ = ["command"]


def command() -> None:
    """List the registered protocols: question, needs, cost per record, source."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from medground_bench.core.console import stdout
    from medground_bench.core.errors import ScoringError
    from medground_bench.scoring.protocols.protocol import available_protocols, get_protocol

    names = available_protocols()
    table = Table(title=f"{len(names)} protocols", title_justify="left", box=SIMPLE)
    for column in ("name", "asks", "needs", "cost per record", "source"):
        table.add_column(column, no_wrap=column == "name")
    for name in names:
        try:
            found = get_protocol(name)
        except ScoringError as error:
            table.add_row(name, f"[red]cannot be used[/red]: {escape(error.message)}")
            continue
        needs = ", ".join(found.needs) or "boxes only"
        table.add_row(*map(escape, (name, found.asks, needs, found.cost, found.reference)))
    (stdout if stdout.is_terminal else Console(width=180)).print(table)
