"""VinDr-CXR 1.0.0, test split.

Files looked for below the root (the first that exists):

- annotations ``annotations_test.csv`` in ``vindr-cxr/1.0.0/annotations/``,
  ``physionet.org/files/vindr-cxr/1.0.0/annotations/``, ``1.0.0/annotations/``, ``annotations/`` or the root;
- images ``{image_id}.dicom`` in the folder ``test`` beside ``annotations`` (or beside the csv in the root).

Candidates: rows whose ``class_name`` is not ``No finding``, coordinates rounded to the nearest integer (half to
even), grouped and sorted by (image_id, class_name); the attribute is ``class_name``. A class that the data set does not
have keeps its place and is reported.
"""

from __future__ import annotations

from pathlib import Path

from medground_bench.core.errors import SourceError
from medground_bench.sources._groups import At, Grouping, Named
from medground_bench.sources._tables import BoxResult, check_box, find, numbers, read_table, safe_path, shown
from medground_bench.sources.base import Source, SourceInfo

__all__ = ["INFO", "read"]

_TABLE = "annotations_test.csv"
_TABLES = (
    f"vindr-cxr/1.0.0/annotations/{_TABLE}",
    f"physionet.org/files/vindr-cxr/1.0.0/annotations/{_TABLE}",
    f"1.0.0/annotations/{_TABLE}",
    f"annotations/{_TABLE}",
    _TABLE,
)
_COLUMNS = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
_CLASSES = frozenset(
    {
        "Aortic enlargement",
        "Atelectasis",
        "Calcification",
        "Cardiomegaly",
        "Clavicle fracture",
        "Consolidation",
        "Edema",
        "Emphysema",
        "Enlarged PA",
        "ILD",
        "Infiltration",
        "Lung Opacity",
        "Lung cavity",
        "Lung cyst",
        "Mediastinal shift",
        "Nodule/Mass",
        "Other lesion",
        "Pleural effusion",
        "Pleural thickening",
        "Pneumothorax",
        "Pulmonary fibrosis",
        "Rib fracture",
    }
)

INFO = SourceInfo(
    key="vindr_cxr",
    title="VinDr-CXR 1.0.0 (test split)",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    url="https://physionet.org/content/vindr-cxr/1.0.0/",
    citation="Nguyen et al., VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations, "
    "Scientific Data 2022",
    credentialed=True,
    obtain="Become a credentialed PhysioNet user and sign the data use agreement, then download "
    "vindr-cxr/1.0.0/annotations/annotations_test.csv and vindr-cxr/1.0.0/test (3,000 DICOM files).",
    layout=(f"vindr-cxr/1.0.0/annotations/{_TABLE}", "vindr-cxr/1.0.0/test/<image_id>.dicom"),
    largest_index=2107,
)


def read(root: Path) -> Source:
    """Enumerate the test split below ``root``."""
    path = find(root, _TABLES, f"the annotation file {_TABLE}")
    images = path.parent / "test"
    if path.parent.name == "annotations":
        images = path.parent.parent / "test"
    groups: Grouping[tuple[str, str]] = Grouping()
    for row in read_table(path, _COLUMNS):
        image, label = row.fields[:2]
        if label == "No finding":
            continue
        at = At(path, row.line)
        if not image.strip() or not label.strip():
            raise SourceError("image_id or class_name is empty", where=at)
        values = numbers(row.fields[2:])
        box = values if isinstance(values, BoxResult) else check_box(values, True)
        groups.add((image, label), at, row.fields, box)
        if label not in _CLASSES:
            groups.problem((image, label), at, f"class_name is {shown(label)}, which VinDr-CXR does not have")

    def name(key: tuple[str, str], where: str) -> Named:
        image, label = key
        return Named(image, image, label, safe_path(images, f"{image}.dicom", where))

    return groups.source(INFO, root, (path,), name)
