"""Reading annotation files: tables row by row with line numbers, boxes without evaluating any text."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from medground_bench.core.errors import MedGroundError, SourceError
from medground_bench.core.files import within
from medground_bench.core.schema import Box, Candidate

__all__ = ["BoxResult", "Row", "check_box", "find", "number_repeats", "numbers", "parse_box", "read_table", "safe_path"]

_TRUNCATED = "check that the file was copied completely; fetch it again"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its line in the file (1 = header) and its fields."""

    line: int
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BoxResult:
    """A box, or why there is none; ``fault`` marks what no source is known to contain (NaN, infinity)."""

    box: Box | None
    problem: str | None = None
    fault: bool = False


def find(root: Path, choices: Sequence[str], what: str) -> Path:
    """The first of several relative paths that exists below the root.

    Raises
    ------
    SourceError
        If none does; the message lists all of them.
    """
    for choice in choices:
        if (root / choice).exists():
            return root / choice
    raise SourceError(
        f"{what} was not found",
        where=root,
        expected=" or ".join(choices) + " in this folder",
        remedy="point to the folder that holds it; 'medground-bench sources' says what each source needs",
    )


def read_table(path: Path, columns: Sequence[str], delimiter: str = ",") -> Iterator[Row]:
    """Rows of a delimited text file, reduced to the named columns, in file order.

    A quoted field may hold line breaks; the row is then numbered by its first line.

    Raises
    ------
    SourceError
        If the file is empty or not UTF-8 text, a column is missing, or a row is cut off or has fields too few or
        too many; file and line are given.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        # Strict: a quote that is never closed would otherwise swallow the rest of the file in silence.
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        last = 0
        try:
            header = next(reader, None)
            if not header:
                raise SourceError("this file is empty", where=path, expected="a header row", remedy=_TRUNCATED)
            names = [name.strip() for name in header]
            places = _places(names, columns, path)
            last = reader.line_num
            for fields in reader:
                line, last = last + 1, reader.line_num
                if not fields:
                    continue
                _check_row(fields, names, path, line)
                yield Row(line, tuple(fields[i] for i in places))
        except UnicodeDecodeError as error:
            raise SourceError(f"this file is not UTF-8 text: {error}", where=path, remedy=_TRUNCATED) from error
        except csv.Error as error:
            raise SourceError(
                f"malformed row ({error}): is a quote opened and not closed?",
                where=f"{path}:{last + 1}",
                remedy=_TRUNCATED,
            ) from error


def _places(names: list[str], columns: Sequence[str], path: Path) -> list[int]:
    missing = [c for c in columns if c not in names]
    if missing:
        raise SourceError(
            f"missing column(s): {', '.join(missing)}",
            where=f"{path}:1",
            expected="the columns " + ", ".join(columns),
            remedy=f"this file has {', '.join(names)}: check that it is the right file and version",
        )
    return [names.index(c) for c in columns]


def _check_row(fields: list[str], names: list[str], path: Path, line: int) -> None:
    if len(fields) != len(names):
        raise SourceError(
            f"this row has {len(fields)} fields",
            where=f"{path}:{line}",
            expected=f"{len(names)} fields as in the header",
            remedy=_TRUNCATED,
        )


def ends_torn(path: Path) -> bool:
    """Whether the file does not end with a line break, as a file that was cut off."""
    with open(path, "rb") as file:
        file.seek(0, 2)
        if not file.tell():
            return True
        file.seek(-1, 2)
        return file.read(1) not in b"\r\n"


_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)"
_BOX = re.compile(rf"\s*[\[(]?\s*({_NUMBER}(?:\s*[,;\s]\s*{_NUMBER}){{3}})\s*[\])]?\s*", re.IGNORECASE)


def parse_box(text: str) -> BoxResult:
    """``"[x1, y1, x2, y2]"`` -> box. The text is matched against a pattern of four numbers, never evaluated."""
    match = _BOX.fullmatch(text)
    if match is None:
        return BoxResult(None, "no box" if text.strip() in ("", "[]") else f"{text!r} is not a box of four numbers")
    return check_box([float(v) for v in re.findall(_NUMBER, match.group(1), re.IGNORECASE)])


def numbers(fields: Sequence[str]) -> list[float] | BoxResult:
    """Fields as numbers, or what is wrong with them."""
    values = []
    for field in fields:
        if not field.strip():
            return BoxResult(None, "a coordinate is empty")
        if re.fullmatch(_NUMBER, field.strip(), re.IGNORECASE) is None:
            return BoxResult(None, f"{field!r} is not a number")
        values.append(float(field))
    return values


def check_box(values: Sequence[float], rounded: bool = False) -> BoxResult:
    """Four numbers -> box; reversed and empty boxes are problems, non-finite ones faults.

    ``rounded`` rounds to the nearest integer, half to even, before the check.
    """
    shown = "[" + ", ".join(f"{v:g}" for v in values) + "]"
    if not all(math.isfinite(v) for v in values):
        return BoxResult(None, f"box {shown} has a coordinate that is not finite", fault=True)
    x1, y1, x2, y2 = (float(round(v)) if rounded else float(v) for v in values)
    if x2 <= x1 or y2 <= y1:
        return BoxResult(None, f"box {shown} is empty or reversed" + (" after rounding" if rounded else ""))
    return BoxResult((x1, y1, x2, y2))


def safe_path(base: Path, relative: str, where: str) -> Path:
    """``base / relative``, refused with the row it comes from if it leaves the base folder."""
    try:
        # Also names such as "a\0b" that no file can have.
        return _within(base, relative)
    except (MedGroundError, ValueError) as error:
        message = error.message if isinstance(error, MedGroundError) else f"{relative!r} cannot be a file: {error}"
        remedy = error.remedy if isinstance(error, MedGroundError) else None
        raise SourceError(message, where=where, expected=f"a path inside {base}", remedy=remedy) from error


@lru_cache(maxsize=4096)
def _within(base: Path, relative: str) -> Path:
    """Cached: an image has several candidates in a row, and resolving asks the file system about every folder."""
    return within(base, relative)


def number_repeats(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Give the second, third, ... candidate of the same image and attribute its ordinal."""
    seen: Counter[tuple[str, str]] = Counter()
    out = []
    for candidate in candidates:
        key = (candidate.image_id, candidate.attribute)
        seen[key] += 1
        out.append(candidate if seen[key] == 1 else replace(candidate, ordinal=seen[key]))
    return out
