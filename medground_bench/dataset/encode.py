"""Turning what a build has planned into rows: the image read, scaled and embedded as PNG."""

from __future__ import annotations

import io
import json
import os
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image as pil

from medground_bench.core.errors import ImageError
from medground_bench.core.schema import Box
from medground_bench.imaging import Letterbox
from medground_bench.imaging.read import Scaling, read_radiograph
from medground_bench.sources import source_info
from medground_bench.sources.base import copy_notes

if TYPE_CHECKING:
    from PIL.Image import Image

    from medground_bench.dataset.plan import Item

__all__ = ["RowEncoder", "count_row", "read_notes"]

PNG_LEVEL = 4
"""zlib level of the embedded images: on radiographs as small as Pillow's default 6, in a third of the time."""


class RowEncoder:
    """Turns items into rows: decodes, scales and embeds the image.

    The last few images are kept encoded, since the candidates of one image follow each other.

    Parameters
    ----------
    scaling : {"minmax", "percentile"}
        See :func:`medground_bench.imaging.read.read_image`.
    max_side : int, optional
        Longer side of the embedded image in pixels; boxes are scaled with it. Smaller images stay as they are.

    Attributes
    ----------
    notes : list of str
        What was noteworthy about the images decoded since it was last emptied (a window that was left out, padding that
        was painted over, a converted copy): row, file and reason.
    """

    _KEEP = 4

    def __init__(self, scaling: Scaling = "minmax", max_side: int | None = None) -> None:
        self.scaling = scaling
        self.max_side = max_side
        self.notes: list[str] = []
        self._encoded: OrderedDict[Path, tuple[bytes, tuple[int, int], tuple[int, int]]] = OrderedDict()

    def row(self, item: Item) -> dict[str, Any]:
        """The row of an item.

        Raises
        ------
        ImageError
            If the image cannot be decoded; the annotation row is named.
        """
        png, native, size = self._image(item)
        row = dict(item.columns)
        if size != native:
            row["boxes"] = _resized(row["boxes"], native, size)
        row.update(image={"bytes": png, "path": None}, width=size[0], height=size[1])
        return row

    def _image(self, item: Item) -> tuple[bytes, tuple[int, int], tuple[int, int]]:
        path = item.image_path
        if path not in self._encoded:
            try:
                radiograph = read_radiograph(path, self.scaling)
            except ImageError as error:
                raise ImageError(
                    f"{error.message} (needed by {item.where})",
                    where=error.where,
                    expected=error.expected,
                    remedy=error.remedy,
                ) from error
            found = [*radiograph.notes, *copy_notes(source_info(item.columns["dataset"]), radiograph)]
            self.notes += [f"{path.name} ({item.where}): {note}" for note in found]
            native = radiograph.image.size
            image = self._shrunk(radiograph.image)
            buffer = io.BytesIO()
            image.save(buffer, "PNG", compress_level=PNG_LEVEL)
            self._encoded[path] = (buffer.getvalue(), native, image.size)
            if len(self._encoded) > self._KEEP:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(path)
        return self._encoded[path]

    def _shrunk(self, image: Image) -> Image:
        width, height = image.size
        if self.max_side is None or max(width, height) <= self.max_side:
            return image
        scale = self.max_side / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return image.resize(size, pil.Resampling.LANCZOS)


def _resized(boxes: Iterable[Box], native: tuple[int, int], size: tuple[int, int]) -> list[list[float]]:
    """Boxes of the native image in the resized one; each axis by its own ratio of whole pixels."""
    resize = Letterbox(*native, *size, content=(0, 0, *size))
    return [list(box) for box in resize.to_frame(boxes)]


def count_row(path: str | os.PathLike[str] | None, notes: list[str]) -> None:
    """Add one to the counter file of a build (one byte per row) and the notes to the file beside it, and empty them.

    This is how worker processes report to the one that builds.
    """
    if path is not None:
        if notes:
            with open(f"{os.fspath(path)}.notes", "ab", buffering=0) as file:
                file.write("".join(json.dumps(note) + "\n" for note in notes).encode())
        with open(path, "ab", buffering=0) as file:
            file.write(b".")
    notes.clear()


def read_notes(path: str | os.PathLike[str]) -> list[str]:
    """All notes beside a counter file, sorted, each once (a worker decodes again what another has decoded)."""
    notes = Path(f"{os.fspath(path)}.notes")
    return sorted({json.loads(line) for line in notes.read_text().splitlines()}) if notes.exists() else []
