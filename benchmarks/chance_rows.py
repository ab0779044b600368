"""Chance rows on the candidates of sources, with intervals from resampled patients: all, by size and by finding.

What a method that never looks at the image would score: the whole image, a randomly placed box of the evidence's size,
and the mean evidence box of the same finding in other patients. These are candidates, before any causal filter: an LVLM
that sees large and regular findings best keeps more of those, and the guess does better on its records. Also draws
every number a second time by scoring explicit whole-image predictions, as a check of the closed form. Usage::

    python benchmarks/chance_rows.py nih_cxr14=DIR [KEY=DIR ...] [--resamples 10000] [--seed 0]

Several folders of one source (seeds of planted findings) count together; a patient in two of them is one patient.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from medground_bench.core.schema import candidate_id
from medground_bench.dataset.columns import Record
from medground_bench.imaging.read import image_size
from medground_bench.scoring import (
    Reference,
    aggregate_chance,
    load_reference,
    score_boxes,
)
from medground_bench.scoring.rows import interval_text
from medground_bench.sources import open_source

COLUMNS = {"iou": "IoU", "f1": "F1", "precision": "Precision", "recall": "Recall"}
NAMES = {"whole_image": "whole image", "random_box": "random box", "centre_prior": "centre prior"}


def read(folders: list[tuple[str, Path]], seed: int) -> tuple[Reference, list[dict[str, Any]]]:
    """The candidates with evidence and their chance rows."""
    rows = []
    for number, (key, folder) in enumerate(folders):
        for c in open_source(key, folder):
            if not c.boxes:
                continue  # every box of the group is broken: reported by 'medground-bench sources'
            width, height = image_size(c.image_path)
            rows.append(
                {
                    "id": f"{number}/{candidate_id(c.dataset, c.image_id, c.attribute)}",
                    "dataset": c.dataset,
                    "image_id": f"{number}/{c.image_id}",
                    "patient_id": c.patient_id,
                    "width": width,
                    "height": height,
                    "attribute": c.attribute,
                    "boxes": [list(box) for box in c.boxes],
                }
            )
    return load_reference(
        (Record.from_row({**row, "question": "", "answer": "Yes"}) for row in rows), config="candidates", seed=seed
    ), rows


def named_folder(text: str) -> tuple[str, Path]:
    key, _, folder = text.partition("=")
    if not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=DIR, e.g. nih_cxr14=NIH")
    return key, Path(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=named_folder, metavar="KEY=DIR")
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    reference, rows = read(options.sources, options.seed)
    levels = ("all", "size", "attribute")
    found = aggregate_chance(reference.chance, reference.table, levels, resamples=options.resamples, seed=options.seed)
    console = Console() if sys.stdout.isatty() else Console(width=160)
    kinds = ", ".join(sorted({key for key, _ in options.sources}))
    table = Table(title=f"Chance on candidates of {kinds} (95 % intervals, by patient)")
    for k, column in enumerate(("records", "n", "patients", "row", *COLUMNS.values())):
        table.add_column(column, no_wrap=True, justify="right" if k in (1, 2) else "left")
    for k, first in enumerate(found["whole_image"]):
        for row, name in NAMES.items():
            a = found[row][k]
            head = ["", "", ""]
            if row == "whole_image":
                head = [first.group or "all", str(first.records), str(first.clusters)]
            cells = [interval_text(a.values[m]) for m in COLUMNS]
            table.add_row(*head, name, *cells)
        table.add_section()
    console.print(table)
    explicit = score_boxes([[[0, 0, r["width"], r["height"]]] for r in rows], [r["boxes"] for r in rows])
    closed = reference.chance["whole_image"]
    difference = max(float(np.abs(a - b).max()) for a, b in zip(explicit, closed, strict=True))
    console.print(f"whole image: closed form against explicit boxes, largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
