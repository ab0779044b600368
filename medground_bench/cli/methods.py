"""``medground-bench methods``: what attribution methods are installed and what they need."""

from __future__ import annotations

from enum import Enum
from typing import Any

import typer


class Format(str, Enum):
    """How the list is printed."""

    table = "table"
    json = "json"


def command(
    format: Format = typer.Option(Format.table, "--format", help="A table to read, or JSON with the parameters."),
    long: bool = typer.Option(False, "--long", help="Formula, signs, question-awareness and parameters of each."),
) -> None:
    """List the registered attribution methods: family, needs, cost per record, reference."""
    from medground_bench.attribution.method import describe_methods

    methods = describe_methods()
    if format is Format.json:
        import json

        typer.echo(json.dumps(methods, indent=2))
        return
    if long:
        for entry in methods:
            _tell(entry)
        return
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from medground_bench.core.console import stdout

    table = Table(
        title=f"{len(methods)} attribution methods",
        caption="F, B: forward and backward passes per record. In full: --long; parameters and defaults: --format json",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE,
    )
    for name in ("name", "family", "needs", "cost per record", "reference"):
        table.add_column(name, no_wrap=name in {"name", "family"})
    for entry in methods:
        if entry["error"]:
            reason = entry["error"].splitlines()[0]
            table.add_row(entry["name"], "", "[red]cannot be used[/red]", "", escape(reason))
        else:
            needs = ", ".join(need.replace("_", " ") for need in entry["needs"]) or "scores only"
            table.add_row(*map(escape, (entry["name"], entry["family"], needs, entry["cost"], entry["reference"])))
    # A pipe has no width of its own; 80 columns would fold every line.
    (stdout if stdout.is_terminal else Console(width=140)).print(table)


def _tell(entry: dict[str, Any]) -> None:
    """One method in full."""
    if entry["error"]:
        typer.echo(f"{entry['name']}: cannot be used: {entry['error'].splitlines()[0]}\n")
        return
    facts = {
        "formula": entry["formula"],
        "cost": entry["cost"],
        "needs": ", ".join(need.replace("_", " ") for need in entry["needs"]) or "scores only",
        "signed": "yes" if entry["signed"] else "no",
        "question-aware": "yes" if entry["question_aware"] else "no",
        "parameters": ", ".join(f"{name}={value!r}" for name, value in entry["parameters"].items()) or "none",
        "reference": entry["reference"],
    }
    typer.echo(f"{entry['name']} ({entry['family']})")
    for name, text in facts.items():
        typer.echo(f"  {name:<15} {text}")
    typer.echo()
