"""Our own layout: ``phantom.json`` and 8-bit PNG images in ``images/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from medground_bench.sources.phantom.layouts.common import Drawn, Written

if TYPE_CHECKING:
    from medground_bench.sources.phantom.sample import Phantom

__all__ = ["names", "write_image", "write_tables"]


def names(seed: int, number: int) -> tuple[str, str, str]:
    """Image id, patient id and file of an image."""
    image_id = f"phantom-{seed:03d}-{number:06d}"
    return image_id, image_id, f"images/{image_id}.png"


def write_image(phantom: Phantom, path: Path, number: int) -> None:
    """8-bit grey PNG."""
    Image.fromarray(phantom.image).save(path, compress_level=3)


def write_tables(folder: Path, drawn: Sequence[Drawn]) -> Written:
    """Nothing to write: the manifest is the annotation file."""
    written = Written("phantom", folder, sized=True)
    for one in sorted(drawn, key=lambda d: d.image_id):
        for finding in one.findings:
            written.add(one, finding.attribute, finding.boxes, (finding.attribute,))
    return written
