"""Exceptions a user can act on.

Every error a user can cause is a :class:`MedGroundError`: it says what is wrong, where (file, line or
record id), what was expected and what to do about it. The command line prints it without a traceback;
any other exception is a bug of ours.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

__all__ = [
    "AtlasError",
    "BuildError",
    "EditorError",
    "FileError",
    "GeometryError",
    "ImageError",
    "LvlmError",
    "MedGroundError",
    "MethodError",
    "MissingDependencyError",
    "PublishError",
    "RecordsError",
    "ScoringError",
    "SourceError",
    "SubmissionError",
    "nearest",
    "printable",
]


def printable(text: str) -> str:
    """A text without anything that a terminal obeys: control characters but the line feed are written out."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """What may have been meant by a name that is not known: a remedy, None where no known name is near.

    Examples
    --------
    >>> nearest("oclusion", ["occlusion", "lrp"])
    "did you mean 'occlusion'?"
    """
    names = {one.lower(): one for one in known}
    found = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    found = found or [one for one in names if name and one.startswith(name.lower())][:3]
    return f"did you mean {' or '.join(repr(names[one]) for one in found)}?" if found else None


class MedGroundError(Exception):
    """A user error: what is wrong, where, what was expected, what to do.

    Parameters
    ----------
    message : str
        What is wrong, in one sentence.
    where : str, optional
        The file, ``file:line`` or record id it concerns.
    expected : str, optional
        What was expected instead.
    remedy : str, optional
        What the user can do.
    """

    def __init__(
        self,
        message: str,
        *,
        where: object = None,
        expected: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.message = message
        self.where = None if where is None else str(where)
        self.expected = expected
        self.remedy = remedy
        super().__init__(message)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.message}" if self.where else self.message]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.remedy:
            lines.append(f"  to do: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only fields must survive the trip back from a worker process.
        return (_rebuild, (type(self), self.message, self.where, self.expected, self.remedy))


def _rebuild(
    kind: type[MedGroundError], message: str, where: str | None, expected: str | None, remedy: str | None
) -> MedGroundError:
    return kind(message, where=where, expected=expected, remedy=remedy)


class FileError(MedGroundError):
    """A file or folder cannot be read or written: no space left, no permission, a file where a folder is meant."""

    @classmethod
    def of(cls, error: OSError, where: object = None) -> FileError:
        """What the system refused, as a user error.

        Parameters
        ----------
        error : OSError
            With or without a number: some libraries raise it with a sentence only.
        where : path, optional
            What it is about, for an error that does not name its file.
        """
        expected, remedy = _REMEDIES.get(
            error.errno or 0, ("room and permission for every file", "check the space on the disk and the permissions")
        )
        words = error.strerror or " ".join(str(error).split()) or type(error).__name__
        name = where if error.filename is None else error.filename
        if isinstance(name, bytes):
            name = name.decode(errors="replace")
        return cls(words, where=name, expected=expected, remedy=remedy)


class SourceError(MedGroundError):
    """A source folder or one of its annotation files is missing, incomplete or malformed."""


class ImageError(MedGroundError):
    """An image cannot be read as a single grey radiograph."""


class RecordsError(MedGroundError):
    """Released or own records are malformed, unverified or do not fit their source."""


class BuildError(MedGroundError):
    """The dataset folder cannot be built or read."""


class PublishError(MedGroundError):
    """Something would be published that must not be, or the hub refused it."""


class GeometryError(MedGroundError, ValueError):
    """A box, size or heat map is not one."""


class ScoringError(MedGroundError, ValueError):
    """Predictions and references cannot be scored together."""


class SubmissionError(MedGroundError):
    """A submission folder is malformed or belongs to another dataset."""


class LvlmError(MedGroundError):
    """A vision-language model cannot be loaded, fed or scored."""


class MethodError(MedGroundError):
    """An attribution method is unknown, misconfigured or produced no usable attribution."""


class EditorError(MedGroundError):
    """A counterfactual editor cannot be built or failed on an image."""


class AtlasError(MedGroundError):
    """A pool of reference radiographs is missing or malformed."""


class MissingDependencyError(MedGroundError, ImportError):
    """An optional dependency is not installed; the remedy names the extra that brings it."""


_REMEDIES: dict[int, tuple[str, str]] = {
    errno.ENOSPC: ("enough free space", "free some space or choose another place, and run again"),
    errno.EFBIG: ("enough room for the file", "raise the limit on file sizes (ulimit -f) or choose another place"),
    errno.EROFS: ("a place that can be written to", "choose another place"),
    errno.EACCES: ("permission for it", "correct the permissions or choose another place"),
    errno.EPERM: ("permission for it", "correct the permissions or choose another place"),
    errno.ENOENT: ("a file or folder that exists", "check the path"),
    errno.ENOTDIR: ("a folder, not a file", "check the path, or choose another place"),
    errno.EEXIST: ("a folder, not a file", "check the path, or choose another place"),
    errno.EISDIR: ("a file, not a folder", "check the path, or choose another place"),
}
if hasattr(errno, "EDQUOT"):
    _REMEDIES[errno.EDQUOT] = _REMEDIES[errno.ENOSPC]
