"""``medground-bench generate``: run attribution methods and write submissions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medground_bench.core.errors import MedGroundError

if TYPE_CHECKING:
    from medground_bench.attribution.plan import MethodPlan


def command(
    dataset: Path = typer.Option(..., help="Dataset folder written by 'medground-bench build'."),
    config: str = typer.Option("direct", help="Config of the folder: direct or reason."),
    lvlm: str = typer.Option(..., help="LVLM key, hub id, folder or openai:MODEL@http://HOST:PORT/v1."),
    method: list[str] = typer.Option(..., help="Registered method(s): repeat, or separate by commas; 'all' for all."),
    out: Path = typer.Option(..., help="Folder for the submissions: they come to lie at LVLM/MODE/METHOD in it."),
    lvlm_key: str | None = typer.Option(
        None, help="Key of the LVLM in the records, when --lvlm is a folder or hub id."
    ),
    name: str | None = typer.Option(
        None, help="Name of the submission instead of its method's: variants of one method lie beside each other."
    ),
    set_: list[str] = typer.Option(
        [], "--set", help="Parameter: METHOD.NAME=VALUE (JSON or text), or NAME=VALUE for every method that has it."
    ),
    limit: int | None = typer.Option(None, min=1, help="Only the first N records, for a trial."),
    side: int = typer.Option(224, min=0, help="Side of the letterboxed frame in pixels; 0 feeds the native image."),
    dtype: str | None = typer.Option(None, help="float32, bfloat16 or float16 (default: by device)."),
    device: str | None = typer.Option(None, help="cpu, cuda, cuda:1 ... or auto to spread (default: what is there)."),
    bits: int | None = typer.Option(None, help="Load the weights in 8 or 4 bits (bitsandbytes)."),
    attention: str | None = typer.Option(None, help="Attention kernel of the model, e.g. sdpa or eager."),
    decoding: list[str] = typer.Option(
        [], help="Logits processor beside greedy decoding: NAME=VALUE, e.g. repetition_penalty=1.05 (default: none)."
    ),
    plan: bool = typer.Option(False, "--plan", help="Print passes, hours and storage by method, and stop."),
    plan_sample: int = typer.Option(2, min=1, help="Records measured for --plan."),
    method_timeout: float | None = typer.Option(
        None, min=0.001, help="Seconds that a method may take for a record; what takes longer fails on that record."
    ),
    answer_errors: bool = typer.Option(
        False, help="Answer records whose method failed with no boxes instead of withholding the submission."
    ),
    heatmaps: bool = typer.Option(True, help="Save heat maps beside the predictions."),
    cache: Path | None = typer.Option(
        None, help="Folder that keeps the LVLM's scores of edited images: methods, and evaluate --cache, share passes."
    ),
    authors: str = typer.Option("", help="Who submits."),
    licence: str = typer.Option("CC-BY-4.0", help="Licence of the predictions."),
) -> None:
    """Generate submissions: any LVLM, any registered methods; run again to resume.

    Over several GPUs or nodes: accelerate launch -m medground_bench generate ...

    Example: medground-bench generate --dataset demo/medground-bench --lvlm toy_qwen --method occlusion,lrp
    --set occlusion.rows=4 --out submissions
    """
    from medground_bench.attribution.generate import generate
    from medground_bench.attribution.method import available_methods, get_method
    from medground_bench.cli._lvlm import load_for_command
    from medground_bench.core.console import progress_bar, stderr
    from medground_bench.core.processes import process_group
    from medground_bench.core.settings import parse_settings, parse_settings_of
    from medground_bench.dataset.folder import open_folder

    names = [n.strip() for value in method for n in value.split(",") if n.strip()]
    every = [m for m in map(get_method, available_methods()) if "two_towers" not in m.needs] if names == ["all"] else []
    methods = every or [get_method(n) for n in dict.fromkeys(names)]
    parameters = {m.name: [f.name for f in dataclasses.fields(m.parameters)] for m in methods}
    settings = parse_settings_of(parameters, set_)
    if name is not None:
        if len(methods) != 1:
            raise MedGroundError(f"--name {name} for {len(methods)} methods", expected="one --method with a --name")
        settings = dict.fromkeys([name], settings.get(methods[0].name, {}))
        methods = [methods[0].named(name)]
    folder = open_folder(dataset, config)
    group = process_group()
    model = load_for_command(
        lvlm,
        key=lvlm_key,
        dtype=dtype,
        device=group.device(device),
        attention=attention,
        bits=bits,
        decoding=parse_settings("decoding", decoding),
    )
    if plan:
        from medground_bench.attribution.plan import plan_generate

        with progress_bar("plan") as progress:
            plans = plan_generate(
                folder,
                model,
                methods,
                settings=settings,
                side=side or None,
                limit=limit,
                sample=plan_sample,
                progress=progress,
            )
        _print_plan(plans, group.world_size)
        return
    with progress_bar(f"{model.key} {config}", resumes=True) as progress:
        report = generate(
            folder,
            model,
            methods,
            out,
            settings=settings,
            side=side or None,
            limit=limit,
            rank=group.rank,
            world_size=group.world_size,
            answer_errors=answer_errors,
            keep_heatmaps=heatmaps,
            cache=cache,
            authors=authors,
            licence=licence,
            method_timeout=method_timeout,
            progress=progress,
            say=lambda line: stderr.print(line, highlight=False, soft_wrap=True, markup=False),
        )
    stderr.print(f"{report.computed} attributions computed, {report.reused} found from earlier runs")
    for one, path in report.submissions.items():
        typer.echo(f"{one}: {path}")
    if report.errors:
        raise MedGroundError(
            f"{len(report.errors)} attributions failed:\n  " + "\n  ".join(report.errors),
            remedy="run the same command again to try those once more; with --answer-errors they count as no boxes",
        )


def _print_plan(plans: list[MethodPlan], processes: int) -> None:
    from rich.table import Table

    from medground_bench.core.console import stdout

    table = Table("method", "forwards", "backwards", "s a record", "records", "hours", "GB", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for one in plans:
        if one.error is None:
            cells = [f"{one.forwards:,.0f}", f"{one.backwards:,.0f}", f"{one.seconds:.3f}", f"{one.records:,}"]
            table.add_row(one.method, *cells, f"{one.hours / processes:,.3f}", f"{one.gigabytes:,.4f}")
    total = [sum(one.hours for one in plans) / processes, sum(one.gigabytes for one in plans)]
    table.add_row("all", "", "", "", "", f"{total[0]:,.3f}", f"{total[1]:,.4f}")
    stdout.print(table)
    for one in plans:
        if one.error is not None:
            stdout.print(f"{one.method} cannot be measured: {one.error}", highlight=False, soft_wrap=True)
