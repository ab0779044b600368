"""Is a copy of a source complete and sound? What ``medground-bench verify`` reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from medground_bench.core.errors import ImageError
from medground_bench.imaging.read import image_size, read_radiograph
from medground_bench.sources import Source, open_source
from medground_bench.sources.base import OVERHANG, SIZE_UNKNOWN, copy_notes, resized

__all__ = ["SourceReport", "verify_source"]


@dataclass
class SourceReport:
    """What is in a source folder and what is wrong with it; every list holds messages with file and row.

    ``notes`` are no problems: how images were read whose tags say nothing usable.
    """

    source: Source
    images: int = 0
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    too_few: str | None = None

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.problems().values())

    def facts(self) -> dict[str, str]:
        """Counts, by title."""
        largest = self.source.info.largest_index
        needed = "none (not in the released records)" if largest is None else f"{largest} (has up to {self._last})"
        facts = {
            "candidates": str(len(self.source)),
            "boxes": str(sum(len(c.boxes) for c in self.source)),
            "images found": str(self.images - len(self.missing) - len(self.unreadable)),
            "images missing": str(len(self.missing)),
            "images unreadable": str(len(self.unreadable)),
            "broken rows": str(len(self.broken)),
            "boxes outside their image": str(len(self.outside)),
            "resized or converted copies": str(len(self.copies)),
            "largest index needed": needed,
        }
        if self.source.join_refusal:
            facts["for candidates only"] = self.source.join_refusal
        return facts

    def problems(self) -> dict[str, list[str]]:
        """Messages, by kind."""
        return {
            "missing": self.missing,
            "unreadable": self.unreadable,
            "broken": self.broken,
            "outside": self.outside,
            "copy": self.copies,
            "incomplete": [self.too_few] if self.too_few else [],
        }

    @property
    def _last(self) -> int:
        return len(self.source) - 1


def verify_source(
    name: str, root: str | Path, *, decode: bool = True, progress: Callable[[int, int, str], None] | None = None
) -> SourceReport:
    """Look at every row and image of a source.

    Parameters
    ----------
    name : str
        Key of the source.
    root : path
        Its folder.
    decode : bool
        Decode every image (finds truncated and converted ones) instead of looking at headers only.
    progress : callable, optional
        Called as ``progress(done, total, file name)``.

    Raises
    ------
    SourceError
        If the source cannot even be enumerated.
    """
    source = open_source(name, root)
    report = SourceReport(source)
    first: dict[Path, int] = {}
    for candidate in source:
        first.setdefault(candidate.image_path, candidate.index)
    report.images = len(first)
    sizes: dict[Path, tuple[int, int]] = {}
    for done, (path, index) in enumerate(first.items()):
        if progress is not None:
            progress(done, len(first), path.name)
        if not path.is_file():
            report.missing.append(f"{path} ({source.where(index)})")
            continue
        where = f"{path} ({source.where(index)})"
        try:
            if decode:
                radiograph = read_radiograph(path)
                sizes[path] = radiograph.image.size
                report.copies += [f"{where}: {note}" for note in copy_notes(source.info, radiograph)]
                report.notes += [f"{where}: {note}" for note in radiograph.notes]
            else:
                sizes[path] = image_size(path)
        except ImageError as error:
            report.unreadable.append(f"{where}: {error.message}")
            continue
        if found := resized(source[index], sizes[path]):
            report.copies.append(f"{where}: {found}")
    report.broken += source.reports
    for candidate in source:
        report.broken += [p for p in candidate.problems if SIZE_UNKNOWN not in p]  # that is the image's problem
        if candidate.image_path in sizes:
            report.outside += _outside(source, candidate.index, sizes[candidate.image_path])
    largest = source.info.largest_index
    if largest is not None and largest >= len(source):
        report.too_few = (
            f"{len(source)} candidates, the released records name positions up to {largest}: "
            "the copy is incomplete or of another version"
        )
    return report


def _outside(source: Source, index: int, size: tuple[int, int]) -> list[str]:
    width, height = size
    return [
        f"{source.where(index)}: box [{x1:g}, {y1:g}, {x2:g}, {y2:g}], image {width}x{height}"
        for x1, y1, x2, y2 in source[index].boxes
        if max(-x1, -y1, x2 - width, y2 - height) > OVERHANG or min(x2, y2, width - x1, height - y1) <= 0
    ]
