"""``medground-bench tokens``: which tokens of the responses rest on the finding."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["command"]


def command(
    dataset: Path = typer.Option(..., help="Dataset folder."),
    lvlm: str = typer.Option(..., help="LVLM key, hub id or local folder."),
    source: list[str] = typer.Option(..., help="NAME=DIR of the images' sources; repeat for several."),
    out: Path = typer.Option(..., help="Folder for the token evidence; the same command resumes."),
    config: str = typer.Option("reason", help="Config of the dataset folder."),
    editor: str = typer.Option("phantom", help="Removes the finding: phantom, planted (exact), inpaint, radedit."),
    set_: list[str] = typer.Option([], "--set", help="Setting of the editor: NAME=VALUE (JSON or text)."),
    lvlm_key: str | None = typer.Option(None, help="Key of the LVLM in the dataset (default: as in filter)."),
    limit: int | None = typer.Option(None, min=1, help="Only the first N records."),
    seed: int = typer.Option(0, help="Seed of the edits."),
    dtype: str | None = typer.Option(None, help="float32, bfloat16 or float16 (default: by device)."),
    device: str | None = typer.Option(None, help="cpu, cuda, cuda:1 ... (default: by what is there)."),
) -> None:
    """Score every response with and without the finding: the reference for `score --tokens`.

    Example: medground-bench tokens --dataset demo/medground-bench --config reason --lvlm toy_qwen
    --source phantom=demo/phantoms --out tokens
    """
    from medground_bench.attribution.token_evidence import find_token_evidence
    from medground_bench.causal.editors import load_editor
    from medground_bench.cli._lvlm import load_for_command
    from medground_bench.cli._sources import parse_sources
    from medground_bench.core.console import progress_bar
    from medground_bench.core.settings import parse_settings_for
    from medground_bench.dataset.folder import open_folder
    from medground_bench.scoring.tokens import EVIDENTIAL
    from medground_bench.sources import open_source

    sources = [open_source(name, root) for name, root in parse_sources(source).items()]
    made = load_editor(editor, **parse_settings_for(editor, set_))
    options = {"dtype": dtype, "device": device, **({"key": lvlm_key} if lvlm_key else {})}
    with progress_bar("token evidence") as progress:
        found = find_token_evidence(
            open_folder(dataset, config),
            load_for_command(lvlm, **options),
            made,
            sources,
            out,
            limit=limit,
            seed=seed,
            progress=progress,
        )
    tokens = sum(len(drops) for drops in found.drops.values())
    resting = sum(int((drops > EVIDENTIAL).sum()) for drops in found.drops.values())
    typer.echo(f"{out}: {len(found.drops)} records, {resting} of {tokens} tokens rest on the finding")
