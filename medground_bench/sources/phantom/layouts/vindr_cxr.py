"""VinDr-CXR: ``vindr-cxr/1.0.0/annotations/annotations_test.csv`` and DICOM files in ``vindr-cxr/1.0.0/test/``.

Irregularities on purpose: both photometric interpretations, 8 to 16 stored bits, uncompressed, RLE and JPEG 2000
pixels, files with and without a window, ``No finding`` rows without coordinates, several rows of one class, and
coordinates with fractions, exact halves among them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.files import atomic_write
from medground_bench.sources.phantom.layouts.common import Drawn, Row, Written, digest, jitter, sorted_groups

if TYPE_CHECKING:
    from medground_bench.sources.phantom.sample import Phantom

__all__ = ["VARIANTS", "Variant", "names", "write_image", "write_tables"]

_LABELS = {
    "cardiomegaly": "Cardiomegaly",
    "aortic enlargement": "Aortic enlargement",
    "hilar enlargement": "Enlarged PA",
    "consolidation": "Consolidation",
    "atelectasis": "Atelectasis",
    "lung mass": "Nodule/Mass",
    "nodule": "Nodule/Mass",
    "pneumothorax": "Pneumothorax",
    "pleural effusion": "Pleural effusion",
    "clavicle fracture": "Clavicle fracture",
}
_HEADER = ["image_id", "class_name", "x_min", "y_min", "x_max", "y_max"]


@dataclass(frozen=True)
class Variant:
    """How one DICOM stores its pixels."""

    inverted: bool  # MONOCHROME1
    bits: int
    syntax: str  # name of the transfer syntax in pydicom.uid
    window: bool
    slope: float = 1.0
    intercept: float = 0.0


VARIANTS: tuple[Variant, ...] = (
    Variant(False, 12, "ExplicitVRLittleEndian", True),
    Variant(True, 14, "ExplicitVRLittleEndian", False),
    Variant(False, 12, "RLELossless", False),
    Variant(True, 12, "JPEG2000Lossless", True),
    Variant(False, 16, "ImplicitVRLittleEndian", True, 2.0, -100.0),
    Variant(False, 8, "ExplicitVRLittleEndian", False),
)
"""The ``number``-th image of a set is stored as ``VARIANTS[number % 6]``."""


def names(seed: int, number: int) -> tuple[str, str, str]:
    """Image id, patient id (VinDr has none: the image's) and file of an image."""
    image_id = digest("vindr", seed, number)
    return image_id, image_id, f"vindr-cxr/1.0.0/test/{image_id}.dicom"


def write_image(phantom: Phantom, path: Path, number: int) -> None:
    """A DICOM file whose displayed values are the phantom's, stretched to the stored range.

    Stored values are ``grey * 2**(bits - 8)`` (negated for MONOCHROME1), a window covers the full range, so that
    reading the file with min-max scaling gives the min-max stretched phantom.
    """
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset

    variant = VARIANTS[number % len(VARIANTS)]
    values = phantom.image.astype(np.uint16) << (variant.bits - 8)
    top = 255 << (variant.bits - 8)
    if variant.inverted:
        values = (top - values).astype(np.uint16)
    own = uid.generate_uid(prefix=f"{uid.PYDICOM_ROOT_UID}1.", entropy_srcs=[path.stem])
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = own
    ds.Modality, ds.PatientID, ds.PatientSex, ds.PatientAge = "DX", path.stem, "", "000Y"
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.PhotometricInterpretation = "MONOCHROME1" if variant.inverted else "MONOCHROME2"
    ds.Rows, ds.Columns = values.shape
    ds.BitsStored, ds.HighBit = variant.bits, variant.bits - 1
    ds.BitsAllocated = 8 if variant.bits == 8 else 16
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = variant.slope, variant.intercept, "US"
    if variant.window:
        # LINEAR windows map [centre - 0.5 - (width-1)/2, centre - 0.5 + (width-1)/2] onto the full range.
        width = top * variant.slope + 1
        ds.WindowCenter, ds.WindowWidth = variant.intercept + (width - 1) / 2 + 0.5, width
    ds.PixelData = values.astype(np.uint8 if variant.bits == 8 else "<u2").tobytes()
    if len(ds.PixelData) % 2:
        ds.PixelData += b"\0"
    ds["PixelData"].VR = "OB" if variant.bits == 8 else "OW"
    syntax = getattr(uid, variant.syntax)
    if syntax.is_compressed:
        ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        ds.compress(syntax, generate_instance_uid=False)
    else:
        ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)


def write_tables(folder: Path, drawn: Sequence[Drawn]) -> Written:
    """``annotations_test.csv``."""
    rows: list[Row] = []
    normal: list[list[str]] = []
    for one in drawn:
        r = jitter(one)
        if not one.findings:
            normal.append([one.image_id, "No finding", "", "", "", ""])
        for finding in one.findings:
            label = _LABELS[finding.attribute]
            for box in finding.boxes:
                # Quarters of a pixel: exact halves round to even.
                stored = [v + float(d) for v, d in zip(box, r.integers(-2, 3, 4) / 4, strict=True)]
                x1, y1, x2, y2 = (float(round(v)) for v in stored)
                fields = [one.image_id, label, *map(str, stored)]
                rows.append(Row((one.image_id, label), fields, (x1, y1, x2, y2), one, finding.attribute))
    table = sorted([row.fields for row in rows] + normal, key=lambda fields: digest(*fields))
    rows.sort(key=lambda row: digest(*row.fields))
    path = folder / "vindr-cxr/1.0.0/annotations/annotations_test.csv"
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_HEADER)
        writer.writerows(table)
    written = Written("vindr_cxr", folder)
    for (_, label), group in sorted_groups(rows):
        written.add_group(label, group)
    return written
