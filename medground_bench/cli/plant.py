"""``medground-bench plant``: draw findings into real radiographs, with exact evidence."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    canvas: Path = typer.Option(..., "--canvas", help="Folder of normal frontal radiographs (or with images/ in it)."),
    out: Path = typer.Option(..., "--out", help="Folder to make."),
    count: int = typer.Option(100, "--count", min=1, help="Number of images, one a canvas."),
    at_most: bool = typer.Option(
        False, "--at-most", help="With fewer usable canvases, as many images as there are, in place of an error."
    ),
    seed: int = typer.Option(0, "--seed", min=0, help="Chooses canvases, findings and how they look."),
    manifest: Path = typer.Option(
        None, "--manifest", help="CSV with image and, where known, patient_id, age, view [default: manifest.csv there]."
    ),
    findings: str = typer.Option(None, "--findings", help="Draw from these, separated by commas; by default from all."),
    distractors: bool = typer.Option(
        False, "--distractors", help="Also plant markers, text, tubes, electrodes and clips."
    ),
    pose: bool = typer.Option(False, "--pose", help="Turn and crop every canvas first, by the seed."),
    localizer: str = typer.Option("multi_atlas", "--localizer", help="Finds the anatomy."),
    pool: str = typer.Option(
        "phantom", "--pool", help="References of multi_atlas: a folder with pool.json, or the phantoms that ship."
    ),
    set_: list[str] = typer.Option([], "--set", help="Setting of the localizer: NAME=VALUE (JSON or text)."),
) -> None:
    """Draw findings into real radiographs: a benchmark with exact evidence from any folder of normal images.

    Canvases on which the lungs are not found with confidence, children, laterals, colour and unreadable images are
    refused and listed; the list is also in planted.json.
    """
    from medground_bench.core.console import progress_bar, stderr, stdout
    from medground_bench.core.settings import parse_settings_for
    from medground_bench.sources.planted import load_localizer
    from medground_bench.sources.planted.write import write_planted

    names = [name.strip() for name in findings.split(",") if name.strip()] if findings else None
    settings = {**({"pool": pool} if localizer == "multi_atlas" else {}), **parse_settings_for(localizer, set_)}
    with progress_bar("planting") as update:
        written = write_planted(
            canvas,
            out,
            count,
            localizer=load_localizer(localizer, **settings),
            at_most=at_most,
            seed=seed,
            manifest=manifest,
            findings=names,
            distractors=distractors,
            pose=pose,
            progress=update,
        )
    for refused in written.refused:
        stderr.print(f"refused {refused}", soft_wrap=True, highlight=False, markup=False)
    for image_id, omitted in written.omitted.items():
        stderr.print(f"{image_id}: no room for {', '.join(omitted)}", soft_wrap=True, highlight=False, markup=False)
    stdout.print(
        f"{written.images} images with {written.findings} findings in {out} (source planted); "
        f"{len(written.refused)} canvases refused",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
