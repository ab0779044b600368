"""Writing files so that a reader never sees half of one, and journals that survive ``kill -9``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from medground_bench.core.errors import MedGroundError

__all__ = ["Journal", "atomic_folder", "atomic_write", "read_journals", "within"]


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w", *, permissions: int | None = None) -> Iterator[IO[Any]]:
    """Open a temporary sibling of ``path``; on success flush, fsync and rename it into place.

    An exception (or a crash) leaves the old file, or none, never half of the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        encoding = None if "b" in mode else "utf-8"
        with os.fdopen(fd, mode, encoding=encoding, newline=None if "b" in mode else "\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; ordinary outputs follow the user's umask.
        os.chmod(name, permissions if permissions is not None else 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling folder; on success it replaces ``path`` whole.

    The old folder is moved aside first and removed last, so that an interruption leaves the old one or the new.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        yield staging
        staging.chmod(0o777 & ~_umask())
        if path.exists():
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
            os.replace(path, aside / path.name)
            try:
                os.replace(staging, path)
            except BaseException:
                os.replace(aside / path.name, path)
                raise
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        else:
            os.replace(staging, path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def within(root: str | Path, relative: str | Path) -> Path:
    """``root / relative``, refused if it climbs out of the root (``..``, absolute, symbolic link)."""
    root = Path(root).resolve()
    target = (root / relative).resolve()
    if not target.is_relative_to(root):
        raise MedGroundError(
            f"path {str(relative)!r} leaves its folder",
            where=root,
            expected="a path inside the folder",
            remedy="correct the annotation file; paths with '..', absolute paths and links to elsewhere are refused",
        )
    return target


class Journal:
    """Append-only JSON lines, one fsynced line per entry: what long work resumes from.

    Each process writes its own part file, ``{stem}-{rank:05d}.jsonl``; :func:`read_journals` reads them all.
    Opening a journal whose last line was torn by a crash cuts that line off.
    """

    def __init__(self, folder: str | Path, stem: str, rank: int = 0) -> None:
        self.path = Path(folder) / f"{stem}-{rank:05d}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _trim_torn_line(self.path)
        self._file = open(self.path, "ab")  # noqa: SIM115 - closed by close()

    def append(self, entry: dict[str, Any]) -> None:
        """Write one entry; it is on disk when this returns."""
        self._file.write(json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journals(folder: str | Path, stem: str) -> Iterator[dict[str, Any]]:
    """Entries of all part files of a journal, in part order; a torn last line is left out.

    Raises
    ------
    MedGroundError
        If a line other than a torn last one is not JSON (the file was damaged by something else).
    """
    for path in sorted(Path(folder).glob(f"{stem}-*.jsonl")):
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    continue
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise MedGroundError(
                        "this line is not JSON",
                        where=f"{path}:{number}",
                        remedy="delete the line and run again",
                    ) from error


def _trim_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        position, keep = size, 0
        while position > 0:
            step = min(65536, position)
            position -= step
            file.seek(position)
            newline = file.read(step).rfind(b"\n")
            if newline >= 0:
                keep = position + newline + 1
                break
        if keep != size:
            file.truncate(keep)
