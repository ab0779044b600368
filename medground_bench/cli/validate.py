"""``medground-bench validate``: what is wrong with a submission, row by row."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from medground_bench.submission import ValidationReport

__all__ = ["command"]


class Format(str, Enum):
    """How the report is printed."""

    text = "text"
    json = "json"


def command(
    submissions: list[Path] = typer.Argument(
        ...,
        help="Folders with submission.json and predictions.jsonl, or folders of such folders.",
        metavar="SUBMISSION",
    ),
    dataset: Path | None = typer.Option(
        None, help="Dataset folder it was made for; without it only the files' form is checked."
    ),
    config: str | None = typer.Option(None, help="Config of the dataset folder (default: the submission's mode)."),
    format_: Format = typer.Option(Format.text, "--format", help="text for people, json for machines."),
    strict: bool = typer.Option(False, help="Warnings also make it not valid."),
) -> None:
    """Check submissions and list every faulty row with its line, id, field and remedy.

    Exit code 0: all are valid. 1: one is not. --format json prints one object, a list of several submissions.

    Example: medground-bench validate demo/submissions/toy_qwen/direct/occlusion --dataset demo/medground-bench
    """
    import json

    from medground_bench.submission import find_submissions, validate_submission

    folders = find_submissions(submissions)
    reports = [validate_submission(folder, dataset, config) for folder in folders]
    valid = [report.valid and not (strict and report.warnings) for report in reports]
    if format_ is Format.json:
        said = [{**report.to_json(), "valid": ok} for report, ok in zip(reports, valid, strict=True)]
        typer.echo(json.dumps(said[0] if len(said) == 1 else said, indent=2))
    else:
        for folder, report, ok in zip(folders, reports, valid, strict=True):
            if len(folders) > 1:
                typer.echo(f"{folder}:")
            _print(report, ok, checked=dataset is not None)
        if len(folders) > 1:
            typer.echo(f"{sum(valid)} of {len(folders)} submissions are valid")
    raise typer.Exit(0 if all(valid) else 1)


def _print(report: ValidationReport, valid: bool, *, checked: bool) -> None:
    for fault in report.faults:
        typer.echo(f"error: {fault}")
    if report.unlisted:
        typer.echo(f"error: {sum(report.unlisted.values())} more faults are not listed: correct these first")
    for warning in report.warnings:
        typer.echo(f"warning: {warning}")
    counts = ", ".join(f"{count} {code}" for code, count in report.counts().items())
    note = "" if checked else " (form only: give --dataset to check ids and image bounds)"
    typer.echo(
        f"{'valid' if valid else 'not valid'}: {report.rows} rows, {report.count} faults"
        f"{f' ({counts})' if counts else ''}, {len(report.warnings)} warnings{note}"
    )
