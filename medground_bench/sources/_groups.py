"""From annotated rows to candidates: what the table-shaped sources have in common."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from medground_bench.core.errors import SourceError
from medground_bench.core.schema import Box, Candidate
from medground_bench.sources._tables import BoxResult, ends_torn, number_repeats
from medground_bench.sources.base import Source, SourceInfo

__all__ = ["Grouping", "Named"]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Named:
    """What the key of a group says about its candidate."""

    image_id: str
    patient_id: str
    attribute: str
    image_path: Path


@dataclass
class _Group:
    boxes: list[Box] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


class Grouping(Generic[Key]):
    """Collects boxes by key in file order and turns the groups, sorted by key, into a source.

    A group all of whose rows are broken keeps its place as a candidate without boxes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._groups: dict[Key, _Group] = {}
        self._faults: list[str] = []
        self._broken_line = 0
        self._last_line = 0

    def add(self, key: Key, line: int, result: BoxResult) -> None:
        """Add the box of one row (or what is wrong with it) to its group."""
        group = self._groups.setdefault(key, _Group())
        group.lines.append(line)
        self._last_line = line
        if result.box is not None:
            group.boxes.append(result.box)
            return
        message = f"{self.path}:{line}: {result.problem}"
        group.problems.append(message)
        self._broken_line = line
        if result.fault:
            self._faults.append(message)

    def source(
        self,
        info: SourceInfo,
        root: Path,
        name: Callable[[Key, str], Named],
        files: Iterable[Path] = (),
        **options: Any,
    ) -> Source:
        """The source. ``name(key, where)`` describes a group; ``where`` is its file and first line."""
        if self._broken_line and self._broken_line == self._last_line and ends_torn(self.path):
            raise SourceError(
                "the last row is cut off",
                where=f"{self.path}:{self._last_line}",
                remedy="check that the file was copied completely; fetch it again",
            )
        candidates, rows = [], []
        for index, key in enumerate(sorted(self._groups)):  # type: ignore[type-var]
            group = self._groups[key]
            named = name(key, f"{self.path}:{group.lines[0]}")
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
                )
            )
            rows.append(("line " if len(group.lines) == 1 else "lines ") + ", ".join(map(str, group.lines)))
        return Source(
            info,
            root,
            number_repeats(candidates),
            rows=rows,
            files=[self.path, *files],
            faults=self._faults,
            **options,
        )
