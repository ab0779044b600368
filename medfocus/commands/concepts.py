"""``medground-bench concepts``: draw the anatomical concepts that MedFocus finds on a radiograph."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    image: Path = typer.Argument(..., help="Radiograph: JPEG, PNG, TIFF or DICOM."),
    pool: str = typer.Option(
        "phantom", "--pool", help="Folder with pool.json; by default the phantoms that ship, less exact on real chests."
    ),
    preset: str = typer.Option("multi_atlas", "--preset", help="multi_atlas or paper."),
    refiner: str = typer.Option(
        "none", "--refiner", help="none, litemedsam, a MedSAM checkpoint, or the folder or hub id of a SamModel."
    ),
    set_: list[str] = typer.Option([], "--set", help="Setting of the preset: NAME=VALUE (JSON or text)."),
    vocabulary: str = typer.Option("concepts", "--vocabulary", help="concepts (11) or zones (26, derived from them)."),
    out: Path | None = typer.Option(None, "--out", help="PNG to write (default: NAME_concepts.png here)."),
) -> None:
    """Find the anatomical concepts, or finer zones, on a frontal radiograph; print their boxes and draw them."""
    from rich.table import Table

    from medfocus.draw import draw_concepts
    from medfocus.localizer import AnatomyLocalizer
    from medfocus.result import DOUBTFUL
    from medfocus.vocabulary import in_vocabulary, require_vocabulary
    from medground_bench.core.console import stderr, stdout
    from medground_bench.core.files import atomic_write
    from medground_bench.core.settings import parse_settings_for
    from medground_bench.imaging.read import read_image

    require_vocabulary(vocabulary)
    radiograph = read_image(image)
    settings = parse_settings_for(preset, set_)
    localizer = AnatomyLocalizer(pool, preset, None if refiner == "none" else refiner, settings)  # type: ignore[arg-type]
    with stderr.status("locating"):
        transfer = in_vocabulary(localizer.localise(radiograph), vocabulary, *radiograph.size)
    table = Table("concept", "x1", "y1", "x2", "y2")
    for concept, box in transfer.boxes.items():
        table.add_row(concept, *(f"{v:.1f}" for v in box))
    stdout.print(table)
    stdout.print(f"best reference: {transfer.reference}", markup=False, highlight=False)
    if transfer.confidence == transfer.confidence:  # the preset paper has one reference and states none
        doubt = f", below {DOUBTFUL}: look at the picture" if transfer.confidence < DOUBTFUL else ""
        stdout.print(f"confidence: {transfer.confidence:.2f}{doubt}", highlight=False)
    title = preset if refiner == "none" else f"{preset} + {Path(refiner).name}"
    target = out or Path(f"{image.stem}_concepts.png")
    with atomic_write(target, "wb") as file:
        draw_concepts(radiograph, transfer.concepts, title).save(file, "PNG")
    stdout.print(f"drawn in {target}", markup=False, highlight=False)
