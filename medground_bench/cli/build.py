"""``medground-bench build``: source folders (and records) -> the dataset folder."""

from __future__ import annotations

from pathlib import Path

import typer

from medground_bench.cli._sources import parse_sources

_IMAGE_NOTES = 20


def command(
    config: str = typer.Option(..., help="candidates, direct or reason."),
    source: list[str] = typer.Option(..., help="NAME=DIR of a source; repeat. See 'medground-bench sources'."),
    records: str | None = typer.Option(
        None, help="Released records (file or folder), a folder of own verdicts, or 'download'."
    ),
    lvlm: list[str] = typer.Option([], help="Only the records of this LVLM key; repeat."),
    out: Path = typer.Option(Path("medground-bench"), help="Dataset folder; other configs in it are kept."),
    num_proc: int = typer.Option(1, min=1, help="Processes that read and encode images."),
    max_side: int | None = typer.Option(None, min=1, help="Longer side of the images in pixels; boxes go with it."),
    scaling: str = typer.Option("minmax", help="Deep pixels to 8 bits: minmax (as the paper) or percentile."),
    allow_missing: bool = typer.Option(False, help="Leave out missing images and sources, and list them."),
    allow_other_records: bool = typer.Option(False, help="Accept records that are not the released file."),
    clip_boxes: bool = typer.Option(False, help="Cut boxes that reach outside their image instead of stopping."),
) -> None:
    """Build the dataset folder that load_dataset("medground-bench", CONFIG) opens."""
    from medground_bench.core.console import progress_bar, stderr
    from medground_bench.dataset.plan import BuildSettings
    from medground_bench.dataset.write import build_folder

    settings = BuildSettings(
        config=config,
        sources=parse_sources(source),
        records=records,
        lvlms=tuple(lvlm),
        scaling=scaling,  # type: ignore[arg-type]
        max_side=max_side,
        allow_missing=allow_missing,
        allow_other_records=allow_other_records,
        clip_boxes=clip_boxes,
    )
    with progress_bar(f"building {config}") as progress:
        folder, plan = build_folder(settings, out, num_proc=num_proc, progress=progress)
    for title, listing in (
        ("left out, image or source missing", plan.missing),
        ("problems of annotation rows", plan.broken),
        ("boxes cut to their image", plan.clipped),
        ("notes", plan.notes),
        ("notes on images", plan.image_notes),
    ):
        if listing:
            stderr.print(f"{title} ({len(listing)}):", markup=False, highlight=False)
            # Archives may have something to note of every image; all of it stands in build.json.
            shown = listing[:_IMAGE_NOTES] if listing is plan.image_notes else listing
            for message in shown:
                stderr.print(f"  {message}", markup=False, highlight=False, soft_wrap=True)
            if len(shown) < len(listing):
                stderr.print(f"  ... and {len(listing) - len(shown)} more in build.json", markup=False, highlight=False)
    typer.echo(f"{folder}: {config}, {len(plan.items)} rows, {plan.images} images")
