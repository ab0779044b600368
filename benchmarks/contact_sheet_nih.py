"""A contact sheet of a dataset folder: every image once, with its evidence boxes. For looking at, not for measuring.

medground-bench build --config candidates --source nih_cxr14=DIR --out medground-bench
python benchmarks/contact_sheet_nih.py medground-bench --out sheet.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from medground_bench.core.files import atomic_write
from medground_bench.dataset.folder import open_folder
from medground_bench.imaging import Letterbox

if TYPE_CHECKING:
    from medground_bench.dataset.columns import Record

COLOURS = ("#ffb000", "#00d0ff", "#ff5fa2", "#8ee000", "#ffffff")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="dataset folder")
    parser.add_argument("--config", default="candidates")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--side", type=int, default=200, help="pixels per image")
    parser.add_argument("--columns", type=int, default=12)
    parser.add_argument("--first", type=int, default=0, help="first image to show")
    parser.add_argument("--count", type=int, default=120, help="number of images to show")
    options = parser.parse_args()

    folder = open_folder(options.folder, options.config)
    rows: dict[str, list[Record]] = {}
    for record in folder:
        rows.setdefault(record.image_id, []).append(record)
    shown = list(rows)[options.first : options.first + options.count]
    lines = -(-len(shown) // options.columns)
    sheet = Image.new("RGB", (options.columns * options.side, lines * options.side))
    boxes = 0
    for place, image_id in enumerate(shown):
        image = rows[image_id][0].image
        letterbox = Letterbox.fit(*image.size, options.side)
        tile = letterbox.apply(image).convert("RGB")
        draw = ImageDraw.Draw(tile)
        for colour, record in zip(COLOURS * 9, rows[image_id], strict=False):
            for box in letterbox.to_frame(record.boxes):
                draw.rectangle(box, outline=colour)
                draw.text((box[0] + 2, box[1] + 1), record.attribute[:14], fill=colour)
                boxes += 1
        sheet.paste(tile, (place % options.columns * options.side, place // options.columns * options.side))
    with atomic_write(options.out, "wb") as file:
        sheet.save(file, "PNG")
    print(f"{options.out}: {len(shown)} images, {boxes} boxes")


if __name__ == "__main__":
    main()
