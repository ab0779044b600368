"""NIH ChestX-ray14, the images with finding boxes. Open: needs no credential.

Files looked for below the root:

- annotations ``BBox_List_2017.csv``; its header is ``Image Index,Finding Label,Bbox [x,y,w,h],,,``: the box lies in
  the third to sixth column, whatever those are called;
- images ``{Image Index}`` in ``images/`` or ``images_001/images/`` ... ``images_012/images/`` (the official parts),
  as ``.png`` or ``.jpg``, whichever is there;
- optional ``Data_Entry_2017_v2020.csv`` (or ``Data_Entry_2017.csv``): sex, age and view of every image;
- optional ``image_sizes.csv`` (``Image Index,Width,Height``), for copies that were converted together with their boxes.

Candidates: rows grouped and sorted by (image, finding); x, y, w, h becomes x1, y1, x2, y2, not rounded; the attribute
is the finding label and the patient is what stands before the first ``_`` of the image index. The released boxes are
stated on images of 1024 x 1024 pixels, so that a file of another size, which ``image_sizes.csv`` does not state, is
refused by ``build`` and reported by ``verify``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from medground_bench.core.errors import SourceError
from medground_bench.sources._groups import At, Grouping, Named, Subject
from medground_bench.sources._tables import (
    BoxResult,
    Row,
    check_box,
    find,
    numbers,
    read_rows,
    read_table,
    safe_path,
    shown,
)
from medground_bench.sources.base import Source, SourceInfo

__all__ = ["INFO", "SIDE", "SIZES", "SIZE_COLUMNS", "read"]

SIDE = (1024, 1024)
"""Width and height of every image as it is given out; the boxes are stated on it."""

SIZES = "image_sizes.csv"
SIZE_COLUMNS = ("Image Index", "Width", "Height")

_TABLE = "BBox_List_2017.csv"
_METADATA = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_FINDINGS = frozenset(
    {"Atelectasis", "Cardiomegaly", "Effusion", "Infiltrate", "Mass", "Nodule", "Pneumonia", "Pneumothorax"}
)
_OLDEST = 120  # the first release has patients of 411 years

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
    groups: Grouping[tuple[str, str]] = Grouping()
    for row in _rows(path):
        at, image, label = At(path, row.line), row.fields[0].strip(), row.fields[1].strip()
        if not image or not label:
            raise SourceError("Image Index or Finding Label is empty", where=at)
        groups.add((image, label), at, row.fields[:6], _box(row.fields[2:6]))
        if label not in _FINDINGS:
            groups.problem((image, label), at, f"the finding is {shown(label)}, which the box list does not have")
    files = [path]
    sizes, subjects = _sizes(root, files), _subjects(root, files, groups)

    def name(key: tuple[str, str], where: str) -> Named:
        image, label = key
        place = _image_path(folders, image, where)
        return Named(image, image.split("_")[0], label, place, sizes.get(image, SIDE), subjects.get(image, Subject()))

    return groups.source(INFO, root, files, name)


def _rows(path: Path) -> Iterator[Row]:
    """Rows of the box list; its header names only the first three columns, so that they are told by position."""
    rows = read_rows(path)
    header = next(rows, Row(1, ())).fields
    if [h.strip() for h in header[:2]] != ["Image Index", "Finding Label"] or len(header) < 6:
        raise SourceError(
            f"the header is {shown(','.join(header))}",
            where=f"{path}:1",
            expected="the columns Image Index, Finding Label, Bbox [x, y, w, h]",
            remedy="fetch BBox_List_2017.csv again",
        )
    for row in rows:
        if len(row.fields) < 6 or any(f.strip() for f in row.fields[6:]):
            raise SourceError(
                f"this row has {len(row.fields)} fields",
                where=f"{path}:{row.line}",
                expected="image, finding, x, y, w, h",
                remedy="check that the file was copied completely; fetch it again",
            )
        yield row


def _box(fields: Sequence[str]) -> BoxResult:
    values = numbers(fields)
    if isinstance(values, BoxResult):
        return values
    x, y, width, height = values
    return check_box((x, y, x + width, y + height))


def _sizes(root: Path, files: list[Path]) -> dict[str, tuple[int, int]]:
    """Sizes of converted images, by image."""
    path = root / SIZES
    if not path.exists():
        return {}
    files.append(path)
    sizes = {}
    for row in read_table(path, SIZE_COLUMNS):
        image, *sides = row.fields
        if not all(s.strip().isdecimal() and int(s[:9]) > 0 for s in sides) or image in sizes:
            raise SourceError(
                f"{shown(row.fields)} is no size, or the second one of its image",
                where=f"{path}:{row.line}",
                expected="an image, its width and its height in pixels",
            )
        sizes[image] = (int(sides[0][:9]), int(sides[1][:9]))
    return sizes


def _subjects(root: Path, files: list[Path], groups: Grouping[tuple[str, str]]) -> dict[str, Subject]:
    """Sex, age and view by image, from the metadata beside the box list."""
    path = next((root / name for name in _METADATA if (root / name).exists()), None)
    if path is None:
        return {}
    files.append(path)
    subjects: dict[str, Subject] = {}
    columns = ("Image Index", "Patient Age", "View Position")
    for row in read_table(path, columns, optional=("Patient Gender", "Patient Sex")):
        image, age, view, sex, other = (field.strip() for field in row.fields)
        at = At(path, row.line)
        if image in subjects:
            groups.report(at, f"image {shown(image)} is there twice; the first row counts")
            continue
        digits = age.upper().removesuffix("Y")
        years = int(digits) if digits.isdecimal() and len(digits) < 4 else None
        if years is None or years > _OLDEST:
            groups.report(at, f"Patient Age is {shown(age)}; taken as unknown")
            years = None
        sex = (sex or other).upper()
        subjects[image] = Subject(sex if sex in ("M", "F", "O") else None, years, view.upper() or None)
    return subjects


def _image_path(folders: list[Path], image: str, where: str) -> Path:
    """The first file there is under the image's name, as .png or .jpg; where there is none, the name itself."""
    stem = image.rsplit(".", 1)[0]
    for folder in folders:
        for name in dict.fromkeys((image, f"{stem}.png", f"{stem}.jpg", f"{stem}.jpeg")):
            path = safe_path(folder, name, where)
            if path.is_file():
                return path
    return safe_path(folders[0], image, where)
