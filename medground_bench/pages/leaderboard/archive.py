"""Unpacking a ZIP archive that a stranger sent: only what a submission consists of, and never more than agreed.

Nothing the archive says about itself is believed: sizes are counted while unpacking, every name is checked, and only
``submission.json``, ``predictions.jsonl`` and ``heatmaps/*.npy`` are written, under names of our own making. Anything
else, other archives among it, is left where it is.
"""

from __future__ import annotations

import errno
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from medground_bench.core.errors import SubmissionError
from medground_bench.submission import HEADER_FILE, PREDICTIONS_FILE
from medground_bench.submission.checks import clean

__all__ = ["Limits", "Unpacked", "UploadError", "full_disk", "unpack"]


class UploadError(SubmissionError):
    """An upload is refused; the message is meant for whoever sent it and tells nothing of this machine."""


@dataclass(frozen=True)
class Limits:
    """What an upload may be.

    Attributes
    ----------
    archive_bytes : int
        Size of the archive itself.
    total_bytes : int
        Unpacked size of all members.
    header_bytes, predictions_bytes, heatmap_bytes : int
        Unpacked size of ``submission.json``, of ``predictions.jsonl`` and of one heat map.
    members : int
        Entries of the archive, folders included.
    ratio : int
        Unpacked size over the packed size of the members that are used, once more than ``ratio_from`` bytes are
        unpacked.
    depth : int
        Nesting of the header's values.
    text : int
        Characters of a text in the header.
    """

    archive_bytes: int = 256 << 20
    total_bytes: int = 2 << 30
    header_bytes: int = 64 << 10
    predictions_bytes: int = 256 << 20
    heatmap_bytes: int = 4 << 20
    members: int = 20_000
    ratio: int = 200
    ratio_from: int = 16 << 20
    depth: int = 6
    text: int = 500


@dataclass(frozen=True)
class Unpacked:
    """What was in an archive.

    Attributes
    ----------
    lines : int
        Lines of the predictions.
    ignored : list of str
        Members that are no part of a submission, cleaned for showing.
    """

    folder: Path
    lines: int
    ignored: list[str] = field(default_factory=list)


_CHUNK = 1 << 16
_DIRECTORY_ENTRY = 46 + 512  # bytes of the central directory per member: fixed part, name and extra fields
_DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$"} | {
    f"{d}{k}" for d in ("com", "lpt") for k in "0123456789¹²³"
}
_HEATMAP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}\.npy")
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


def unpack(archive: str | Path, into: str | Path, limits: Limits | None = None) -> Unpacked:
    """Unpack a submission.

    The files may lie at the top of the archive or together in one folder.

    Parameters
    ----------
    archive : path
        The upload.
    into : path
        An empty folder.
    limits : Limits, optional
        What is accepted.

    Raises
    ------
    UploadError
        If the archive is not a plain ZIP file, is too large in any respect, is encrypted, tries to write elsewhere,
        or holds no submission.
    """
    limits, archive, into = limits or Limits(), Path(archive), Path(into)
    size = archive.stat().st_size
    if size > limits.archive_bytes:
        raise UploadError(f"the archive is larger than {_bytes(limits.archive_bytes)}", remedy="leave out heat maps")
    with open(archive, "rb") as file:
        _check_directory(file, size, limits)
        try:
            with zipfile.ZipFile(file) as opened:
                wanted, ignored = _choose(opened.infolist(), limits)
                packed = min(size, sum(info.compress_size for info in wanted.values()))
                return Unpacked(into, _write(opened, wanted, into, packed, limits), ignored)
        except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, UnicodeError) as error:
            raise UploadError(
                f"the archive is damaged: {clean(str(error), 80)}", remedy="zip the folder again"
            ) from error
        except (ValueError, RuntimeError) as error:  # zipfile's words for what it does not do
            raise UploadError(f"the archive cannot be read: {clean(str(error), 80)}") from error


def _check_directory(file: IO[bytes], size: int, limits: Limits) -> None:
    """Bound the central directory before ``zipfile`` reads it whole.

    Only the plainest ending is accepted (no comment, not ZIP64): then there is one way to read it.
    """
    file.seek(max(0, size - 42))
    tail = file.read()
    end = tail[-22:]
    if len(end) < 22 or end[:4] != b"PK\5\6":
        file.seek(0)
        start = file.read(4)
        if start == b"PK\3\4":
            raise UploadError("the archive is cut off, or carries a comment", remedy="zip the folder again")
        raise UploadError("this is not a ZIP file", expected="a ZIP of one submission folder")
    disks, count, length, offset = struct.unpack("<I2xHII", end[4:20])
    if disks or tail[:4] == b"PK\6\7" or 0xFFFFFFFF in (length, offset) or count == 0xFFFF:
        raise UploadError("ZIP64 and split archives are not accepted", remedy="zip one folder of less than 4 GB")
    if count > limits.members or length > limits.members * _DIRECTORY_ENTRY:
        raise UploadError(f"the archive has more than {limits.members} members")


def _choose(members: Sequence[zipfile.ZipInfo], limits: Limits) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """The members that make a submission, by their path in it; the names of the others."""
    if len(members) > limits.members:
        raise UploadError(f"the archive has more than {limits.members} members")
    seen: set[str] = set()
    files: dict[tuple[str, ...], zipfile.ZipInfo] = {}
    for info in members:
        parts = _check_member(info)
        key = unicodedata.normalize("NFKC", "/".join(parts)).casefold()
        if key in seen:
            raise UploadError(f"{_shown(info)} is in the archive twice")
        seen.add(key)
        if not (info.is_dir() or info.orig_filename.endswith("\\")):
            files[parts] = info
    tops = [parts[:-1] for parts in files if parts[-1] == HEADER_FILE and len(parts) <= 2 and parts[0] != "__MACOSX"]
    if len(tops) != 1:
        many = "more than one submission" if tops else f"no {HEADER_FILE}"
        raise UploadError(f"the archive has {many}", expected=f"one folder with {HEADER_FILE} and {PREDICTIONS_FILE}")
    wanted, ignored = {}, []
    for parts, info in files.items():
        inside = parts[len(tops[0]) :] if parts[: len(tops[0])] == tops[0] else ()
        if inside in ((HEADER_FILE,), (PREDICTIONS_FILE,)) or (
            len(inside) == 2 and inside[0] == "heatmaps" and _HEATMAP.fullmatch(inside[1])
        ):
            wanted["/".join(inside)] = info
        else:
            ignored.append(_shown(info))
    if PREDICTIONS_FILE not in wanted:
        raise UploadError(f"the archive has no {PREDICTIONS_FILE} beside its {HEADER_FILE}")
    return wanted, ignored


def _check_member(info: zipfile.ZipInfo) -> tuple[str, ...]:
    """The parts of a member's path; refused if it is not a plain relative path to a plain file or folder."""
    name = info.orig_filename
    if name != info.filename or any(unicodedata.category(c).startswith("C") for c in name):
        raise UploadError(f"{_shown(info)}: a name with control characters")
    name = name.replace("\\", "/")  # some programs of Windows write its separator; what follows checks both alike
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise UploadError(f"{_shown(info)}: an absolute path", remedy="zip the folder itself")
    parts = tuple(name.rstrip("/").split("/"))
    if any(part in ("", ".", "..") for part in parts):
        raise UploadError(f"{_shown(info)}: a path that leaves its folder")
    if any(part.split(".")[0].strip().casefold() in _DEVICES for part in parts):
        raise UploadError(f"{_shown(info)}: a device name")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UploadError(f"{_shown(info)}: a link or device, not a file", remedy="zip the files themselves")
    if info.flag_bits & 0x2041:
        raise UploadError(f"{_shown(info)}: the archive is encrypted", remedy="zip the folder without a password")
    if info.compress_type not in _METHODS:
        raise UploadError(
            f"{_shown(info)}: an unusual compression", remedy="zip the folder with deflate, the usual one"
        )
    return parts


def _write(
    opened: zipfile.ZipFile, wanted: Mapping[str, zipfile.ZipInfo], into: Path, packed: int, limits: Limits
) -> int:
    """Unpack the chosen members, counting; the number of lines of the predictions."""
    total = lines = 0
    for name in sorted(wanted, key=lambda n: (n != HEADER_FILE, n)):  # a bad header ends it early
        limit = {HEADER_FILE: limits.header_bytes, PREDICTIONS_FILE: limits.predictions_bytes}.get(
            name, limits.heatmap_bytes
        )
        target = into / name
        target.parent.mkdir(exist_ok=True)
        written = 0
        with opened.open(wanted[name]) as source, open(target, "xb") as out:
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                total += len(chunk)
                if written > limit:
                    raise UploadError(f"{name} is larger than {_bytes(limit)}")
                if total > limits.total_bytes:
                    raise UploadError(f"the archive unpacks to more than {_bytes(limits.total_bytes)}")
                if total > limits.ratio_from and total > limits.ratio * packed:
                    raise UploadError(f"the archive unpacks to more than {limits.ratio} times its size: a ZIP bomb")
                if name == PREDICTIONS_FILE:
                    lines += chunk.count(b"\n")
                out.write(chunk)
    return lines + 1


def full_disk(error: OSError) -> UploadError | None:
    """The refusal for an error that means there is no room here; None for another error."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return UploadError("the server has no room left; nothing was kept", remedy="try again later, or tell its owner")
    return None


def _shown(info: zipfile.ZipInfo) -> str:
    return repr(clean(info.orig_filename, 80))


def _bytes(count: int) -> str:
    return f"{count >> 20} MB" if count >= 1 << 20 else f"{count >> 10} KB" if count >= 1 << 10 else f"{count} bytes"
