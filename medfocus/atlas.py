"""Pools of reference radiographs with known anatomy.

A pool is a folder with ``pool.json``::

    {"references": [{"image": "images/a.png",
                     "masks": {"left lung": "masks/a_left.png"},
                     "boxes": {"right clavicle": [x1, y1, x2, y2]}}]}

Each reference names any subset of the 11 concepts, by mask (a grey PNG of the image's size, non-zero inside) or by box
(native pixels, half-open); where both are given the mask says where the concept is. Everything is checked on load.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from medground_bench.core.anatomy import CONCEPTS
from medground_bench.core.errors import AtlasError, ImageError, MedGroundError
from medground_bench.core.files import atomic_folder, within
from medground_bench.core.schema import Box
from medground_bench.imaging.read import read_image

__all__ = ["POOL_FILE", "Reference", "ReferencePool"]

POOL_FILE = "pool.json"
_SHOWN = '{"references": [{"image": ..., "masks": {concept: file}, "boxes": {concept: [x1, y1, x2, y2]}}]}'


@dataclass(frozen=True, eq=False)
class Reference:
    """One reference radiograph.

    Attributes
    ----------
    name : str
        How the pool calls it: the image's path in the folder.
    image : ndarray, (h, w) uint8
        The radiograph.
    masks : mapping of str to (h, w) bool ndarray
        Concepts known by their pixels.
    boxes : mapping of str to Box
        Concepts known by a box only, native pixels.
    """

    name: str
    image: np.ndarray
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)
    boxes: Mapping[str, Box] = field(default_factory=dict)

    @property
    def concepts(self) -> tuple[str, ...]:
        """Concepts it covers, in the vocabulary's order."""
        return tuple(c for c in CONCEPTS if c in self.masks or c in self.boxes)

    def region(self, concept: str) -> np.ndarray:
        """The concept as a (h, w) float32 map: its mask, or its box with the share of every pixel it covers."""
        if concept in self.masks:
            return self.masks[concept].astype(np.float32)
        height, width = self.image.shape
        x1, y1, x2, y2 = self.boxes[concept]
        columns = np.clip(np.minimum(x2, np.arange(width) + 1) - np.maximum(x1, np.arange(width)), 0, 1)
        rows = np.clip(np.minimum(y2, np.arange(height) + 1) - np.maximum(y1, np.arange(height)), 0, 1)
        return (rows[:, None] * columns[None]).astype(np.float32)

    def box(self, concept: str) -> Box:
        """The concept's box in native pixels: that of its mask where there is one."""
        if concept not in self.masks:
            return self.boxes[concept]
        rows, columns = np.flatnonzero(self.masks[concept].any(1)), np.flatnonzero(self.masks[concept].any(0))
        return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


class ReferencePool(Sequence[Reference]):
    """Reference radiographs; made by :meth:`from_folder`, :meth:`phantom` or from references at hand.

    Raises
    ------
    AtlasError
        If there is no reference, or none covers a concept.
    """

    def __init__(self, references: Sequence[Reference], name: str = "custom") -> None:
        self._references = tuple(references)
        self.name = name
        if not self._references:
            raise AtlasError("the pool holds no reference", where=name, expected="at least one reference radiograph")
        if not self.concepts:
            raise AtlasError(
                "no reference of the pool covers a concept", where=name, expected=f"masks or boxes of {_vocabulary()}"
            )

    def __len__(self) -> int:
        return len(self._references)

    def __getitem__(self, index: Any) -> Any:
        return self._references[index]

    def __iter__(self) -> Iterator[Reference]:
        return iter(self._references)

    @property
    def concepts(self) -> tuple[str, ...]:
        """Concepts that at least one reference covers, in the vocabulary's order."""
        covered = {concept for reference in self._references for concept in reference.concepts}
        return tuple(concept for concept in CONCEPTS if concept in covered)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all pixels, masks and boxes, in order: part of the key of every cached localisation."""
        digest = hashlib.sha256()
        for reference in self._references:
            digest.update(f"{reference.image.shape}".encode() + reference.image.tobytes())
            for concept in reference.concepts:
                digest.update(concept.encode())
                if concept in reference.masks:
                    digest.update(np.packbits(reference.masks[concept]).tobytes())
                else:
                    digest.update(json.dumps(list(reference.boxes[concept])).encode())
        return digest.hexdigest()

    @classmethod
    def from_folder(cls, folder: str | Path) -> ReferencePool:
        """Read and check a pool.

        Parameters
        ----------
        folder : path
            Holds ``pool.json`` and the files it names.

        Raises
        ------
        AtlasError
            If the folder, a file or an entry is missing or malformed; the message names the entry.
        """
        folder = Path(folder)
        path = folder / POOL_FILE
        entries = _read_entries(path)
        references = [_read_reference(folder, f"{path}: reference {i + 1}", e) for i, e in enumerate(entries)]
        return cls(references, name=str(folder))

    @classmethod
    def phantom(cls) -> ReferencePool:
        """The 16 normal phantoms that ship with the project; real radiographs are better served by real references."""
        with resources.as_file(resources.files("medfocus") / "data" / "phantom_pool") as folder:
            pool = cls.from_folder(folder)
        pool.name = "phantom"
        return pool

    @classmethod
    def open(cls, spec: str | Path | ReferencePool) -> ReferencePool:
        """``"phantom"``, a folder, or a pool that is returned as it is."""
        if isinstance(spec, ReferencePool):
            return spec
        return cls.phantom() if str(spec) == "phantom" else cls.from_folder(spec)

    def to_folder(self, folder: str | Path, notes: Mapping[str, Any] | None = None) -> Path:
        """Write the pool as a folder that :meth:`from_folder` reads; ``notes`` go into ``pool.json`` beside it.

        Raises
        ------
        AtlasError
            If the folder exists and is not a pool (nothing else is ever replaced).
        """
        from PIL import Image

        folder = Path(folder)
        if folder.exists() and not (folder / POOL_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise AtlasError("this is there already and is not a pool", where=folder, remedy="choose another folder")
        with atomic_folder(folder) as staging:
            entries = []
            for number, reference in enumerate(self._references):
                stem = f"{number:02d}"
                entry: dict[str, Any] = {"image": f"images/{stem}.png", "name": reference.name}
                (staging / "images").mkdir(exist_ok=True)
                Image.fromarray(reference.image).save(staging / "images" / f"{stem}.png", optimize=True)
                for concept, mask in reference.masks.items():
                    (staging / "masks").mkdir(exist_ok=True)
                    entry.setdefault("masks", {})[concept] = f"masks/{stem}_{concept.replace(' ', '_')}.png"
                    pixels = Image.fromarray((mask * 255).astype(np.uint8)).convert("1")
                    pixels.save(staging / entry["masks"][concept], optimize=True)
                if reference.boxes:
                    entry["boxes"] = {concept: list(box) for concept, box in reference.boxes.items()}
                entries.append(entry)
            text = json.dumps({**(notes or {}), "references": entries}, indent=1)
            (staging / POOL_FILE).write_text(text + "\n", encoding="utf-8")
        return folder


def _vocabulary() -> str:
    return ", ".join(CONCEPTS)


def _read_entries(path: Path) -> list[Any]:
    if not path.is_file():
        raise AtlasError(
            "there is no pool here",
            where=path,
            expected=f"a file {POOL_FILE} with {_SHOWN}",
            remedy="make one with 'medground-bench atlas', or write it for your own radiographs",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise AtlasError(f"this file is not JSON: {error}", where=path, expected=_SHOWN) from error
    entries = content.get("references") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise AtlasError("this file has no list 'references'", where=path, expected=_SHOWN)
    return entries


def _read_reference(folder: Path, where: str, entry: Any) -> Reference:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
        raise AtlasError("the entry names no image", where=where, expected=_SHOWN)
    masks, boxes = entry.get("masks") or {}, entry.get("boxes") or {}
    for name, regions in (("masks", masks), ("boxes", boxes)):
        if not isinstance(regions, dict):
            raise AtlasError(f"{name!r} is not an object", where=where, expected=_SHOWN)
        unknown = sorted(set(regions) - set(CONCEPTS))
        if unknown:
            raise AtlasError(
                f"{name} of unknown concept {', '.join(map(repr, unknown))}", where=where, expected=_vocabulary()
            )
    image = _read_grey(folder, entry["image"], where)
    size = (image.shape[1], image.shape[0])
    return Reference(
        name=entry["name"] if isinstance(entry.get("name"), str) else entry["image"],
        image=image,
        masks={concept: _read_mask(folder, file, size, f"{where}, {concept}") for concept, file in masks.items()},
        boxes={c: _check_box(box, size, f"{where}, {c}") for c, box in boxes.items() if c not in masks},
    )


def _locate(folder: Path, file: Any, where: str) -> Path:
    if not isinstance(file, str):
        raise AtlasError(f"{file!r} is not a file name", where=where, expected="a path inside the pool's folder")
    try:
        path = within(folder, file)
    except (MedGroundError, ValueError) as error:
        message = error.message if isinstance(error, MedGroundError) else str(error)
        raise AtlasError(message, where=where, expected="a path inside the pool's folder") from error
    if not path.is_file():
        raise AtlasError(f"the file {file} is missing", where=where, remedy="restore it or remove the entry")
    return path


def _read_grey(folder: Path, file: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(read_image(_locate(folder, file, where)), np.uint8)
    except ImageError as error:
        raise AtlasError(f"the image cannot be read: {error.message}", where=f"{where}, {file}") from error


def _read_mask(folder: Path, file: Any, size: tuple[int, int], where: str) -> np.ndarray:
    from PIL import Image

    path = _locate(folder, file, where)
    try:
        with Image.open(path) as opened:
            if opened.size != size:
                raise AtlasError(
                    f"the mask is {opened.size[0]}x{opened.size[1]}, its image {size[0]}x{size[1]}", where=where
                )
            values = np.asarray(opened.convert("L") if opened.mode in ("1", "P", "LA", "RGB", "RGBA") else opened)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise AtlasError(f"the mask {file} cannot be read: {error}", where=where) from error
    mask = values > 0
    if not mask.any():
        raise AtlasError(f"the mask {file} is empty", where=where, remedy="leave the concept out of the entry")
    return mask


def _check_box(box: Any, size: tuple[int, int], where: str) -> Box:
    numbers = isinstance(box, (list, tuple)) and len(box) == 4 and all(_is_number(v) for v in box)
    if not numbers or not (box[0] < box[2] and box[1] < box[3]):
        raise AtlasError(f"{box!r} is not a box", where=where, expected="[x1, y1, x2, y2] with x1 < x2 and y1 < y2")
    x1, y1, x2, y2 = (float(v) for v in box)
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(size[0])), min(y2, float(size[1]))
    if x2 <= x1 or y2 <= y1:
        raise AtlasError(f"the box {box} lies outside the image of {size[0]}x{size[1]}", where=where)
    return x1, y1, x2, y2


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
