"""Small source folders written by hand, whose candidates are known by looking at them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IMAGENOME_COLUMNS = (
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
)


def grey(width: int, height: int, seed: int = 0, dtype: type = np.uint8) -> np.ndarray:
    """A noisy ramp, (height, width)."""
    top = np.iinfo(dtype).max
    noise = np.random.default_rng(seed).integers(0, top // 8, (height, width))
    return (np.linspace(0, top - top // 8, width)[None] + noise).astype(dtype)


def write_imagenome(root: Path, rows: Sequence[tuple[Any, ...]], size: tuple[int, int] = (60, 40)) -> Path:
    """Rows of (patient, study, image, relation, label, category, coord_original); writes their images, too."""
    table = root / "chest-imagenome/1.0.0/gold_dataset/gold_object_attribute_with_coordinates.txt"
    table.parent.mkdir(parents=True)
    lines = ["\t".join(IMAGENOME_COLUMNS)]
    for patient, study, image, relation, label, category, coordinates in rows:
        fields = (patient, study, f"{image}.dcm", "right lung", relation, "yes", label, category, "[]", coordinates)
        lines.append("\t".join(map(str, fields)))
        path = root / f"mimic-cxr-jpg/2.1.0/files/p{str(patient)[:2]}/p{patient}/s{study}/{image}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey(*size)).save(path)
    table.write_text("\n".join(lines) + "\n")
    return table


def write_vindr(root: Path, rows: Sequence[tuple[Any, ...]], size: tuple[int, int] = (60, 40)) -> Path:
    """Rows of (image, class, x_min, y_min, x_max, y_max)."""
    table = root / "vindr-cxr/1.0.0/annotations/annotations_test.csv"
    table.parent.mkdir(parents=True)
    lines = ["image_id,class_name,x_min,y_min,x_max,y_max"] + [",".join(map(str, row)) for row in rows]
    table.write_text("\n".join(lines) + "\n")
    for image in {row[0] for row in rows}:
        write_dicom(root / f"vindr-cxr/1.0.0/test/{image}.dicom", grey(*size, dtype=np.uint16) >> 4)
    return table


def write_padchest(
    root: Path, entries: Sequence[dict[str, Any]], size: tuple[int, int] = (60, 40), name: str = "filtered_studies.json"
) -> Path:
    """Entries as they are; writes their 16-bit images."""
    (root / "PadChest_GR").mkdir(parents=True)
    for entry in entries:
        Image.fromarray(grey(*size, dtype=np.uint16)).save(root / "PadChest_GR" / entry["ImageID"])
    (root / name).write_text(json.dumps(entries))
    return root / name


def finding(
    labels: list[str], boxes: list[Any], extra: list[Any] | None = None, abnormal: bool = True
) -> dict[str, Any]:
    out: dict[str, Any] = {"abnormal": abnormal, "labels": labels, "boxes": boxes}
    return out if extra is None else {**out, "extra_boxes": extra}


def write_nih(root: Path, rows: Sequence[str], size: tuple[int, int] = (60, 40), suffix: str = ".png") -> Path:
    """Rows as text: ``00000001_000.png,Mass,10,5,20,30,,,``."""
    table = root / "BBox_List_2017.csv"
    (root / "images").mkdir(parents=True)
    table.write_text("\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,", *rows]) + "\n")
    images = sorted({row.split(",")[0] for row in rows})
    if size != (1024, 1024):
        sizes = ["Image Index,Width,Height", *(f"{image},{size[0]},{size[1]}" for image in images)]
        (root / "image_sizes.csv").write_text("\n".join(sizes) + "\n")
    for seed, image in enumerate(images):
        Image.fromarray(grey(*size, seed=seed)).save(root / "images" / (Path(image).stem + suffix))
    return table


def write_dicom(path: Path, values: np.ndarray, photometric: str = "MONOCHROME2", **tags: Any) -> Path:
    """An uncompressed DICOM file of unsigned 16-bit (or 8-bit) values."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    bits = values.dtype.itemsize * 8
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = values.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path
