"""``medground-bench validate``: what is wrong with a submission, row by row."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import typer

__all__ = ["command"]


class Format(str, Enum):
    """How the report is printed."""

    text = "text"
    json = "json"


def command(
    submission: Path = typer.Argument(..., help="Folder with submission.json and predictions.jsonl."),
    dataset: Path | None = typer.Option(
        None, help="Dataset folder it was made for; without it only the files' form is checked."
    ),
    config: str | None = typer.Option(None, help="Config of the dataset folder (default: the submission's mode)."),
    format_: Format = typer.Option(Format.text, "--format", help="text for people, json for machines."),
    strict: bool = typer.Option(False, help="Warnings also make it not valid."),
) -> None:
    """Check a submission and list every faulty row with its line, id, field and remedy.

    Exit code 0: valid. 1: not valid.
    """
    import json

    from medground_bench.dataset.folder import open_folder
    from medground_bench.submission import validate_submission

    folder = open_folder(dataset, config) if dataset is not None and config is not None else dataset
    report = validate_submission(submission, folder)
    valid = report.valid and not (strict and report.warnings)
    if format_ is Format.json:
        typer.echo(json.dumps({**report.to_json(), "valid": valid}, indent=2))
    else:
        for fault in report.faults:
            typer.echo(f"error: {fault}")
        if report.unlisted:
            typer.echo(f"error: {sum(report.unlisted.values())} more faults are not listed: correct these first")
        for warning in report.warnings:
            typer.echo(f"warning: {warning}")
        counts = ", ".join(f"{count} {code}" for code, count in report.counts().items())
        checked = "" if dataset is not None else " (form only: give --dataset to check ids and image bounds)"
        verdict = "valid" if valid else "not valid"
        typer.echo(
            f"{verdict}: {report.rows} rows, {report.count} faults{f' ({counts})' if counts else ''}, "
            f"{len(report.warnings)} warnings{checked}"
        )
    raise typer.Exit(0 if valid else 1)
