"""The JSON manifest of a set that this project wrote (phantoms, planted findings)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medground_bench.core.errors import SourceError
from medground_bench.core.schema import Candidate
from medground_bench.sources._tables import box_of, field_of, find, load_json, number_repeats, safe_path
from medground_bench.sources.base import Source, SourceInfo

__all__ = ["SetManifest"]


@dataclass(frozen=True, slots=True)
class SetManifest:
    """A kind of set: its manifest's file name, what the set is called, and the command that writes it."""

    file: str
    kind: str
    command: str

    def find(self, root: Path) -> Path:
        """The manifest in a set's folder.

        Raises
        ------
        SourceError
            If there is none.
        """
        return find(root, (self.file,), f"the manifest {self.file}")

    def read(self, path: Path) -> dict[str, Any]:
        """A manifest of format 1 with a list ``images``.

        Raises
        ------
        SourceError
            If the file is not one.
        """
        expected = 'an object with "format": 1 and "images"'
        manifest: dict[str, Any] = load_json(path, dict, expected)
        if manifest.get("format") != 1 or not isinstance(manifest.get("images"), list):
            raise SourceError(
                f"this is not a {self.kind} manifest of format 1",
                where=path,
                expected=expected,
                remedy=f"write the set again with 'medground-bench {self.command}'",
            )
        return manifest

    def source(self, info: SourceInfo, root: Path) -> Source:
        """The set's candidates: images in the manifest's order, within an image its findings.

        Raises
        ------
        SourceError
            If the manifest is none, an entry lacks a field, or an image is there twice.
        """
        path = self.find(root)
        candidates: list[Candidate] = []
        rows, faults = [], []
        images: dict[str, int] = {}
        for number, entry in enumerate(self.read(path)["images"]):
            where = f"{path}: image {number}"
            image_id = field_of(entry, "image_id", str, where)
            if images.setdefault(image_id, number) != number:
                raise SourceError(f"{image_id!r} is there twice, first as image {images[image_id]}", where=where)
            shared = {
                "dataset": info.key,
                "image_id": image_id,
                "patient_id": field_of(entry, "patient_id", str, where, default=image_id),
                "image_path": safe_path(root, field_of(entry, "file", str, where), where),
                "size": (field_of(entry, "width", int, where), field_of(entry, "height", int, where)),
            }
            for place, finding in enumerate(field_of(entry, "findings", list, where)):
                at = f"{where}, finding {place}"
                results = [box_of(box) for box in field_of(finding, "boxes", list, at)]
                faults += [f"{at}: {r.problem}" for r in results if r.fault]
                rows.append(f"{path.name}: image {number}, finding {place}")
                candidates.append(
                    Candidate(
                        index=len(candidates),
                        attribute=field_of(finding, "attribute", str, at),
                        boxes=tuple(r.box for r in results if r.box is not None),
                        problems=tuple(f"{at}: {r.problem}" for r in results if r.box is None),
                        **shared,
                    )
                )
        return Source(info, root, number_repeats(candidates), rows=rows, files=[path], faults=faults)

    def root_of(self, image: str | Path) -> Path | None:
        """The folder of the set that an image file belongs to, None if it belongs to none."""
        return next((p for p in Path(image).absolute().parents if (p / self.file).is_file()), None)

    def entry(self, root: Path, image_id: str) -> dict[str, Any]:
        """The manifest's entry of an image.

        Raises
        ------
        SourceError
            If there is no such image.
        """
        path = self.find(root)
        entry = _index(self, path, path.stat().st_mtime_ns).get(image_id)
        if entry is None:
            raise SourceError(f"there is no image {image_id!r}", where=path)
        return entry


@lru_cache(maxsize=4)
def _index(manifest: SetManifest, path: Path, stamp: int) -> dict[str, dict[str, Any]]:
    """Entries by image id; ``stamp`` makes a rewritten file a new one."""
    return {field_of(e, "image_id", str, str(path)): e for e in manifest.read(path)["images"]}
