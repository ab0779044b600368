"""From annotated rows to candidates: what the sources that group rows have in common."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from medground_bench.core.errors import SourceError
from medground_bench.core.schema import Box, Candidate, Mask
from medground_bench.sources._tables import BoxResult, check_text, ends_torn, number_repeats
from medground_bench.sources.base import Source, SourceInfo

__all__ = ["At", "Grouping", "Named", "Subject"]

Key = TypeVar("Key", bound=Hashable)


class At(NamedTuple):
    """A place in an annotation file: a line of a table, or the path of an entry in words."""

    path: Path
    place: int | str

    def __str__(self) -> str:
        return f"{self.path}:{self.place}" if isinstance(self.place, int) else f"{self.path}: {self.place}"


class Subject(NamedTuple):
    """What a source knows of the patient and the view of an image; see :class:`Candidate`."""

    sex: str | None = None
    age: int | None = None
    view: str | None = None


_UNKNOWN = Subject()


@dataclass(frozen=True, slots=True)
class Named:
    """What the key of a group says about its candidate."""

    image_id: str
    patient_id: str
    attribute: str
    image_path: Path
    size: tuple[int, int] | None = None
    subject: Subject = _UNKNOWN


@dataclass
class _Group:
    boxes: list[Box] = field(default_factory=list)
    masks: list[Mask] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    places: list[At] = field(default_factory=list)
    rows: dict[Hashable, At] = field(default_factory=dict)

    def where(self) -> str:
        """File and rows, for messages."""
        first = self.places[0]
        places = ", ".join(str(at.place) for at in self.places)
        word = "" if isinstance(first.place, str) else "line " if len(self.places) == 1 else "lines "
        return f"{first.path.name}: {word}{places}"


class Grouping(Generic[Key]):
    """Collects boxes by key in file order and turns the groups, sorted by key, into a source.

    A group all of whose rows are broken keeps its place as a candidate without boxes. A row that is there twice counts
    once and is reported.
    """

    def __init__(self) -> None:
        self.reports: list[str] = []
        self._groups: dict[Key, _Group] = {}
        self._faults: list[str] = []
        self._broken: At | None = None
        self._last: At | None = None

    def add(
        self, key: Key, at: At, row: Hashable, result: BoxResult, *, mask: Mask | None = None, region: str = ""
    ) -> None:
        """Add the box of one row (or what is wrong with it) to its group; ``row`` is what makes rows the same."""
        group = self._groups.setdefault(key, _Group())
        self._last = at
        if row in group.rows:
            self.report(at, f"this row is there twice, first at {group.rows[row].place}; it is counted once")
            return
        group.rows[row] = at
        group.places.append(at)
        if result.box is not None:
            group.boxes.append(result.box)
            group.masks += [] if mask is None else [mask]
            group.regions += [region] if region else []
            return
        message = f"{at}: {result.problem}"
        group.problems.append(message)
        self._broken = at
        if result.fault:
            self._faults.append(message)

    def problem(self, key: Key, at: At, message: str) -> None:
        """Something is wrong with a row whose box is used all the same."""
        self._groups[key].problems.append(f"{at}: {message}")

    def report(self, at: At, message: str) -> None:
        """A row that is left out."""
        self.reports.append(f"{at}: {message}")

    def source(
        self,
        info: SourceInfo,
        root: Path,
        files: Iterable[Path],
        name: Callable[[Key, str], Named],
        **options: Any,
    ) -> Source:
        """The source. ``name(key, where)`` describes a group; ``where`` is the file and row it is first named in."""
        table = self._last is not None and isinstance(self._last.place, int)
        if self._broken and self._broken == self._last and table and ends_torn(self._broken.path):
            raise SourceError(
                "the last row is cut off",
                where=self._last,
                remedy="check that the file was copied completely; fetch it again",
            )
        candidates, rows = [], []
        for index, key in enumerate(sorted(self._groups)):  # type: ignore[type-var]
            group = self._groups[key]
            where = str(group.places[0])
            named = name(key, where)
            for text in (named.image_id, named.patient_id, named.attribute):
                check_text(text, "name", where)
            candidates.append(
                Candidate(
                    index=index,
                    dataset=info.key,
                    image_id=named.image_id,
                    patient_id=named.patient_id,
                    attribute=named.attribute,
                    boxes=tuple(group.boxes),
                    image_path=named.image_path,
                    problems=tuple(group.problems),
                    size=named.size,
                    # All or none: what belongs to a box must be found at its position.
                    masks=tuple(group.masks) if len(group.masks) == len(group.boxes) else (),
                    regions=tuple(group.regions) if len(group.regions) == len(group.boxes) else (),
                    **named.subject._asdict(),
                )
            )
            rows.append(group.where())
        return Source(
            info,
            root,
            number_repeats(candidates),
            rows=rows,
            files=tuple(files),
            faults=self._faults,
            reports=self.reports,
            **options,
        )
