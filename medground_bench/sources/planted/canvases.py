"""Finding canvases in a folder: which images may be planted on, and why the others may not."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from medground_bench.core.errors import SourceError

__all__ = ["ADULT", "CanvasFile", "list_canvases"]

ADULT = 18
"""Least age in years: the references of the anatomy are adults."""

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")
_SHORTER, _LONGER = 0.55, 1.6  # width over height of a frontal radiograph
_SMALLEST = 128  # pixels of the shorter side


@dataclass(frozen=True)
class CanvasFile:
    """An image file of a canvas folder.

    Attributes
    ----------
    path : Path
        The file.
    image_id, patient_id : str
        The file's name without suffix; the manifest's patient, else the image.
    refusal : str or None
        Why it cannot be a canvas, as far as the manifest and the file's name say.
    """

    path: Path
    image_id: str
    patient_id: str
    refusal: str | None = None


def list_canvases(folder: str | Path, manifest: str | Path | None = None) -> list[CanvasFile]:
    """The images of a canvas folder, by name.

    Parameters
    ----------
    folder : path
        Holds the images itself or in ``images/``; other folders below it are not looked into.
    manifest : path, optional
        CSV with the column ``image`` (file name) and, where known, ``patient_id``, ``age`` (years) and ``view``; by
        default ``manifest.csv`` in the folder, if there is one. Images that it does not name, children and views other
        than AP and PA are refused. Without one, only the images themselves can tell.

    Raises
    ------
    SourceError
        If the folder or the manifest is missing or malformed, or there is no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError("this folder does not exist", where=folder, expected="a folder of frontal radiographs")
    images = folder / "images" if (folder / "images").is_dir() else folder
    path = Path(manifest) if manifest is not None else folder / "manifest.csv"
    rows = _read_manifest(path) if manifest is not None or path.is_file() else None
    out = []
    seen: dict[str, str] = {}
    for file in sorted(p for p in images.iterdir() if p.is_file() and not p.name.startswith(".")):
        if file == path or (images == folder and file.suffix.lower() in (".csv", ".txt", ".md", ".json")):
            continue  # papers beside the images
        refusal = None
        if file.suffix.lower() not in _SUFFIXES:
            refusal = f"not an image file ({', '.join(_SUFFIXES)} are read)"
        elif file.stem in seen:
            refusal = f"{seen[file.stem]} has the same image id"
        elif rows is not None:
            refusal = rows[file.name].refusal if file.name in rows else f"not named in {path.name}"
        seen.setdefault(file.stem, file.name)
        patient = rows[file.name].patient if rows is not None and file.name in rows else file.stem
        out.append(CanvasFile(file, file.stem, patient, refusal))
    for name, row in (rows or {}).items():
        if not (images / name).is_file():
            out.append(CanvasFile(images / name, Path(name).stem, row.patient, f"named in {row.where}, not there"))
    if not out:
        raise SourceError("there is no image in this folder", where=images, expected=f"{', '.join(_SUFFIXES)} files")
    return out


def size_refusal(width: int, height: int) -> str | None:
    """Why an image of this size is no canvas, None when it may be one."""
    if min(width, height) < _SMALLEST:
        return f"{width}x{height} pixels: findings would not be seen (the shorter side must have {_SMALLEST})"
    if not _SHORTER <= width / height <= _LONGER:
        return f"{width}x{height} pixels: a frontal radiograph is {_SHORTER} to {_LONGER} times as wide as high"
    return None


@dataclass(frozen=True)
class _Row:
    patient: str
    refusal: str | None
    where: str


def _read_manifest(path: Path) -> dict[str, _Row]:
    if not path.is_file():
        raise SourceError("this manifest does not exist", where=path, expected="a CSV file with the column image")
    rows: dict[str, _Row] = {}
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            if "image" not in (reader.fieldnames or ()):
                raise SourceError(
                    "there is no column 'image'",
                    where=f"{path}:1",
                    expected="a header with image and, where known, patient_id, age and view",
                )
            for row in reader:
                where = f"{path.name}:{reader.line_num}"
                name = (row["image"] or "").strip()
                if not name or Path(name).name != name:
                    raise SourceError(f"image {name!r} is not a file name", where=f"{path}:{reader.line_num}")
                if name in rows:
                    raise SourceError(
                        f"{name} is named twice", where=f"{path}:{reader.line_num}", expected="one row an image"
                    )
                patient = (row.get("patient_id") or "").strip() or Path(name).stem
                rows[name] = _Row(patient, _age_refusal(row, where) or _view_refusal(row, where), where)
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"this file cannot be read as CSV: {error}", where=path) from error
    return rows


def _age_refusal(row: dict[str, str | None], where: str) -> str | None:
    text = (row.get("age") or "").strip()
    if not text:
        return None
    years = text.upper().removesuffix("Y")
    if text[-1:].upper() in ("M", "W", "D") and text[:-1].isdecimal():
        return f"a child ({where}: age {text})"
    try:
        age = float(years)
    except ValueError:
        return f"age {text!r} is not a number of years ({where})"
    return None if age >= ADULT else f"a child ({where}: age {text})"


def _view_refusal(row: dict[str, str | None], where: str) -> str | None:
    view = (row.get("view") or "").strip()
    if not view or view.upper().split()[0] in ("AP", "PA", "FRONTAL"):
        return None
    return f"not a frontal view ({where}: {view})"
