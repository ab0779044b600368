"""``medground-bench filter``: judge candidates by the causal filter."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medground_bench.core.errors import MedGroundError

if TYPE_CHECKING:
    from medground_bench.causal.filter import FilterReport
    from medground_bench.causal.plan import FilterPlan


def command(
    lvlm: list[str] = typer.Option(..., help="LVLM key, hub id, folder or openai:MODEL@URL; repeat for several."),
    source: list[str] = typer.Option(..., help="NAME=DIR of a source; repeat for several."),
    out: Path = typer.Option(..., help="Folder for the verdicts; the same command resumes."),
    mode: str = typer.Option("direct", help="How to ask: direct or reason."),
    editor: str = typer.Option("radedit", help="radedit, phantom (exact, phantoms only) or inpaint (classical)."),
    set_: list[str] = typer.Option(
        [], "--set", "--editor-set", help="Setting of the editor: NAME=VALUE (JSON or text), e.g. steps=50."
    ),
    radedit_unet: str | None = typer.Option(None, help="Folder or hub id of RadEdit's UNet."),
    radedit_vae: str | None = typer.Option(None, help="Folder or hub id of its VAE."),
    radedit_text_encoder: str | None = typer.Option(None, help="Folder or hub id of its text encoder."),
    allow_remote_code: bool = typer.Option(False, help="Let the text encoder's repository run its own Python code."),
    lvlm_key: list[str] = typer.Option([], help="Key of the LVLM in the verdicts, one per --lvlm, in order."),
    limit: int | None = typer.Option(None, min=1, help="Only the first N candidates of each source."),
    batch_size: int = typer.Option(8, min=1, help="Candidates per batch."),
    seed: int = typer.Option(0, help="Seed of the edits."),
    max_new_tokens: int | None = typer.Option(None, min=1, help="Longest answer (default: 32 direct, 512 reason)."),
    scaling: str = typer.Option("minmax", help="How images deeper than 8 bits are read: minmax or percentile."),
    edits: Path | None = typer.Option(None, help="Folder of the edit cache (default: OUT/edits)."),
    export: Path | None = typer.Option(None, help="Also write the kept candidates as JSON in the released layout."),
    plan: bool = typer.Option(False, "--plan", help="Print the work (questions, edits, storage, hours) and stop."),
    plan_sample: int = typer.Option(8, min=1, help="Candidates measured for --plan."),
    dtype: str | None = typer.Option(None, help="float32, bfloat16 or float16 (default: by device)."),
    device: str | None = typer.Option(None, help="cpu, cuda, cuda:1 ... or auto to spread (default: what is there)."),
    bits: int | None = typer.Option(None, help="Load the weights in 8 or 4 bits (bitsandbytes)."),
    attention: str | None = typer.Option(None, help="Attention kernel of the LVLM, e.g. sdpa or eager."),
    decoding: list[str] = typer.Option(
        [], help="Logits processor beside greedy decoding: NAME=VALUE, e.g. repetition_penalty=1.05 (default: none)."
    ),
) -> None:
    """Ask an LVLM about the image and its counterfactual edits; keep what it answers for the annotated reason.

    Over several GPUs or nodes: accelerate launch -m medground_bench filter ... (without GPUs, where accelerate starts
    one process only: torchrun --nproc-per-node 2 -m medground_bench filter ...)
    """
    from medground_bench.causal.editors import load_editor
    from medground_bench.causal.filter import filter_candidates
    from medground_bench.cli._lvlm import load_for_command
    from medground_bench.cli._sources import parse_sources
    from medground_bench.core.console import progress_bar, stderr
    from medground_bench.core.processes import process_group
    from medground_bench.core.settings import parse_settings, parse_settings_for
    from medground_bench.sources import open_source

    if lvlm_key and len(lvlm_key) != len(lvlm):
        raise MedGroundError(f"{len(lvlm)} --lvlm and {len(lvlm_key)} --lvlm-key", expected="a key for each LVLM")
    group = process_group()
    if export is not None and group.world_size > 1:
        raise MedGroundError(
            "--export needs the verdicts of all processes",
            remedy="filter without it; then run the same command with it in one process, which finds them all done",
        )
    sources = {name: open_source(name, folder) for name, folder in parse_sources(source).items()}
    place = group.device(device)
    settings = parse_settings_for(editor, set_)
    if editor == "radedit":
        parts = {"unet": radedit_unet, "vae": radedit_vae, "text_encoder": radedit_text_encoder, "device": place}
        settings = {**{k: v for k, v in parts.items() if v is not None}, **settings}
        if allow_remote_code:
            settings["allow_remote_code"] = True
    made = load_editor(editor, **settings)

    options = {
        "dtype": dtype,
        "device": place,
        "attention": attention,
        "bits": bits,
        "decoding": parse_settings("decoding", decoding),
    }
    keys = lvlm_key or [_key_of(name) for name in lvlm]
    loaders = {key: partial(load_for_command, name, key=key, **options) for name, key in zip(lvlm, keys, strict=True)}
    how: dict[str, Any] = {
        "limit": limit,
        "batch_size": batch_size,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
        "scaling": scaling,
    }
    cache = edits or out / "edits"
    if plan:
        from medground_bench.causal.plan import plan_filter

        if group.is_main:
            _print_plan(plan_filter(loaders, mode, sources, made, cache, sample=plan_sample, **how))
        return
    errors: list[str] = []
    for key, loader in loaders.items():
        # One model in memory at a time; the edits that the first asked for are there for the next.
        with progress_bar(f"{key} {mode}", resumes=True) as progress:
            report = filter_candidates(
                loader(),
                mode,
                sources,
                made,
                out,
                edits=cache,
                group=group,
                progress=progress,
                **how,
            )
        stderr.print(f"{key} {mode}: {_summary(report)}", highlight=False, soft_wrap=True)
        errors += report.errors
    if export is not None:
        from medground_bench.dataset.export import export_released

        count = export_released(out, mode, sources, export, lvlms=list(loaders))  # type: ignore[arg-type]
        typer.echo(f"{export}: {count} records")
    if errors:
        raise MedGroundError(
            f"{len(errors)} candidates could not be judged:\n  " + "\n  ".join(errors),
            remedy="correct the cause and run the same command again: only these are tried once more",
        )


def _key_of(lvlm: str) -> str:
    """Key in the verdicts: that of the benchmark, else the hub id's or folder's own name."""
    from medground_bench.core.schema import LVLMS
    from medground_bench.lvlm.server.address import PREFIX, parse_address

    if lvlm.startswith(PREFIX):
        return parse_address(lvlm).key
    return next((key for key, hub_id in LVLMS.items() if lvlm in (key, hub_id)), Path(lvlm).name)


def _summary(report: FilterReport) -> str:
    counts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(report.verdicts.items())) or "nothing new"
    return (
        f"{counts}; {report.reused} found from earlier runs; {report.questions} questions, "
        f"{report.edits_made} edits made, {report.edits_found} found"
    )


def _print_plan(plan: FilterPlan) -> None:
    from rich.table import Table

    from medground_bench.core.console import stdout

    stdout.print("candidates: " + ", ".join(f"{n:,} of {name}" for name, n in plan.candidates.items()), highlight=False)
    table = Table("", "expected", "at most", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    rows: tuple[tuple[str, Mapping[str, float], str], ...] = (
        ("questions to LVLMs", plan.questions, ",.0f"),
        ("edits (shared between LVLMs and modes)", plan.edits, ",.0f"),
        ("storage of edits, GB", plan.gigabytes, ",.3f"),
        ("hours, one process", plan.hours, ",.3f"),
    )
    for name, values, form in rows:
        table.add_row(name, format(values["expected"], form), format(values["at most"], form))
    stdout.print(table)
    for key, one in plan.per_lvlm.items():
        stdout.print(
            f"{key}: {one['questions']:,.0f} questions expected, {one['seconds per question']:.3f} s each",
            highlight=False,
        )
    stdout.print(
        f"an edit takes {plan.seconds_per_edit:.3f} s and {plan.bytes_per_edit / 1e3:,.0f} kB; measured on "
        f"{plan.sample} candidates, so expect the order of magnitude",
        highlight=False,
        soft_wrap=True,
    )
