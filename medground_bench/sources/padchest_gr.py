"""PadChest-GR: grounded radiology reports with 16-bit PNG images.

Files looked for below the root (the first that exists; each also inside ``PadChest_GR/`` or ``padchest-gr/``):

- ``filtered_studies.json``, the list the released records index into: its first 2,000 entries are used;
- ``grounded_reports_20240819.json``, the official file: the same entries unfiltered, all of them used. Candidates can
  be built from it, but released records cannot be joined to it by index;
- images ``{ImageID}`` in ``PadChest_GR/``, ``images/`` or the folder of the annotation file.

Candidates: within an entry, every finding with ``abnormal`` true and any of ``boxes`` and ``extra_boxes``, in file
order; the attribute is the labels joined with `` or ``; the boxes are ``boxes + extra_boxes`` (fractions of the image)
times the image's size, rounded half to even. Sizes are read from file headers. An image that is missing or unreadable
leaves its candidates without boxes, which is reported as a problem of the image. A finding without ``abnormal`` is left
out and reported; images and findings that are there twice keep their places and are reported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medground_bench.core.errors import ImageError, SourceError
from medground_bench.core.schema import Box, Candidate
from medground_bench.imaging.read import image_size
from medground_bench.sources._patients import patients_of_studies, read_patients
from medground_bench.sources._tables import (
    BoxResult,
    box_of,
    check_box,
    check_text,
    field_of,
    find,
    load_json,
    number_repeats,
    safe_path,
    shown,
)
from medground_bench.sources.base import SIZE_UNKNOWN, Source, SourceInfo

__all__ = ["ENTRIES", "INFO", "read"]

ENTRIES = 2000
"""The released records were made from the first 2,000 entries of the filtered list."""

_FILTERED = "filtered_studies.json"
_OFFICIAL = "grounded_reports_20240819.json"
_FOLDERS = ("", "PadChest_GR/", "padchest-gr/")
_PATIENTS = tuple(f"{folder}patients.csv" for folder in _FOLDERS)
_TABLES = tuple(folder + name for name in (_FILTERED, _OFFICIAL) for folder in _FOLDERS)

INFO = SourceInfo(
    key="padchest_gr",
    title="PadChest-GR",
    licence="BIMCV PadChest-GR research use agreement (access on request; no redistribution)",
    url="https://bimcv.cipf.es/bimcv-projects/padchest-gr/",
    citation="de Castro et al., PadChest-GR: A Bilingual Chest X-ray Dataset for Grounded Radiology Report Generation, "
    "arXiv:2411.05085",
    credentialed=True,
    obtain="Request access from BIMCV and accept the research use agreement, then download the images and "
    f"{_OFFICIAL}. Records released by index need {_FILTERED}, the filtered list of the paper's code.",
    layout=(f"{_FILTERED} (or {_OFFICIAL}, for candidates only)", "PadChest_GR/<ImageID> (16-bit PNG)"),
    largest_index=2647,
    bits=16,
)


def read(root: Path) -> Source:
    """Enumerate the grounded findings below ``root``.

    The file names studies. Those linked by ``PreviousStudyID`` are of one patient, over the whole file; a table
    ``patients.csv`` (columns ``StudyID`` and ``PatientID``, for instance from PadChest's own table) is believed before
    the links. Without either, a study stands for a patient of its own.
    """
    path = find(root, _TABLES, f"the annotation file {_FILTERED} (or {_OFFICIAL})")
    entries = load_json(path, list, "a list of studies")
    filtered = path.name == _FILTERED
    images = next((p for p in (root / "PadChest_GR", root / "images") if p.is_dir()), path.parent)
    listing = _Listing(path, images)
    for number, entry in enumerate(entries[:ENTRIES] if filtered else entries):
        listing.add_entry(number, entry)
    refusal = (
        None
        if filtered
        else (
            f"{_OFFICIAL} is not filtered: its candidates stand at other positions than those the released records name"
        )
    )
    table = next((root / name for name in _PATIENTS if (root / name).exists()), None)
    known = read_patients(table) if table is not None else {}
    for number, entry in enumerate(entries):
        for key in ("StudyID", "PreviousStudyID") if isinstance(entry, dict) else ():
            _id(entry, key, f"{path}: entry {number}")
    patients = patients_of_studies(entries, known)
    of_patients = [replace(c, patient_id=patients.get(c.patient_id, c.patient_id)) for c in listing.candidates]
    return Source(
        INFO,
        root,
        number_repeats(of_patients),
        notes=[_patient_note(patients, known, table)],
        rows=listing.rows,
        files=[path] if table is None else [path, table],
        faults=listing.faults,
        reports=listing.reports,
        join_refusal=refusal,
    )


def _patient_note(patients: Mapping[str, str], known: Mapping[str, str], table: Path | None) -> str:
    """How patients were told apart, for the dataset's card."""
    count = f"{len(set(patients.values())):,} patients of {len(patients):,} studies"
    links = "studies linked by PreviousStudyID are of one patient, and a study without a link is a patient of its own"
    if table is None:
        return f"`{INFO.key}`: {count}; {links}."
    other = sum(study not in known for study in patients)
    rest = f"; of {other:,} studies not in it: {links}" if other else ""
    return f"`{INFO.key}`: {count}, from {table.name}{rest}."


class _Listing:
    """Candidates of the entries added so far."""

    def __init__(self, path: Path, images: Path) -> None:
        self.path = path
        self.images = images
        self.candidates: list[Candidate] = []
        self.rows: list[str] = []
        self.faults: list[str] = []
        self.reports: list[str] = []
        self._images: dict[str, int] = {}

    def add_entry(self, number: int, entry: Any) -> None:
        where = f"{self.path}: entry {number}"
        image_id, findings = field_of(entry, "ImageID", str, where), field_of(entry, "findings", list, where)
        study = str(_id(entry, "PatientID", where) or _id(entry, "StudyID", where) or image_id)
        first = self._images.setdefault(image_id, number)
        if first != number:
            self.reports.append(f"{where}: image {image_id} is there twice, first in entry {first}; both are used")
        seen: dict[str, int] = {}
        image: tuple[Path, tuple[int, int] | str] | None = None
        for position, finding in enumerate(findings):
            where_finding = f"{where}, finding {position}"
            if isinstance(finding, dict) and finding.get("abnormal") is None:
                self.reports.append(f"{where_finding}: 'abnormal' is missing; left out")
                continue
            if not field_of(finding, "abnormal", bool, where_finding):
                continue
            fractions = list(_raw_boxes(finding, where_finding))
            if not fractions:
                continue
            same = seen.setdefault(json.dumps(finding, sort_keys=True), position)
            if same != position:
                self.reports.append(f"{where_finding}: the same as finding {same}; both keep their places")
            if image is None:  # the header is read once per entry, and only if a finding needs it
                image_path = safe_path(self.images, image_id, where)
                image = (image_path, _size(image_path))
            boxes, problems = self._boxes(fractions, image[1], where_finding)
            labels = _labels(finding, where_finding)
            if not labels:
                boxes, problems = [], [*problems, f"{where_finding}: no label"]
            self.rows.append(f"{self.path.name}: entry {number}, finding {position}")
            self.candidates.append(
                Candidate(
                    index=len(self.candidates),
                    dataset=INFO.key,
                    image_id=image_id,
                    patient_id=study,
                    attribute=" or ".join(labels),
                    boxes=tuple(boxes),
                    image_path=image[0],
                    problems=tuple(problems),
                )
            )

    def _boxes(
        self, fractions: list[BoxResult], size: tuple[int, int] | str, where: str
    ) -> tuple[list[Box], list[str]]:
        boxes: list[Box] = []
        problems: list[str] = []
        for result in fractions:
            if result.box is not None and not isinstance(size, str):
                (x1, y1, x2, y2), (w, h) = result.box, size
                result = check_box((x1 * w, y1 * h, x2 * w, y2 * h), rounded=True)
            if result.box is None:
                problems.append(f"{where}: {result.problem}")
                if result.fault:
                    self.faults.append(problems[-1])
            elif not isinstance(size, str):
                boxes.append(result.box)
        if isinstance(size, str):
            problems.append(f"{where}: {SIZE_UNKNOWN}: {size}")
        return boxes, problems


def _size(path: Path) -> tuple[int, int] | str:
    try:
        return image_size(path)
    except ImageError as error:
        return f"{path}: {error.message}"


def _id(entry: dict[str, Any], key: str, where: str) -> str | int | None:
    value = entry.get(key)
    if value is None or value != value:  # NaN, which some writers put for nothing
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text: str = field_of(entry, key, str, where)
    return text


def _labels(finding: dict[str, Any], where: str) -> list[str]:
    labels = field_of(finding, "labels", list, where)
    if not all(isinstance(label, str) for label in labels):
        raise SourceError(f"'labels' is {shown(labels)}", where=where, expected="a list of texts")
    return [check_text(label, "labels", where) for label in labels]


def _raw_boxes(finding: dict[str, Any], where: str) -> Iterator[BoxResult]:
    """Boxes of a finding as fractions; negatives often lack the keys, which then counts as no box."""
    for key in ("boxes", "extra_boxes"):
        if finding.get(key) is not None:
            for box in field_of(finding, key, list, where):
                yield box_of(box, key)
