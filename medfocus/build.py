"""Making reference pools: from Chest ImaGenome's normal studies, and from phantoms."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medfocus.atlas import Reference, ReferencePool
from medground_bench.core.anatomy import CONCEPTS
from medground_bench.core.errors import AtlasError, MedGroundError, SourceError
from medground_bench.core.files import within
from medground_bench.core.schema import Box
from medground_bench.imaging.read import read_image
from medground_bench.sources._tables import read_table
from medground_bench.sources.phantom import sample_phantom

__all__ = ["PHANTOM_SEED", "imagenome_pool", "phantom_pool"]

POOL_SIZE = 16
PHANTOM_SEED = 900_000
"""First seed of the shipped phantom pool, far from the seeds that datasets are drawn from."""

_PHANTOM_SIDE = 224
_STORED_SIDE = 512  # longer side of a stored radiograph: four times what registration looks at

_GOLD = (
    "chest-imagenome/1.0.0/gold_dataset",
    "physionet.org/files/chest-imagenome/1.0.0/gold_dataset",
    "1.0.0/gold_dataset",
    "gold_dataset",
    ".",
)
_FILES = (
    "mimic-cxr-jpg/2.1.0/files",
    "physionet.org/files/mimic-cxr-jpg/2.1.0/files",
    "2.1.0/files",
    "files",
)
_ATTRIBUTES = "gold_object_attribute_with_coordinates.txt"
_BOXES = "gold_bbox_coordinate_annotations_1000images.csv"
_CORNERS = ("original_x1", "original_y1", "original_x2", "original_y2")

IMAGENOME_NOTES = {
    "origin": "Chest ImaGenome 1.0.0 gold set and MIMIC-CXR-JPG 2.1.0, normal studies",
    "licence": "PhysioNet Credentialed Health Data License 1.5.0: local use only, never redistribute this folder",
}
PHANTOM_NOTES = {"origin": "procedural phantoms without findings", "licence": "Apache-2.0"}


def phantom_pool(count: int = POOL_SIZE, seed: int = PHANTOM_SEED, side: int = _PHANTOM_SIDE) -> ReferencePool:
    """References drawn from normal phantoms, with exact masks of the 11 concepts.

    Each is drawn at twice the size and averaged down, which leaves little noise to store.
    """
    references = []
    for number in range(count):
        phantom = sample_phantom(seed + number, size=2 * side, findings=[])
        masks = {concept: _halved(mask) >= 0.5 for concept, mask in phantom.masks.items()}
        image = np.rint(_halved(phantom.image)).astype(np.uint8)
        kept = {concept: mask for concept, mask in masks.items() if mask.any()}
        references.append(Reference(f"phantom {seed + number}", image, kept))
    return ReferencePool(references, name="phantom")


def _halved(values: np.ndarray) -> np.ndarray:
    height, width = values.shape
    return values.reshape(height // 2, 2, width // 2, 2).mean((1, 3))


@dataclass
class _Study:
    """One gold image: where it is, whether it is normal, and its anatomy boxes."""

    patient: int
    study: int
    findings: int = 0
    boxes: dict[str, Box] = field(default_factory=dict)

    def cover(self) -> dict[str, Box] | None:
        """Boxes of all concepts, or None where one is missing."""
        boxes = dict(self.boxes)
        a, b = boxes.get("upper mediastinum"), boxes.get("cardiac silhouette")
        if "mediastinum" not in boxes and a is not None and b is not None:
            # The gold boxes have no mediastinum: there it is the union of these two.
            boxes["mediastinum"] = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
        return {c: boxes[c] for c in CONCEPTS} if all(c in boxes for c in CONCEPTS) else None


def imagenome_pool(
    root: str | Path, count: int = POOL_SIZE, progress: Callable[[int, int], None] | None = None
) -> ReferencePool:
    """References from the normal studies of the Chest ImaGenome gold set.

    A study is normal when none of its rows with ``relation == 1`` is an anatomical finding or a disease. Of those
    whose boxes cover all 11 concepts (mediastinum = upper mediastinum with cardiac silhouette where there is none)
    and whose image is there, one per patient, ``count`` are taken evenly from the order of patient and study.

    Parameters
    ----------
    root : path
        Holds the gold set and MIMIC-CXR-JPG's ``files``, in any of the layouts of the source ``imagenome``.
    count : int
        References to take.
    progress : callable, optional
        Called with (read, count).

    Raises
    ------
    AtlasError
        If too few studies qualify; the message says at which step they were lost.
    SourceError
        If an annotation file is missing or malformed.
    """
    root = Path(root)
    gold = _gold_folder(root)
    studies = _read_studies(gold)
    images = next((root / folder for folder in _FILES if (root / folder).is_dir()), root / _FILES[0])
    normal = {image: study for image, study in studies.items() if not study.findings}
    covered = {image: boxes for image, study in normal.items() if (boxes := study.cover()) is not None}
    present: dict[int, tuple[str, Path]] = {}
    for image in sorted(covered, key=lambda name: (studies[name].patient, studies[name].study, name)):
        study = studies[image]
        path = within(images, f"p{str(study.patient)[:2]}/p{study.patient}/s{study.study}/{image}.jpg")
        if path.is_file():
            present.setdefault(study.patient, (image, path))
    if len(present) < count:
        raise AtlasError(
            f"only {len(present)} of the {count} references can be made",
            where=root,
            expected=f"{count} normal studies of different patients with all boxes and their image; found "
            f"{len(studies)} studies, {len(normal)} normal, {len(covered)} with boxes of all concepts, "
            f"{len(present)} patients with the image below {images}",
            remedy="complete the copy of the gold set and of MIMIC-CXR-JPG, or ask for fewer with --count",
        )
    chosen = [list(present.values())[k * len(present) // count] for k in range(count)]
    references = []
    for number, (image, path) in enumerate(chosen):
        references.append(_reference(image, path, covered[image]))
        if progress:
            progress(number + 1, count)
    return ReferencePool(references, name=str(root))


def _gold_folder(root: Path) -> Path:
    for folder in _GOLD:
        if (root / folder / _ATTRIBUTES).is_file() and (root / folder / _BOXES).is_file():
            return root / folder
    raise SourceError(
        f"{_ATTRIBUTES} and {_BOXES} were not found",
        where=root,
        expected=" or ".join(f"{folder}/" for folder in _GOLD[:-1]) + " in this folder, or the files themselves",
        remedy="download chest-imagenome/1.0.0/gold_dataset from PhysioNet (credentialed access)",
    )


def _read_studies(gold: Path) -> dict[str, _Study]:
    studies: dict[str, _Study] = {}
    columns = ("patient_id", "study_id", "image_id", "relation", "categoryID")
    path = gold / _ATTRIBUTES
    for row in read_table(path, columns, delimiter="\t"):
        patient, study, image, relation, category = (value.strip() for value in row.fields)
        if not (patient.isdecimal() and study.isdecimal() and image):
            raise AtlasError("patient_id, study_id or image_id is malformed", where=f"{path}:{row.line}")
        entry = studies.setdefault(image.removesuffix(".dcm"), _Study(int(patient), int(study)))
        entry.findings += relation in ("1", "1.0") and category in ("anatomicalfinding", "disease")
    for image, name, box in _read_boxes(gold / _BOXES):
        if image in studies:
            studies[image].boxes[name] = box
    return studies


def _read_boxes(path: Path) -> list[tuple[str, str, Box]]:
    """(image, anatomy, native box) of every row with four usable corners; half-annotated rows are no box."""
    out = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = {"image_id", "bbox_name", *_CORNERS} - set(reader.fieldnames or ())
        if missing:
            raise AtlasError(f"missing column(s): {', '.join(sorted(missing))}", where=f"{path}:1")
        for row in reader:
            corners = [_number(row[name]) for name in _CORNERS]
            x1, y1, x2, y2 = corners
            if all(math.isfinite(v) for v in corners) and x1 < x2 and y1 < y2:
                out.append((row["image_id"].strip().removesuffix(".dcm"), row["bbox_name"].strip(), (x1, y1, x2, y2)))
    return out


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan


def _reference(name: str, path: Path, boxes: dict[str, Box]) -> Reference:
    from PIL import Image

    image = read_image(path)
    width, height = image.size
    scale = min(1.0, _STORED_SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    sx, sy = size[0] / width, size[1] / height
    scaled = {}
    for concept, (x1, y1, x2, y2) in boxes.items():
        x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
        if x2 <= x1 or y2 <= y1:
            raise MedGroundError(f"the box of {concept} lies outside the image of {width}x{height}", where=path)
        scaled[concept] = (x1 * sx, y1 * sy, x2 * sx, y2 * sy)
    return Reference(name, np.asarray(image.resize(size, Image.Resampling.BOX)), {}, scaled)
