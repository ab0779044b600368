"""NIH ChestX-ray14: ``BBox_List_2017.csv`` and 8-bit images in ``images/``, their sizes in ``image_sizes.csv``.

Irregularities on purpose: rows in no order, some images stored as .jpg though the csv says .png, findings the
vocabulary lacks are not listed, and the header names only three of its six columns.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from medground_bench.core.files import atomic_write
from medground_bench.sources.nih_cxr14 import SIZE_COLUMNS, SIZES
from medground_bench.sources.phantom.layouts.common import Drawn, Row, Written, digest, jitter, sorted_groups

if TYPE_CHECKING:
    from medground_bench.sources.phantom.sample import Phantom

__all__ = ["LABELS", "names", "write_image", "write_tables"]

LABELS = {
    "cardiomegaly": "Cardiomegaly",
    "consolidation": "Pneumonia",
    "atelectasis": "Atelectasis",
    "lung mass": "Mass",
    "nodule": "Nodule",
    "pneumothorax": "Pneumothorax",
    "pleural effusion": "Effusion",
}
"""Findings by the names that NIH ChestX-ray14 has for them."""


def names(seed: int, number: int) -> tuple[str, str, str]:
    """Image id, patient id and file of an image; two consecutive images are of one patient."""
    patient = f"{int(digest('nih', seed, number // 2)[:6], 16) % 30000 + seed % 7 * 30000:05d}{number // 2 % 1000:03d}"
    stem = f"{patient}_{number % 2:03d}"
    return f"{stem}.png", patient, f"images/{stem}.{'jpg' if number % 4 == 3 else 'png'}"


def write_image(phantom: Phantom, path: Path, number: int) -> None:
    """8-bit grey PNG, or JPEG where the name says so."""
    image = Image.fromarray(phantom.image)
    if path.suffix == ".jpg":
        image.save(path, quality=95)
    else:
        image.save(path, compress_level=3)


def write_tables(folder: Path, drawn: Sequence[Drawn]) -> Written:
    """``BBox_List_2017.csv`` and ``image_sizes.csv``."""
    rows: list[Row] = []
    for one in drawn:
        r = jitter(one)
        for finding in one.findings:
            label = LABELS.get(finding.attribute)
            if label is None:
                continue
            for x1, y1, x2, y2 in finding.boxes:
                # The real list has fractions of a pixel.
                x, y = (v + round(float(r.uniform(0, 0.5)), 9) for v in (x1, y1))
                w, h = x2 - x1, y2 - y1
                fields = [one.image_id, label, *map(repr, (x, y, w, h))]
                rows.append(Row((one.image_id, label), fields, (x, y, x + w, y + h), one, finding.attribute))
    rows.sort(key=lambda row: digest(*row.fields))
    with atomic_write(folder / "BBox_List_2017.csv") as file:
        file.write("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
        csv.writer(file, lineterminator="\n").writerows(row.fields for row in rows)
    with atomic_write(folder / SIZES) as file:
        sizes = csv.writer(file, lineterminator="\n")
        sizes.writerow(SIZE_COLUMNS)
        sizes.writerows((one.image_id, one.width, one.height) for one in drawn)
    written = Written("nih_cxr14", folder, sized=True)
    for (_, label), group in sorted_groups(rows):
        written.add_group(label, group)
    return written
