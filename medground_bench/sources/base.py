"""What a source is: facts about it, and an ordered sequence of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from medground_bench.core.schema import Candidate
from medground_bench.imaging.read import Radiograph, padding_bars

__all__ = ["OVERHANG", "SIZE_UNKNOWN", "Source", "SourceInfo", "copy_notes", "resized"]

SIZE_UNKNOWN = "the image's size is unknown"
"""Marks problems that are the image's, not the annotation row's (boxes stored as fractions need the size)."""

OVERHANG = 1.0
"""Pixels a box may reach beyond the image and is cut: the trace of rounding. More is reported."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Facts about a source: what it is, what it needs on disk and where to get it.

    Attributes
    ----------
    key : str
        Name on the command line and in the ``dataset`` column.
    title, licence, url, citation : str
        Full name, licence or terms of use, home page, and how to cite it.
    credentialed : bool
        The images and texts may not be passed on: only ids may be published.
    obtain : str
        The steps to get it.
    layout : tuple of str
        Files looked for below the root.
    largest_index : int or None
        Largest candidate index the released records use; None for a source they do not cover.
    bits : int or None
        Bits per pixel of the images as they are given out, where boxes are fractions of the image and nothing else
        tells a converted copy: files of fewer bits, or with bars around the picture, are pointed out.
    """

    key: str
    title: str
    licence: str
    url: str
    citation: str
    credentialed: bool
    obtain: str
    layout: tuple[str, ...]
    largest_index: int | None = None
    bits: int | None = None


def resized(candidate: Candidate, size: tuple[int, int]) -> str | None:
    """What is wrong with an image file of this size, None if its boxes are stated on it."""
    if candidate.size is None or candidate.size == size:
        return None
    stated = "{} x {}".format(*candidate.size)
    return "the boxes are stated on {}, the file has {} x {}: a resized copy".format(stated, *size)


def copy_notes(info: SourceInfo, radiograph: Radiograph) -> list[str]:
    """What tells that an image file is a converted copy of the source's own."""
    if info.bits is None:
        return []
    notes = []
    if radiograph.bits < info.bits:
        notes.append(
            f"{radiograph.bits} bits per pixel instead of {info.bits}: a converted copy, windowed by someone else"
        )
    bars = padding_bars(radiograph.image)
    if bars is not None:
        notes.append(f"{bars}: a padded copy? The boxes, fractions of the image as it was given out, do not fit it")
    return notes


class Source(Sequence[Candidate]):
    """The candidates of one source folder, in the order the released records index into.

    A source only enumerates: it decodes no image and writes nothing below its root.

    Parameters
    ----------
    info : SourceInfo
        Facts about the source.
    root : Path
        Folder it was read from.
    candidates : sequence of Candidate
        In enumeration order, ``candidates[i].index == i``.
    rows : sequence of str, optional
        Where each candidate comes from: file and row ("BBox_List_2017.csv: lines 12, 13").
    files : sequence of Path, optional
        Annotation files that were read, the main one first.
    faults : sequence of str, optional
        Rows that stop a build (a coordinate that is not finite): file, row and reason.
    reports : sequence of str, optional
        Rows that belong to no candidate though they should, or that are there twice: file, row and reason.
    join_refusal : str, optional
        Why released records may not be joined to this copy by index.
    notes : sequence of str, optional
        What a reader of a dataset built from it should know; they go onto its card.
    """

    def __init__(
        self,
        info: SourceInfo,
        root: Path,
        candidates: Sequence[Candidate],
        *,
        rows: Sequence[str] = (),
        files: Sequence[Path] = (),
        faults: Sequence[str] = (),
        reports: Sequence[str] = (),
        join_refusal: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.info = info
        self.root = Path(root)
        self.files = tuple(files)
        self.faults = tuple(faults)
        self.reports = tuple(reports)
        self.join_refusal = join_refusal
        self.notes = tuple(notes)
        self._candidates = tuple(candidates)
        self._rows = tuple(rows)

    @property
    def name(self) -> str:
        """Key of the source."""
        return self.info.key

    def where(self, index: int) -> str:
        """File and row a candidate comes from, for messages."""
        return self._rows[index] if self._rows else f"{self.root}: candidate {index}"

    @property
    def problems(self) -> list[str]:
        """Everything wrong with annotation rows, in order."""
        return [*self.reports, *(p for c in self._candidates for p in c.problems)]

    @overload
    def __getitem__(self, index: int) -> Candidate: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Candidate]: ...

    def __getitem__(self, index: int | slice) -> Candidate | Sequence[Candidate]:
        return self._candidates[index]

    def __len__(self) -> int:
        return len(self._candidates)

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {str(self.root)!r}, {len(self)} candidates)"
