"""``medground-bench evaluate``: protocols beyond overlap on submissions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medground_bench.core.errors import MedGroundError

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.result import ProtocolResult

__all__ = ["command"]


def command(
    submissions: list[Path] = typer.Argument(
        ..., help="Submission folders of one LVLM, or a folder of some.", metavar="SUBMISSION"
    ),
    protocol: list[str] = typer.Option(..., help="Protocol(s): repeat, or separate by commas; 'all' for all."),
    dataset: Path = typer.Option(..., help="Dataset folder they were made for."),
    out: Path = typer.Option(..., help="Folder for the results; run again to resume."),
    config: str = typer.Option("direct", help="Config of the dataset folder."),
    lvlm: str | None = typer.Option(None, help="Key, hub id or folder of the submissions' LVLM."),
    lvlm_key: str | None = typer.Option(
        None, help="Key of the LVLM in the records, when --lvlm is a folder or hub id."
    ),
    source: list[str] = typer.Option([], help="NAME=DIR, repeatable: patients, masks and counterfactuals of records."),
    editor: str | None = typer.Option(None, help="Counterfactual editor, e.g. phantom, planted or radedit."),
    editor_set: list[str] = typer.Option([], help="Setting of the editor: NAME=VALUE."),
    set_: list[str] = typer.Option(
        [], "--set", help="Parameter: PROTOCOL.NAME=VALUE, or NAME=VALUE for all that have it."
    ),
    limit: int | None = typer.Option(None, min=1, help="Only the first N records, for a trial."),
    cache: Path | None = typer.Option(
        None, help="Folder of the LVLM's scores of edited images, shared with other runs and with generate --cache."
    ),
    dtype: str | None = typer.Option(None, help="float32, bfloat16 or float16 (default: by device)."),
    device: str | None = typer.Option(None, help="cpu, cuda, cuda:1 ... (default: by what is there)."),
    resamples: int = typer.Option(10_000, min=100, help="Bootstrap resamples of patients."),
) -> None:
    """Evaluate submissions by protocols: is the map faithful, stable, fair? 'medground-bench protocols' lists them.

    What a submission, or this run, lacks for a protocol is told in a line, and the other protocols go on. Several
    processes share the records: accelerate launch -m medground_bench evaluate ...
    """
    from medground_bench.causal.editors import load_editor
    from medground_bench.cli._lvlm import load_for_command
    from medground_bench.cli._sources import parse_sources
    from medground_bench.core.console import progress_bar, stderr, stdout
    from medground_bench.core.processes import process_group
    from medground_bench.core.settings import parse_settings_for, parse_settings_of
    from medground_bench.dataset.folder import open_folder
    from medground_bench.scoring.protocols.protocol import available_protocols, get_protocol
    from medground_bench.scoring.protocols.run import run_protocols
    from medground_bench.sources import open_source
    from medground_bench.submission import find_submissions

    names = [n.strip() for value in protocol for n in value.split(",") if n.strip()]
    names = available_protocols() if names == ["all"] else names
    parameters = {n: [f.name for f in dataclasses.fields(get_protocol(n).parameters)] for n in names}
    settings = parse_settings_of(parameters, set_)
    sources = [open_source(name, root) for name, root in parse_sources(source).items()]
    folder = open_folder(dataset, config)
    group = process_group()
    model = None if lvlm is None else load_for_command(lvlm, key=lvlm_key, dtype=dtype, device=group.device(device))
    with progress_bar("evaluating", resumes=True) as progress:
        report = run_protocols(
            find_submissions(submissions),
            folder,
            names,
            out,
            lvlm=model,
            editor=None if editor is None else load_editor(editor, **parse_settings_for(editor, editor_set)),
            sources=sources,
            settings=settings,
            limit=limit,
            cache=cache,
            rank=group.rank,
            world_size=group.world_size,
            resamples=resamples,
            progress=progress,
        )
    for line in report.missing:
        stderr.print(f"left out: {line}", markup=False, highlight=False, soft_wrap=True)
    _print(list(report.results.values()), stdout)
    stderr.print(
        f"{report.computed} computed, {report.reused} found from earlier runs; "
        f"{report.count.passes} passes made, {report.count.found} found in the cache"
    )
    for path in report.paths:
        stderr.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)
    if report.errors:
        raise MedGroundError(
            f"{len(report.errors)} failed:\n  " + "\n  ".join(report.errors[:20]),
            remedy="run the same command again to try those once more",
        )
    if not report.results and not report.reused + report.computed:
        raise MedGroundError("no protocol could be run", remedy="the lines above say what each of them needs")


def _print(results: list[ProtocolResult], console: Any) -> None:
    from rich.console import Console

    from medground_bench.cli._score_tables import print_protocol

    out = console if console.is_terminal else Console(width=180)
    for name in dict.fromkeys(result.protocol for result in results):
        print_protocol([result for result in results if result.protocol == name], out)
