"""Chest ImaGenome 1.0.0, gold set, over MIMIC-CXR-JPG 2.1.0.

Files looked for below the root (the first that exists):

- annotations ``gold_object_attribute_with_coordinates.txt`` in ``chest-imagenome/1.0.0/gold_dataset/``,
  ``physionet.org/files/chest-imagenome/1.0.0/gold_dataset/``, ``1.0.0/gold_dataset/``, ``gold_dataset/`` or the root;
- images ``p{first two digits}/p{patient}/s{study}/{image}.jpg`` in ``mimic-cxr-jpg/2.1.0/files/``,
  ``physionet.org/files/mimic-cxr-jpg/2.1.0/files/``, ``2.1.0/files/`` or ``files/``.

Candidates: rows with ``relation == 1`` whose ``categoryID`` is ``anatomicalfinding`` or ``disease``, grouped by
(patient_id, study_id, image_id, label_name, categoryID) and sorted by that key with the first two as integers;
boxes are the rows' ``coord_original`` in file order, the attribute is ``label_name`` and the regions are the rows'
``bbox``, where the file has that column. Rows with a relation other than 1 and 0 or a ``categoryID`` that the gold set
does not have are left out and reported.
"""

from __future__ import annotations

from pathlib import Path

from medground_bench.core.errors import SourceError
from medground_bench.sources._groups import At, Grouping, Named
from medground_bench.sources._tables import find, parse_box, read_table, safe_path, shown
from medground_bench.sources.base import Source, SourceInfo

__all__ = ["INFO", "read"]

_TABLE = "gold_object_attribute_with_coordinates.txt"
_TABLES = tuple(
    f"{folder}{_TABLE}"
    for folder in (
        "chest-imagenome/1.0.0/gold_dataset/",
        "physionet.org/files/chest-imagenome/1.0.0/gold_dataset/",
        "1.0.0/gold_dataset/",
        "gold_dataset/",
        "",
    )
)
_IMAGES = (
    "mimic-cxr-jpg/2.1.0/files",
    "physionet.org/files/mimic-cxr-jpg/2.1.0/files",
    "2.1.0/files",
    "files",
)
_COLUMNS = ("patient_id", "study_id", "image_id", "relation", "label_name", "categoryID", "coord_original")
_CATEGORIES = ("anatomicalfinding", "disease")
_OTHER_CATEGORIES = ("technicalassessment", "tubesandlines", "device", "devices", "nlp", "texture")

INFO = SourceInfo(
    key="imagenome",
    title="Chest ImaGenome 1.0.0 (gold set) with MIMIC-CXR-JPG 2.1.0",
    licence="PhysioNet Credentialed Health Data License 1.5.0",
    url="https://physionet.org/content/chest-imagenome/1.0.0/",
    citation="Wu et al., Chest ImaGenome Dataset for Clinical Reasoning, NeurIPS Datasets and Benchmarks 2021; "
    "Johnson et al., MIMIC-CXR-JPG, arXiv:1901.07042",
    credentialed=True,
    obtain="Become a credentialed PhysioNet user (training in human research, data use agreement), then download "
    "chest-imagenome/1.0.0/gold_dataset and, from https://physionet.org/content/mimic-cxr-jpg/2.1.0/, the JPEG "
    "files of its 1,000 gold images.",
    layout=(
        f"chest-imagenome/1.0.0/gold_dataset/{_TABLE}",
        "mimic-cxr-jpg/2.1.0/files/p10/p10000032/s50414267/<image_id>.jpg",
    ),
    largest_index=1404,
)


def read(root: Path) -> Source:
    """Enumerate the gold set below ``root``."""
    path = find(root, _TABLES, f"the annotation file {_TABLE}")
    images = next((root / p for p in _IMAGES if (root / p).is_dir()), root / _IMAGES[0])
    groups: Grouping[tuple[int, int, str, str, str]] = Grouping()
    for row in read_table(path, _COLUMNS, delimiter="\t", optional=("bbox",)):
        patient, study, image, relation, label, category, coordinates, region = row.fields
        at = At(path, row.line)
        if category.strip() not in _CATEGORIES:
            if category.strip() not in _OTHER_CATEGORIES:
                groups.report(at, f"categoryID is {shown(category)}, which the gold set does not have; left out")
            continue
        related = _number(relation)
        if related not in (0, 1):
            groups.report(at, f"relation is {shown(relation)} instead of 1 or 0; left out")
        if related != 1:
            continue
        if not label.strip() or not image.strip():
            raise SourceError("label_name or image_id is empty", where=at, expected="a finding and its image")
        key = (_integer(patient, "patient_id", at), _integer(study, "study_id", at), image, label, category)
        groups.add(key, at, row.fields, parse_box(coordinates), region=region.strip())

    def name(key: tuple[int, int, str, str, str], where: str) -> Named:
        patient, study, image, label, _ = key
        image = image.removesuffix(".dcm")
        relative = f"p{str(patient)[:2]}/p{patient}/s{study}/{image}.jpg"
        return Named(image, str(patient), label, safe_path(images, relative, where))

    return groups.source(INFO, root, (path,), name)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _integer(text: str, column: str, at: At) -> int:
    # MIMIC's ids have eight digits; int() refuses thousands.
    if not text.strip().isdecimal() or len(text.strip()) > 18:
        raise SourceError(f"{column} is {shown(text)}", where=at, expected="a whole number")
    return int(text)
