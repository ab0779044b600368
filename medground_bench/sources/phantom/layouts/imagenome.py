"""Chest ImaGenome (gold set) with MIMIC-CXR-JPG: two annotation files and a tree of JPEGs.

``chest-imagenome/1.0.0/gold_dataset/gold_object_attribute_with_coordinates.txt`` holds the findings,
``gold_bbox_coordinate_annotations_1000images.csv`` beside it the anatomies,
``mimic-cxr-jpg/2.1.0/files/p../p../s../*.jpg`` the images.

Irregularities on purpose: rows with relation 0 and rows of the categories that make no candidates; diseases beside the
findings; several rows of one label; patients with several studies whose ids do not sort as text; anatomies without
coordinates. Coordinates of a finding are its own tight boxes (the real file gives the anatomy that holds it).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from medground_bench.core.files import atomic_write
from medground_bench.core.schema import Box
from medground_bench.sources.phantom.layouts.common import Drawn, Row, Written, digest, jitter, sorted_groups
from medground_bench.sources.phantom.sample import Phantom, mask_box

__all__ = ["anatomy", "names", "write_image", "write_tables"]

_GOLD = "chest-imagenome/1.0.0/gold_dataset"
_LABELS = {
    "cardiomegaly": "enlarged cardiac silhouette",
    "aortic enlargement": "mediastinal widening",
    "hilar enlargement": "enlarged hilum",
    "consolidation": "consolidation",
    "atelectasis": "atelectasis",
    "lung mass": "mass/nodule (not otherwise specified)",
    "nodule": "mass/nodule (not otherwise specified)",
    "pneumothorax": "pneumothorax",
    "pleural effusion": "pleural effusion",
    "clavicle fracture": "clavicle fracture",
}
_DISEASES = {"consolidation": "pneumonia", "pleural effusion": "fluid overload/heart failure"}
_HEADER = [
    "patient_id",
    "study_id",
    "image_id",
    "bbox",
    "relation",
    "context",
    "label_name",
    "categoryID",
    "coord224",
    "coord_original",
]
_BOX_HEADER = [
    "image_id",
    "x1",
    "y1",
    "x2",
    "y2",
    "width",
    "height",
    "bbox_name",
    "annot_id",
    "original_x1",
    "original_x2",
    "original_y1",
    "original_y2",
]


def names(seed: int, number: int) -> tuple[str, str, str]:
    """Image id, patient id and file of an image; two consecutive images are of one patient."""
    patient = 10_000_000 + int(digest("patient", seed, number // 2)[:12], 16) % 9_000_000
    # Short and long study numbers: as text they would sort otherwise.
    study = (5_000_000 if number % 3 else 50_000_000) + int(digest("study", seed, number)[:12], 16) % 900_000
    h = digest("mimic", seed, number)
    image_id = f"{h[:8]}-{h[8:16]}-{h[16:24]}-{h[24:32]}-{digest(h)[:8]}"
    file = f"mimic-cxr-jpg/2.1.0/files/p{str(patient)[:2]}/p{patient}/s{study}/{image_id}.jpg"
    return image_id, str(patient), file


def write_image(phantom: Phantom, path: Path, number: int) -> None:
    """8-bit grey JPEG of quality 95, as MIMIC-CXR-JPG."""
    Image.fromarray(phantom.image).save(path, quality=95)


def anatomy(phantom: Phantom) -> dict[str, Box]:
    """Boxes of the gold anatomies that the phantom has."""
    out: dict[str, Box] = {}
    for name, mask in phantom.masks.items():
        box = mask_box(mask)
        # The gold boxes lack the mediastinum.
        if box is not None and name != "mediastinum":
            out[name] = box
    for side in ("left", "right"):
        x1, y1, x2, y2 = out[f"{side} lung"]
        third = (y2 - y1) / 3
        for k, zone in enumerate(("upper", "mid", "lower")):
            out[f"{side} {zone} lung zone"] = (x1, round(y1 + k * third), x2, round(y1 + (k + 1) * third))
        out[f"{side} apical zone"] = (x1, y1, x2, round(y1 + 0.5 * third))
        out[f"{side} hemidiaphragm"] = (x1, round(y2 - 0.6 * third), x2, y2)
    return out


def write_tables(folder: Path, drawn: Sequence[Drawn]) -> Written:
    """The two annotation files."""
    rows: list[Row] = []
    others: list[list[str]] = []
    for one in drawn:
        rows += _finding_rows(one)
        others += _other_rows(one)
    rows.sort(key=lambda row: digest(*row.fields))
    table = sorted([row.fields for row in rows] + others, key=lambda fields: digest(*fields))
    with atomic_write(folder / _GOLD / "gold_object_attribute_with_coordinates.txt") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(_HEADER)
        writer.writerows(table)
    with atomic_write(folder / _GOLD / "gold_bbox_coordinate_annotations_1000images.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_BOX_HEADER)
        for one in drawn:
            writer.writerows(_anatomy_rows(one))
    written = Written("imagenome", folder)
    for (_, _, _, label, _), group in sorted_groups(rows):
        written.add_group(label, group)
    return written


def _row(one: Drawn, where: str, relation: int, label: str, category: str, box: Box) -> list[str]:
    context = "yes" if relation else "no"
    small = [round(v) for v in _to_224(one, box)]
    return [*_ids(one), where, str(relation), context, label, category, str(small), str([int(v) for v in box])]


def _ids(one: Drawn) -> list[str]:
    study = Path(one.file).parent.name.removeprefix("s")
    return [one.patient, study, f"{one.image_id}.dcm"]


def _finding_rows(one: Drawn) -> list[Row]:
    r = jitter(one)
    out = []
    for finding in one.findings:
        names = [(_LABELS[finding.attribute], "anatomicalfinding")]
        disease = _DISEASES.get(finding.attribute)
        if disease and r.random() < 0.5:
            names.append((disease, "disease"))
        for label, category in names:
            for box in finding.boxes:
                fields = _row(one, finding.concept, 1, label, category, box)
                key = (int(fields[0]), int(fields[1]), fields[2], label, category)
                out.append(Row(key, fields, box, one, finding.attribute, finding.concept))
    return out


def _other_rows(one: Drawn) -> list[list[str]]:
    """Rows that make no candidates: negative relations and the other categories."""
    r = jitter(one)
    present = {_LABELS[f.attribute] for f in one.findings}
    lung = one.anatomy["right lung"]
    out = [
        _row(one, "right lung", 0, label, "anatomicalfinding", lung)
        for label in sorted(set(_LABELS.values()) - present)
        if r.random() < 0.4
    ]
    out.append(_row(one, "right lung", int(bool(one.findings)), "abnormal", "nlp", lung))
    if r.random() < 0.3:
        out.append(
            _row(one, "upper mediastinum", 1, "rotated", "technicalassessment", one.anatomy["upper mediastinum"])
        )
    if r.random() < 0.3:
        out.append(_row(one, "right lung", 1, "chest tube", "tubesandlines", lung))
    if r.random() < 0.3:
        out.append(_row(one, "right lung", 1, "opacity", "texture", lung))
    return out


def _anatomy_rows(one: Drawn) -> list[list[str]]:
    out = []
    for number, (name, box) in enumerate(sorted(one.anatomy.items())):
        x1, y1, x2, y2 = (round(v) for v in _to_224(one, box))
        a, b, c, d = (int(v) for v in box)
        values = [x1, y1, x2, y2, x2 - x1, y2 - y1, name, f"{one.image_id[:8]}-{number}", a, c, b, d]
        out.append([f"{one.image_id}.dcm", *map(str, values)])
    # An anatomy that was not found has a row without coordinates.
    out.append([f"{one.image_id}.dcm", *[""] * 6, "carina", f"{one.image_id[:8]}-none", *[""] * 4])
    return out


def _to_224(one: Drawn, box: Box) -> list[float]:
    """Native box -> the source's 224-pixel frame: longer side to 224, centred."""
    scale = 224 / max(one.width, one.height)
    left, top = (224 - one.width * scale) / 2, (224 - one.height * scale) / 2
    return [v * scale + shift for v, shift in zip(box, (left, top) * 2, strict=True)]
