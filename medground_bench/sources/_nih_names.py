"""Sources whose images stem from NIH ChestX-ray14 under other names: which is which.

An optional file ``nih_names.json`` beside the annotations, an object of image name -> NIH image index, makes one image
that several sources annotate one image of one patient everywhere: its ``image_id`` and ``patient_id`` are then NIH's.
Images that the file does not name keep their own. The enumeration order does not depend on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from medground_bench.core.errors import SourceError
from medground_bench.sources._tables import load_json, shown

__all__ = ["NIH_NAMES", "NihNames"]

NIH_NAMES = "nih_names.json"

_INDEX = re.compile(r"(\d{8}_\d{3})(\.png)?")


class NihNames:
    """NIH names of a source's images.

    Raises
    ------
    SourceError
        If the file is none, a value is no NIH image index, or two images are given the same one.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / NIH_NAMES
        self._names: dict[str, str] = {}
        if not self.path.exists():
            return
        taken: dict[str, str] = {}
        for image, value in load_json(self.path, dict, "an object of image name -> NIH image index").items():
            match = _INDEX.fullmatch(value) if isinstance(value, str) else None
            if match is None:
                raise SourceError(
                    f"{shown(image)} is named {shown(value)}",
                    where=self.path,
                    expected="an NIH image: 00000001_000.png",
                )
            name = f"{match.group(1)}.png"
            if name in taken:
                raise SourceError(f"{shown(taken[name])} and {shown(image)} are both named {name}", where=self.path)
            taken[name] = image
            self._names[image] = name

    @property
    def files(self) -> list[Path]:
        """The file, if it is there."""
        return [self.path] if self._names or self.path.exists() else []

    def ids(self, image: str) -> tuple[str, str]:
        """(image_id, patient_id): NIH's where they are known, else the image's own name for both."""
        name = self._names.get(image)
        return (name, name.split("_")[0]) if name else (image, image)

    def unknown(self, images: Iterable[str]) -> list[str]:
        """Names in the file that are no images of the source, as messages."""
        there = set(images)
        return [
            f"{self.path}: {shown(image)} is no image of this source" for image in self._names if image not in there
        ]
