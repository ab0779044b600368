"""PadChest-GR: ``filtered_studies.json``, ``grounded_reports_20240819.json`` and 16-bit PNGs in ``PadChest_GR/``.

Irregularities on purpose: negative sentences, half of them without box keys; abnormal sentences without boxes;
boxes in ``extra_boxes``; findings of several labels; two findings of one label in an image; studies without any
grounded finding (in the official file only).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medground_bench.core.files import atomic_write
from medground_bench.core.schema import Box
from medground_bench.sources.phantom.layouts.common import Drawn, Planted, Written, digest, jitter

if TYPE_CHECKING:
    from medground_bench.sources.phantom.sample import Phantom

__all__ = ["names", "write_image", "write_tables"]

_LABELS: dict[str, list[str]] = {
    "cardiomegaly": ["cardiomegaly"],
    "aortic enlargement": ["aortic elongation"],
    "hilar enlargement": ["hilar enlargement"],
    "consolidation": ["consolidation", "infiltrates"],
    "atelectasis": ["laminar atelectasis"],
    "lung mass": ["mass"],
    "nodule": ["nodule"],
    "pneumothorax": ["pneumothorax"],
    "pleural effusion": ["pleural effusion"],
    "clavicle fracture": ["clavicle fracture"],
}
_SPANISH = {
    "cardiomegaly": "Cardiomegalia.",
    "aortic enlargement": "Elongacion aortica.",
    "hilar enlargement": "Aumento hiliar.",
    "consolidation": "Consolidacion.",
    "atelectasis": "Atelectasia laminar.",
    "lung mass": "Masa pulmonar.",
    "nodule": "Nodulo.",
    "pneumothorax": "Neumotorax.",
    "pleural effusion": "Derrame pleural.",
    "clavicle fracture": "Fractura de clavicula.",
}


def names(seed: int, number: int) -> tuple[str, str, str]:
    """Image id, study id (which stands for the patient) and file of an image."""
    study = str(int(digest("padchest", seed, number)[:24], 16))
    image_id = f"{study}_00-{number % 100:03d}-{seed % 1000:03d}.png"
    return image_id, study, f"PadChest_GR/{image_id}"


def write_image(phantom: Phantom, path: Path, number: int) -> None:
    """16-bit grey PNG that does not use its full range."""
    values = phantom.image.astype(np.uint16) * np.uint16(180) + np.uint16(640)
    Image.fromarray(values).save(path, compress_level=3)


def write_tables(folder: Path, drawn: Sequence[Drawn]) -> Written:
    """The two annotation files; candidates are those of the filtered one."""
    written = Written("padchest_gr", folder)
    official: list[dict[str, Any]] = []
    filtered: list[dict[str, Any]] = []
    for one in sorted(drawn, key=lambda d: digest(d.image_id)):
        findings, grounded = _findings(one)
        entry = {
            "StudyID": one.patient,
            "ImageID": one.image_id,
            "PreviousStudyID": None,
            "PreviousImageID": None,
            "findings": findings,
        }
        official.append(entry)
        if not grounded:
            continue
        filtered.append(entry)
        for attribute, labels, boxes in grounded:
            written.add(one, " or ".join(labels), boxes, (attribute,))
    for name, entries in (("filtered_studies.json", filtered), ("grounded_reports_20240819.json", official)):
        with atomic_write(folder / name) as file:
            json.dump(entries, file, indent=1)
    return written


_Grounded = tuple[str, list[str], tuple[Box, ...]]


def _findings(one: Drawn) -> tuple[list[dict[str, Any]], list[_Grounded]]:
    """The sentences of a report, and what its grounded findings must be read as."""
    r = jitter(one)
    sentences: list[dict[str, Any]] = []
    grounded: list[_Grounded] = []
    for finding in one.findings:
        labels = _LABELS[finding.attribute]
        # A finding on both sides is one sentence with two boxes or two sentences with one.
        parts = [finding.boxes]
        if len(finding.boxes) == 2 and r.random() < 0.5:
            parts = [finding.boxes[:1], finding.boxes[1:]]
        for boxes in parts:
            extra = len(boxes) > 1 and r.random() < 0.5
            sentences.append(_positive(one, finding, labels, boxes, 1 if extra else len(boxes)))
            grounded.append((finding.attribute, labels, boxes))
        if r.random() < 0.3:
            sentences.append(
                _plain("Chronic changes.", "Cambios cronicos.", True, ["chronic changes"], r.random() < 0.5)
            )
    absent = [a for a in _LABELS if a not in {f.attribute for f in one.findings}]
    for attribute in absent[:: max(1, len(absent) // 3)]:
        at = int(r.integers(len(sentences) + 1))
        text = f"No {attribute}."
        sentences.insert(at, _plain(text, f"Sin {_SPANISH[attribute].lower()}", False, [], r.random() < 0.5))
    return sentences, grounded


def _positive(one: Drawn, finding: Planted, labels: list[str], boxes: tuple[Box, ...], first: int) -> dict[str, Any]:
    fractions = [
        [round(v / side, 6) for v, side in zip(box, (one.width, one.height) * 2, strict=True)] for box in boxes
    ]
    return {
        "sentence_en": f"{finding.attribute.capitalize()}, {finding.location}.",
        "sentence_es": _SPANISH[finding.attribute],
        "abnormal": True,
        "boxes": fractions[:first],
        "extra_boxes": fractions[first:],
        "labels": labels,
        "locations": [finding.location],
        "progression": None,
    }


def _plain(english: str, spanish: str, abnormal: bool, labels: list[str], keys: bool) -> dict[str, Any]:
    out: dict[str, Any] = {"sentence_en": english, "sentence_es": spanish, "abnormal": abnormal}
    if keys:
        out |= {"boxes": [], "extra_boxes": []}
    return out | {"labels": labels, "locations": [], "progression": None}
