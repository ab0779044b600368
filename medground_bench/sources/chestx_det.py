"""ChestX-Det: 3,578 images of NIH ChestX-ray14 with 13 findings, boxes and outlines by three radiologists. Open.

Files looked for below the root:

- annotations ``ChestX_Det_train.json`` and ``ChestX_Det_test.json`` (one of them is enough): lists of ``file_name``,
  ``syms``, ``boxes`` (x1, y1, x2, y2) and ``polygons``, a finding, a box and an outline at the same position; an image
  without findings has empty lists;
- images ``{file_name}`` in ``train_data/`` and ``test_data/``, or in a folder of the same name inside, as the archives
  unpack; as ``.png`` or ``.jpg``, whichever is there;
- optional ``nih_names.json``: image -> NIH image index (``medground_bench.sources._nih_names``).

Candidates: both lists together, grouped and sorted by (file name, finding), boxes in file order; the attribute is the
finding as the file names it. Every box has its outline as a mask. Boxes and outlines are stated on 1024 x 1024 pixels.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from medground_bench.core.errors import SourceError
from medground_bench.imaging.areas import MAX_COORDINATE
from medground_bench.imaging.masks import PolygonMask
from medground_bench.sources._groups import At, Grouping, Named
from medground_bench.sources._nih_names import NIH_NAMES, NihNames
from medground_bench.sources._tables import box_of, check_text, field_of, find, load_json, safe_path, shown
from medground_bench.sources.base import Source, SourceInfo

__all__ = ["INFO", "SIDE", "read"]

SIDE = (1024, 1024)
"""Width and height of every image; boxes and outlines are stated on it."""

_TABLES = {"train": "ChestX_Det_train.json", "test": "ChestX_Det_test.json"}
_FINDINGS = frozenset(
    {
        "Atelectasis",
        "Calcification",
        "Cardiomegaly",
        "Consolidation",
        "Diffuse Nodule",
        "Effusion",
        "Emphysema",
        "Fibrosis",
        "Fracture",
        "Mass",
        "Nodule",
        "Pleural Thickening",
        "Pneumothorax",
    }
)
_LISTS = ("syms", "boxes", "polygons")

INFO = SourceInfo(
    key="chestx_det",
    title="ChestX-Det (NIH ChestX-ray14 images, boxes and outlines by three radiologists)",
    licence="Apache-2.0 (annotations); images: no restrictions on use, acknowledge the NIH Clinical Center",
    url="https://github.com/Deepwise-AILab/ChestX-Det-Dataset",
    citation="Lian et al., A Structure-Aware Relation Network for Thoracic Diseases Detection and Segmentation, "
    "IEEE TMI 2021; Wang et al., ChestX-ray8, CVPR 2017",
    credentialed=False,
    obtain="Download the annotation files and the two image archives that the repository links to; unpack them into "
    "train_data/ and test_data/.",
    layout=(*_TABLES.values(), "train_data/<file_name>", "test_data/<file_name>", f"{NIH_NAMES} (optional)"),
)


def read(root: Path) -> Source:
    """Enumerate the findings below ``root``."""
    files = [root / name for name in _TABLES.values() if (root / name).exists()]
    if not files:
        find(root, tuple(_TABLES.values()), "the annotation files")
    names = NihNames(root)
    groups: Grouping[tuple[str, str]] = Grouping()
    images: dict[str, tuple[str, At]] = {}  # by name without suffix: the file name, and where it was first
    for part, table in _TABLES.items():
        path = root / table
        if path not in files:
            continue
        for number, entry in enumerate(load_json(path, list, "a list of images")):
            at = At(path, f"entry {number}")
            image = field_of(entry, "file_name", str, str(at))
            stem = image.rsplit(".", 1)[0]
            if not stem:
                raise SourceError("'file_name' is empty", where=at, expected="the name of an image")
            if stem in images:
                raise SourceError(f"image {shown(image)} is there twice, first at {images[stem][1]}", where=at)
            images[stem] = (f"{part}_data/{image}", at)
            _add_findings(groups, entry, image, at)
    groups.reports += names.unknown({place.partition("/")[2] for place, _ in images.values()})

    def name(key: tuple[str, str], where: str) -> Named:
        image, finding = key
        image_id, patient_id = names.ids(image)
        return Named(image_id, patient_id, finding, _image_path(root, images[image.rsplit(".", 1)[0]][0], where), SIDE)

    return groups.source(INFO, root, [*files, *names.files], name)


def _add_findings(groups: Grouping[tuple[str, str]], entry: Any, image: str, at: At) -> None:
    findings, boxes, polygons = (field_of(entry, key, list, str(at)) for key in _LISTS)
    if not len(findings) == len(boxes) == len(polygons):
        raise SourceError(
            f"{len(findings)} syms, {len(boxes)} boxes and {len(polygons)} polygons of {image}",
            where=at,
            expected="as many of each",
        )
    for position, (finding, box, polygon) in enumerate(zip(findings, boxes, polygons, strict=True)):
        here = At(at.path, f"{at.place}, finding {position}")
        if not isinstance(finding, str) or not finding.strip():
            raise SourceError(f"'syms' has {shown(finding)}", where=here, expected="the name of a finding")
        mask = _outline(polygon)
        key = (image, check_text(finding, "syms", str(here)))
        row = (finding, str(box), str(polygon))
        groups.add(key, here, row, box_of(box, "boxes"), mask=mask)
        if mask is None:
            groups.problem(key, here, f"polygons has {shown(polygon)}, not three points or more; its box is used")
        if finding not in _FINDINGS:
            groups.problem(key, here, f"the finding is {shown(finding)}, which ChestX-Det does not have")


def _outline(polygon: Any) -> PolygonMask | None:
    points = []
    for point in polygon if isinstance(polygon, list) else ():
        if not isinstance(point, list) or len(point) != 2:
            return None
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in point):
            return None
        x, y = map(float, point)
        if not math.isfinite(x + y) or max(abs(x), abs(y)) > MAX_COORDINATE:
            return None
        points.append((x, y))
    return PolygonMask(tuple(points), SIDE) if len(points) > 2 else None


def _image_path(root: Path, place: str, where: str) -> Path:
    """The image's file, or where it should be."""
    folder, _, image = place.partition("/")
    stem = image.rsplit(".", 1)[0]
    for base in (root / folder, root / folder / folder):
        for name in dict.fromkeys((image, f"{stem}.png", f"{stem}.jpg", f"{stem}.jpeg")):
            path = safe_path(base, name, where)
            if path.is_file():
                return path
    return safe_path(root / folder, image, where)
