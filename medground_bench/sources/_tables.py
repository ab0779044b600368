"""Reading annotation files: tables row by row, JSON field by field, boxes without evaluating any text.

Whatever is in a file, it is read or refused with a SourceError that names the entry and the field.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from medground_bench.core.errors import MedGroundError, SourceError
from medground_bench.core.files import within
from medground_bench.core.schema import Box, Candidate
from medground_bench.imaging.areas import MAX_COORDINATE

__all__ = [
    "BoxResult",
    "Row",
    "box_of",
    "check_box",
    "check_text",
    "ends_torn",
    "field_of",
    "find",
    "load_json",
    "number_repeats",
    "numbers",
    "parse_box",
    "read_rows",
    "read_table",
    "safe_path",
    "shown",
]

_TRUNCATED = "check that the file was copied completely; fetch it again"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its line in the file (1 = header) and its fields."""

    line: int
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BoxResult:
    """A box, or why there is none; ``fault`` marks what no source is known to contain (NaN, infinity, 1e300)."""

    box: Box | None
    problem: str | None = None
    fault: bool = False


def find(root: Path, choices: Sequence[str], what: str) -> Path:
    """The first of several relative paths that exists below the root.

    Raises
    ------
    SourceError
        If none does; the message lists all of them. Also if one is there and is no file.
    """
    for choice in choices:
        if (root / choice).is_file():
            return root / choice
        if (root / choice).exists():
            raise SourceError("this is not a file", where=root / choice, expected=what, remedy="fetch it again")
    raise SourceError(
        f"{what} was not found",
        where=root,
        expected=" or ".join(choices) + " in this folder",
        remedy="point to the folder that holds it; 'medground-bench sources' says what each source needs",
    )


def read_rows(path: Path, delimiter: str = ",") -> Iterator[Row]:
    """All rows of a delimited text file in order, the header first; blank lines are left out.

    A quoted field may hold line breaks; the row is then numbered by its first line.

    Raises
    ------
    SourceError
        If the file is empty or not UTF-8 text, or a quote is opened and not closed; file and line are given.
    """
    last = 0
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            # Strict: a quote that is never closed would otherwise swallow the rest of the file in silence.
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for fields in reader:
                line, last = last + 1, reader.line_num
                if any(delimiter in field and ("\n" in field or "\r" in field) for field in fields):
                    raise _unclosed("a field runs over several lines and their fields", path, line)
                if any(field.strip() for field in fields):
                    yield Row(line, tuple(fields))
    except UnicodeDecodeError as error:
        raise SourceError(f"this file is not UTF-8 text: {error}", where=path, remedy=_TRUNCATED) from error
    except csv.Error as error:
        raise _unclosed(f"malformed row ({error})", path, last + 1) from error
    except OSError as error:
        raise SourceError(f"this file cannot be read: {error.strerror or error}", where=path) from error
    if not last:
        raise SourceError("this file is empty", where=path, expected="a header row", remedy=_TRUNCATED)


def _unclosed(message: str, path: Path, line: int) -> SourceError:
    return SourceError(f"{message}: is a quote opened and not closed?", where=f"{path}:{line}", remedy=_TRUNCATED)


def read_table(path: Path, columns: Sequence[str], delimiter: str = ",", optional: Sequence[str] = ()) -> Iterator[Row]:
    """Rows of a table with a header, reduced to the named columns, in file order.

    ``optional`` columns follow the others; they are empty text where the file lacks them.

    Raises
    ------
    SourceError
        As :func:`read_rows`; also if a column is missing or there twice, or a row has fields too few or too many.
    """
    rows = read_rows(path, delimiter)
    header = next(rows, None)
    if header is None:
        raise SourceError("this file is empty", where=path, expected="a header row", remedy=_TRUNCATED)
    names = [name.strip() for name in header.fields]
    places = _places(names, columns, path)
    places += [names.index(c) if c in names else len(names) for c in optional]
    for row in rows:
        _check_row(row.fields, names, path, row.line)
        fields = (*row.fields, "")
        yield Row(row.line, tuple(fields[i] for i in places))


def _places(names: list[str], columns: Sequence[str], path: Path) -> list[int]:
    missing = [c for c in columns if c not in names]
    if missing:
        raise SourceError(
            f"missing column(s): {', '.join(missing)}",
            where=f"{path}:1",
            expected="the columns " + ", ".join(columns),
            remedy=f"this file has {', '.join(names)}: check that it is the right file and version",
        )
    repeated = sorted(name for name, count in Counter(names).items() if name and count > 1)
    if repeated:
        raise SourceError(
            f"column(s) there twice: {', '.join(repeated)}", where=f"{path}:1", expected="every column once"
        )
    return [names.index(c) for c in columns]


def _check_row(fields: Sequence[str], names: list[str], path: Path, line: int) -> None:
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
        return BoxResult(
            None, "no box" if text.strip() in ("", "[]") else f"{shown(text)} is not a box of four numbers"
        )
    return check_box([float(v) for v in re.findall(_NUMBER, match.group(1), re.IGNORECASE)])


def numbers(fields: Sequence[str]) -> list[float] | BoxResult:
    """Fields as numbers, or what is wrong with them."""
    values = []
    for field in fields:
        if not field.strip():
            return BoxResult(None, "a coordinate is empty")
        if re.fullmatch(_NUMBER, field.strip(), re.IGNORECASE) is None:
            return BoxResult(None, f"{shown(field)} is not a number")
        values.append(float(field))
    return values


def check_box(values: Sequence[float], rounded: bool = False) -> BoxResult:
    """Four numbers -> box; reversed and empty boxes are problems, non-finite ones faults.

    ``rounded`` rounds to the nearest integer, half to even, before the check.
    """
    shown = "[" + ", ".join(f"{v:g}" for v in values) + "]"
    if not all(math.isfinite(v) for v in values):
        return BoxResult(None, f"box {shown} has a coordinate that is not finite", fault=True)
    if max(map(abs, values)) > MAX_COORDINATE:
        return BoxResult(None, f"box {shown} has a coordinate beyond any image", fault=True)
    x1, y1, x2, y2 = (float(round(v)) if rounded else float(v) for v in values)
    if x2 <= x1 or y2 <= y1:
        return BoxResult(None, f"box {shown} is empty or reversed" + (" after rounding" if rounded else ""))
    return BoxResult((x1, y1, x2, y2))


def safe_path(base: Path, relative: str, where: str) -> Path:
    """``base / relative``, refused with the row it comes from if it leaves the base folder or no file can be it."""
    try:
        return _within(base, relative)
    except MedGroundError as error:
        raise SourceError(error.message, where=where, expected=error.expected, remedy=error.remedy) from error
    except (ValueError, OSError) as error:  # such names as "a\0b", lone surrogates, thousands of letters
        raise SourceError(
            f"{shown(relative)} cannot be a file: {getattr(error, 'strerror', None) or error}",
            where=where,
            expected=f"a path inside {base}",
        ) from error


@lru_cache(maxsize=4096)
def _within(base: Path, relative: str) -> Path:
    """Cached: an image has several candidates in a row, and resolving asks the file system about every folder."""
    path = within(base, relative)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        path.stat()  # names that are too long show only here
    return path


# --- JSON


def load_json(path: Path, kind: type, expected: str) -> Any:
    """The document of a JSON file, an object or a list.

    Raises
    ------
    SourceError
        If it is not readable, complete JSON, an object names a field twice, or it is of another kind.
    """
    try:
        document = json.loads(path.read_bytes(), parse_int=_integer, object_pairs_hook=_Once(path))
    except RecursionError as error:
        raise SourceError("this file is nested too deeply", where=path, expected=expected) from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise SourceError(f"this file is not complete JSON: {error}", where=path, remedy="fetch it again") from error
    except OSError as error:
        raise SourceError(f"this file cannot be read: {error.strerror or error}", where=path) from error
    if not isinstance(document, kind):
        raise SourceError(f"this file holds a {type(document).__name__}", where=path, expected=expected)
    return document


def _integer(digits: str) -> int | float:
    """A number no float can hold becomes infinite: its field is then refused as such."""
    return int(digits) if len(digits) < 300 else float(digits)


class _Once:
    """Object hook that refuses a field that is there twice: the parser would drop the first in silence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            repeated = sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
            entry = ", ".join(f"{k}: {shown(v)}" for k, v in list(found.items())[:2])
            raise SourceError(f"field(s) {repeated} are there twice", where=f"{self.path}: the object with {entry}")
        return found


def field_of(item: Any, key: str, kind: type, where: str, **default: Any) -> Any:
    """A field of an object, checked for its kind; texts are checked by :func:`check_text`.

    Raises
    ------
    SourceError
        If it is missing and has no default, or is of another kind.
    """
    if not isinstance(item, dict):
        raise SourceError(f"{shown(item)} is not an object", where=where, expected=f"an object with {key!r}")
    value = item.get(key, default.get("default"))
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise SourceError(
            f"{key!r} is {shown(value)}", where=where, expected=f"an object with {key!r} as {kind.__name__}"
        )
    return check_text(value, key, where) if isinstance(value, str) else value


def check_text(text: str, field: str, where: str) -> str:
    """The text, refused if no file can hold it (half of a surrogate pair)."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"{field!r} is {shown(text)}, which is no text: {error.reason}", where=where) from error
    return text


def box_of(value: Any, field: str = "box") -> BoxResult:
    """A JSON list of four numbers -> box."""
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        return BoxResult(None, f"{field} has {shown(value)}, not a box of four numbers")
    return check_box(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value from a file for a message: printable and of a few words at most."""
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list nested too deeply
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def number_repeats(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Give the second, third, ... candidate of the same image and attribute its ordinal."""
    seen: Counter[tuple[str, str]] = Counter()
    out = []
    for candidate in candidates:
        key = (candidate.image_id, candidate.attribute)
        seen[key] += 1
        out.append(candidate if seen[key] == 1 else replace(candidate, ordinal=seen[key]))
    return out
