"""NIH ChestX-ray14, the images with finding boxes. Open: needs no credential.

Files looked for below the root:

- annotations ``BBox_List_2017.csv``; its header is ``Image Index,Finding Label,Bbox [x,y,w,h],,,``: the box lies in
  the third to sixth column, whatever those are called;
- images ``{Image Index}`` in ``images/`` or ``images_001/images/`` ... ``images_012/images/`` (the official parts),
  as ``.png`` or ``.jpg``, whichever is there.

Candidates: rows grouped and sorted by (image, finding); x, y, w, h becomes x1, y1, x2, y2, not rounded; the attribute
is the finding label and the patient is what stands before the first ``_`` of the image index.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from medground_bench.core.errors import SourceError
from medground_bench.sources._groups import Grouping, Named
from medground_bench.sources._tables import BoxResult, check_box, find, numbers, safe_path
from medground_bench.sources.base import Source, SourceInfo

__all__ = ["INFO", "read"]

_TABLE = "BBox_List_2017.csv"

INFO = SourceInfo(
    key="nih_cxr14",
    title="NIH ChestX-ray14 (images with finding boxes)",
    licence="No restrictions on use; link to the download site, cite the paper, acknowledge the NIH Clinical Center",
    url="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    citation="Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks, CVPR 2017. "
    "Data provider: NIH Clinical Center",
    credentialed=False,
    obtain="Download BBox_List_2017.csv and the image archives from the NIH site; unpack the archives into images/.",
    layout=(_TABLE, "images/<Image Index> (.png or .jpg)"),
)


def read(root: Path) -> Source:
    """Enumerate the boxes below ``root``."""
    path = find(root, (_TABLE,), f"the annotation file {_TABLE}")
    folders = [p for p in (root / "images", *sorted(root.glob("images_*/images"))) if p.is_dir()]
    folders = folders or [root / "images"]
    groups: Grouping[tuple[str, str]] = Grouping(path)
    for line, fields in _rows(path):
        image, label = fields[0].strip(), fields[1].strip()
        if not image or not label:
            raise SourceError("Image Index or Finding Label is empty", where=f"{path}:{line}")
        groups.add((image, label), line, _box(fields[2:6]))

    def name(key: tuple[str, str], where: str) -> Named:
        image, label = key
        return Named(image, image.split("_")[0], label, _image_path(folders, image, where))

    return groups.source(INFO, root, name)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields; the header names only its first three columns, so rows are read by position."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        try:
            header = next(reader, [])
            if [h.strip() for h in header[:2]] != ["Image Index", "Finding Label"] or len(header) < 6:
                raise SourceError(
                    f"the header is {','.join(header)!r}" if header else "this file is empty",
                    where=f"{path}:1",
                    expected="the columns Image Index, Finding Label, Bbox [x, y, w, h]",
                    remedy="fetch BBox_List_2017.csv again",
                )
            for fields in reader:
                if not any(f.strip() for f in fields):
                    continue
                if len(fields) < 6 or any(f.strip() for f in fields[6:]):
                    raise SourceError(
                        f"this row has {len(fields)} fields",
                        where=f"{path}:{reader.line_num}",
                        expected="image, finding, x, y, w, h",
                        remedy="check that the file was copied completely; fetch it again",
                    )
                yield reader.line_num, fields
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"this file cannot be read as CSV: {error}", where=path) from error


def _box(fields: list[str]) -> BoxResult:
    values = numbers(fields)
    if isinstance(values, BoxResult):
        return values
    x, y, width, height = values
    return check_box((x, y, x + width, y + height))


def _image_path(folders: list[Path], image: str, where: str) -> Path:
    """The first file there is under the image's name, as .png or .jpg; where there is none, the name itself."""
    stem = image.rsplit(".", 1)[0]
    for folder in folders:
        for name in dict.fromkeys((image, f"{stem}.png", f"{stem}.jpg", f"{stem}.jpeg")):
            path = safe_path(folder, name, where)
            if path.is_file():
                return path
    return safe_path(folders[0], image, where)
