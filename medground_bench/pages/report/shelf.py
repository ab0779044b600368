"""Where a report keeps pictures and records: in the page itself, or, where there are many, in a folder beside it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import MedGroundError
from medground_bench.pages.render import data_island

if TYPE_CHECKING:
    from markupsafe import Markup
    from PIL.Image import Image

__all__ = ["CHUNK", "Beside", "Shelf", "beside_name", "require_ours"]

CHUNK = 20
"""Records in one file of the folder."""

_MARK = "report.json"


class Shelf:
    """Pictures, each once, and records, in the page itself: the script reads one when it is looked at.

    Attributes
    ----------
    folder : str
        Name of the folder beside the page; empty where there is none.
    records, pictures : list of Markup
        What goes into the page.
    count : int
        How many records there are.
    """

    folder = ""

    def __init__(self) -> None:
        self.records: list[Markup] = []
        self.pictures: list[Markup] = []
        self.count = 0
        self._places: dict[str, int] = {}

    def picture(self, key: str, image: Callable[[], Image], side: int) -> int:
        """Number of a picture, at most ``side`` pixels wide and high; its image is read if it is not there yet."""
        if key not in self._places:
            self._places[key] = len(self._places)
            self._keep_picture(self._places[key], _jpeg(image(), side))
        return self._places[key]

    def record(self, detail: dict[str, Any]) -> int:
        """Number of a record."""
        self._keep_record(detail)
        self.count += 1
        return self.count - 1

    def close(self) -> None:
        """Nothing more comes."""

    def _keep_picture(self, place: int, data: bytes) -> None:
        self.pictures.append(data_island("data:image/jpeg;base64," + base64.b64encode(data).decode()))

    def _keep_record(self, detail: dict[str, Any]) -> None:
        self.records.append(data_island(detail))


class Beside(Shelf):
    """The same in a folder: ``pictures/N.jpg`` and ``records/N.js``, each file read when something in it is looked at.

    Parameters
    ----------
    folder : path
        Where it is written now.
    name : str
        What it will be called beside the page.
    """

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        self._path, self.folder = folder, name
        self._waiting: list[dict[str, Any]] = []
        for part in ("pictures", "records"):
            (folder / part).mkdir()
        (folder / _MARK).write_text(json.dumps({"kind": "medground-bench report"}) + "\n", encoding="utf-8")

    def close(self) -> None:
        if self._waiting:
            number = (self.count - 1) // CHUNK
            text = f"(window.mgbRecords ??= {{}})[{number}] = {data_island(self._waiting)};\n"
            (self._path / "records" / f"{number}.js").write_text(text, encoding="utf-8")
            self._waiting = []

    def _keep_picture(self, place: int, data: bytes) -> None:
        (self._path / "pictures" / f"{place}.jpg").write_bytes(data)

    def _keep_record(self, detail: dict[str, Any]) -> None:
        if len(self._waiting) == CHUNK:
            self.close()
        self._waiting.append(detail)


def beside_name(page: Path) -> str:
    """Name of the folder beside a page."""
    return f"{page.stem}_files"


def require_ours(folder: Path) -> None:
    """Refuse to replace a folder that is not a report's.

    Raises
    ------
    MedGroundError
        If something of that name is there and was not written by a report.
    """
    if folder.exists() and not (folder / _MARK).is_file():
        raise MedGroundError(
            "the report would put its pictures here, and something else is there",
            where=folder,
            remedy="give the page another name, or fewer --records",
        )


def _jpeg(image: Image, side: int) -> bytes:
    from PIL import Image as pil

    image = image.convert("L")
    if max(image.size) > side:
        image.thumbnail((side, side), pil.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()
