"""The JSON manifest of a set that this project wrote (phantoms, planted findings)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from medground_bench.core.errors import SourceError
from medground_bench.sources._tables import BoxResult, check_box, find

__all__ = ["SetManifest", "json_box", "json_field"]


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
        remedy = f"write the set again with 'medground-bench {self.command}'"
        try:
            manifest = json.loads(path.read_bytes())
        except ValueError as error:
            raise SourceError(f"this file is not complete JSON: {error}", where=path, remedy=remedy) from error
        images = manifest.get("images") if isinstance(manifest, dict) else None
        if not isinstance(images, list) or manifest.get("format") != 1:
            raise SourceError(
                f"this is not a {self.kind} manifest of format 1",
                where=path,
                expected='an object with "format": 1 and "images"',
                remedy=remedy,
            )
        return manifest

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
    return {json_field(e, "image_id", str, str(path)): e for e in manifest.read(path)["images"]}


def json_field(item: Any, key: str, kind: type, where: str) -> Any:
    """``item[key]``, of the type that is asked for.

    Raises
    ------
    SourceError
        If it is missing or of another type.
    """
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise SourceError(f"{key!r} is {value!r}", where=where, expected=f"an object with {key!r} as {kind.__name__}")
    return value


def json_box(value: Any) -> BoxResult:
    """A list of four numbers as a box, or why it is none."""
    numbers = isinstance(value, list) and len(value) == 4
    if not numbers or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return BoxResult(None, f"{value!r} is not a box of four numbers")
    return check_box(value)
