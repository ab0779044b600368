"""``medground-bench phantom``: write procedural chest radiographs in the layout of a source."""

from __future__ import annotations

from pathlib import Path

import typer


def command(
    out: Path = typer.Option(..., "--out", help="Folder to make."),
    count: int = typer.Option(100, "--count", min=1, help="Number of images."),
    size: str = typer.Option("512x512", "--size", help="WIDTHxHEIGHT in pixels, or 'varied'."),
    seed: int = typer.Option(0, "--seed", min=0, help="Which set; sets of different seeds share no image."),
    layout: str = typer.Option("phantom", "--layout", help="phantom, imagenome, vindr_cxr, padchest_gr or nih_cxr14."),
    finding: list[str] = typer.Option(
        None, "--finding", help="Plant exactly these findings in every image (repeatable); drawn at random by default."
    ),
    markers: bool = typer.Option(
        False, "--markers", help="Stamp a square into a corner of every image, which no question asks about."
    ),
    faint: float = typer.Option(
        0.0, min=0, max=1, help="Share of the images whose findings have about half of the usual contrast."
    ),
    num_proc: int = typer.Option(1, "--num-proc", min=1, help="Processes that draw."),
) -> None:
    """Draw chest radiographs whose true evidence is known, in the on-disk layout of any source."""
    from medground_bench.core.console import progress_bar, stdout
    from medground_bench.sources.phantom import write_source

    with progress_bar("drawing") as update:
        written = write_source(
            layout,
            out,
            count,
            seed=seed,
            size=_size(size),
            findings=finding or None,
            markers=markers,
            faint=faint,
            num_proc=num_proc,
            progress=update,
        )
    normal = len(written.images) - len({c.image_id for c in written.candidates})
    stdout.print(
        f"{len(written.images)} images ({normal} without a finding, so without a candidate) with "
        f"{len(written.candidates)} candidates in {out} (source {layout})",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _size(text: str) -> tuple[int, int] | None:
    from medground_bench.core.errors import MedGroundError

    if text.strip().lower() == "varied":
        return None
    parts = text.lower().split("x")
    if len(parts) == 1:
        parts = parts * 2
    if len(parts) != 2 or not all(p.strip().isdecimal() for p in parts):
        raise MedGroundError(f"--size {text!r} is not a size", expected="WIDTHxHEIGHT, such as 1024x1280, or 'varied'")
    return int(parts[0]), int(parts[1])
