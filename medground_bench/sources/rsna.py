"""RSNA Pneumonia Detection Challenge 2018: images of NIH ChestX-ray14 with boxes by 18 radiologists. Open, with terms.

Files looked for below the root:

- annotations ``stage_2_train_labels.csv`` (``patientId,x,y,width,height,Target``): one row a box; ``Target`` 0 has
  empty box fields;
- images ``stage_2_train_images/{patientId}.dcm``, 1024 x 1024; their headers give sex, age and view;
- optional ``nih_names.json``: patientId -> NIH image index (``medground_bench.sources._nih_names``).

Candidates: rows of Target 1, grouped and sorted by ``patientId``, boxes in file order; x, y, width, height becomes x1,
y1, x2, y2, not rounded. The attribute is pneumonia (the annotators marked "lung opacity" suspicious of it).
``patientId`` names an image; without an NIH name it stands for the patient, too.
"""

from __future__ import annotations

from pathlib import Path

from medground_bench.core.errors import SourceError
from medground_bench.imaging.dicom import dicom_subject
from medground_bench.sources._groups import At, Grouping, Named, Subject
from medground_bench.sources._nih_names import NIH_NAMES, NihNames
from medground_bench.sources._tables import BoxResult, check_box, find, numbers, read_table, safe_path, shown
from medground_bench.sources.base import Source, SourceInfo

__all__ = ["ATTRIBUTE", "INFO", "SIDE", "read"]

ATTRIBUTE = "pneumonia"

SIDE = (1024, 1024)
"""Width and height of every image; the boxes are stated on it."""

_TABLE = "stage_2_train_labels.csv"
_IMAGES = "stage_2_train_images"
_COLUMNS = ("patientId", "x", "y", "width", "height", "Target")

INFO = SourceInfo(
    key="rsna",
    title="RSNA Pneumonia Detection Challenge 2018 (stage 2, training images)",
    licence="RSNA terms of use: free to use with attribution; images: no restrictions on use, acknowledge the NIH "
    "Clinical Center",
    url="https://www.rsna.org/rsnai/ai-image-challenge/rsna-pneumonia-detection-challenge-2018",
    citation="Shih et al., Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert "
    "Annotations of Possible Pneumonia, Radiology: Artificial Intelligence 2019; Wang et al., ChestX-ray8, CVPR 2017",
    credentialed=False,
    obtain="Accept the terms and download the challenge's files from the RSNA page or from Kaggle "
    "(rsna-pneumonia-detection-challenge).",
    layout=(_TABLE, f"{_IMAGES}/<patientId>.dcm", f"{NIH_NAMES} (optional)"),
)


def read(root: Path) -> Source:
    """Enumerate the boxes below ``root``."""
    path = find(root, (_TABLE,), f"the annotation file {_TABLE}")
    names = NihNames(root)
    groups: Grouping[str] = Grouping()
    targets: dict[str, tuple[str, At]] = {}
    negatives: dict[str, At] = {}
    for row in read_table(path, _COLUMNS):
        image, *fields, target = (field.strip() for field in row.fields)
        at = At(path, row.line)
        if not image:
            raise SourceError("patientId is empty", where=at)
        if target not in ("0", "1"):
            groups.report(at, f"Target of {shown(image)} is {shown(target)} instead of 0 or 1; left out")
            continue
        first = targets.setdefault(image, (target, at))
        if first[0] != target:
            groups.report(at, f"Target of {shown(image)} is {target}, at {first[1].place} it is {first[0]}")
        if target == "1":
            groups.add(image, at, tuple(fields), _box(fields))
            continue
        if any(fields):
            groups.report(at, f"Target of {shown(image)} is 0 and there is a box; left out")
        if image in negatives:
            groups.report(at, f"this row is there twice, first at {negatives[image].place}")
        negatives.setdefault(image, at)
    groups.reports += names.unknown(targets)

    def name(image: str, where: str) -> Named:
        image_id, patient_id = names.ids(image)
        file = safe_path(root / _IMAGES, f"{image}.dcm", where)
        return Named(image_id, patient_id, ATTRIBUTE, file, SIDE, Subject(*dicom_subject(file)))

    return groups.source(INFO, root, [path, *names.files], name)


def _box(fields: list[str]) -> BoxResult:
    if not any(fields):
        return BoxResult(None, "Target is 1 and there is no box")
    values = numbers(fields)
    if isinstance(values, BoxResult):
        return values
    x, y, width, height = values
    return check_box((x, y, x + width, y + height))
