"""Files that a reader never sees half of, journals that survive ``kill -9``, locks, and the user's cache folder.

What is being written lies beside its place under a hidden name that tells who writes it,
``.{name}.{host}-{process id}.{random}.part``. When a process is killed, such leftovers stay; the next one that writes
to the same folder removes them (:func:`sweep`), for the process they name is dead.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from medground_bench.core.errors import FileError, MedGroundError

__all__ = [
    "Journal",
    "atomic_folder",
    "atomic_write",
    "cache_folder",
    "file_lock",
    "folder_fingerprint",
    "read_journals",
    "scratch_folder",
    "sha256_of",
    "sweep",
    "target_of",
    "within",
]

_LOG = logging.getLogger(__name__)
_LEFTOVER = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)\.[^.]+\.(part|old)", re.DOTALL)
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100
_SMALL = 64 << 20  # bytes
_swept: set[Path] = set()


# --- whole or not at all


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w", *, permissions: int | None = None) -> Iterator[IO[Any]]:
    """Open a temporary sibling of ``path``; on success flush, fsync and rename it into place.

    An exception (or a crash) leaves the old file, or none, never half of the new one. Of a symbolic link the target
    is written. A device or pipe, which nothing can be renamed onto, is written to directly.

    Raises
    ------
    OSError
        With ``filename`` set to ``path``, if it cannot be written.
    FileError
        Instead of an :class:`OSError` without a number, which some libraries raise.
    """
    path = target_of(path)
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "\n")
    with _naming(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.exists() and not path.is_file():
            with open(path, mode, encoding=encoding, newline=newline) as file:
                yield file
            return
        _make_folder(path.parent)
        if path.parent not in _swept:  # once per process: a folder of many files is listed once
            sweep(path.parent)
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=".part")
        try:
            with os.fdopen(fd, mode, encoding=encoding, newline=newline) as file:
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


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, but none at the root of the file system: that was a slip of the pen.

    Raises
    ------
    FileError
        If the first of them would lie at the root.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    if missing and missing[-1].parent == Path(folder.anchor) and folder.is_absolute():
        raise FileError(
            "there is no such folder, and none is made at the root of the file system",
            where=missing[-1],
            expected="a path inside a folder that exists",
            remedy="correct the path, or make the folder first",
        )
    folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling folder; on success it replaces ``path`` whole.

    The two are exchanged in one step where the system can (Linux), so that a process killed at any moment leaves the
    old folder or the new one. Elsewhere the old one is moved aside first; :func:`sweep` puts it back if the process
    was killed in between. Of a symbolic link the target is replaced.

    Raises
    ------
    OSError
        With ``filename`` set to ``path``, if it cannot be written.
    """
    path = target_of(path)
    with scratch_folder(path) as staging:
        yield staging
        staging.chmod(0o777 & ~_umask())
        if not path.exists():
            os.replace(staging, path)
        elif not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        elif not _exchange(staging, path):  # after an exchange, what is removed as staging is the old folder
            _replace_in_two_steps(staging, path)


@contextlib.contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary sibling folder of ``path``, on the same file system; it is removed at the end."""
    path = target_of(path)
    with _naming(path):
        _make_folder(path.parent)
        sweep(path.parent)
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".part"))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: str | Path) -> None:
    """Remove what killed processes of this machine left half-written in a folder.

    A folder that one of them had moved aside, and whose place is empty, is put back; this is logged as a warning.
    """
    folder = Path(folder)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(folder):
            found = _LEFTOVER.fullmatch(entry.name)
            if not found or found[1] != _host() or _alive(int(found[2])):
                continue
            if found[3] == "old":
                for orphan in Path(entry.path).iterdir():
                    if not (folder / orphan.name).exists():
                        os.replace(orphan, folder / orphan.name)
                        _LOG.warning("%s: restored; an earlier run was killed while replacing it", folder / orphan.name)
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)
    _swept.add(folder)


def target_of(path: str | Path) -> Path:
    """Absolute path without symbolic links (they may dangle): writing to a link means writing where it leads."""
    path = Path(path)
    # Not of a device or pipe: /dev/stdout leads to something that has no path.
    return path.absolute() if path.exists() and not (path.is_file() or path.is_dir()) else path.resolve()


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; False where the system or its file system cannot."""
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


@functools.cache
def _renameat2() -> Any:
    if sys.platform != "linux":
        return None
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # a C library without it
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return function


def _replace_in_two_steps(staging: Path, path: Path) -> None:
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path), suffix=".old"))
    try:
        os.replace(path, aside / path.name)
        try:
            os.replace(staging, path)
        except BaseException:
            os.replace(aside / path.name, path)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the user's file in errors that name none, or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a sentence of a library's own, which a file name would displace
            raise FileError.of(error, path) from error
        if error.filename is None or any(map(_LEFTOVER.fullmatch, Path(os.fsdecode(error.filename)).parts)):
            if error.filename2 is not None:  # of a renaming
                raise OSError(error.errno, error.strerror, str(path)) from error
            error.filename = str(path)
        raise


def _prefix(path: Path) -> str:
    return f".{path.name[:50]}.{_host()}-{os.getpid()}."


@functools.cache
def _host() -> str:
    """Process ids mean something on their own machine only, and folders are shared between machines."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _alive(pid: int) -> bool:
    if os.name == "nt":  # there, asking would end the process
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- one process at a time


@contextlib.contextmanager
def file_lock(path: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock file; another process that holds it is waited for, or refused.

    The system drops the lock with the process, however it ends; the (empty) file stays. On a file system without
    locks nothing is locked.

    Raises
    ------
    MedGroundError
        If another process holds it and ``wait`` is false.
    """
    path = target_of(path)
    _make_folder(path.parent)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout as error:
        raise MedGroundError(
            "another process is writing here",
            where=path.parent,
            expected="one run at a time in a folder (several processes only through one launcher)",
            remedy="wait for it or stop it; use 'accelerate launch' or 'torchrun' for several processes",
        ) from error
    except NotImplementedError:
        pass
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
            raise
    try:
        yield
    finally:
        lock.release()


# --- paths


def cache_folder(name: str) -> Path:
    """A folder of this project in the user's cache: below ``$MEDGROUND_CACHE``, else in the system's usual place.

    It is not made. On Linux the usual place is ``$XDG_CACHE_HOME/medground-bench``, ``~/.cache/medground-bench``.
    """
    own = os.environ.get("MEDGROUND_CACHE")
    base = Path(own).expanduser() if own else user_cache_path("medground-bench", appauthor=False)
    return base / name


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


# --- checksums


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_fingerprint(folder: str | Path) -> str:
    """``sha256:`` over the names, sizes and contents of a model folder's files.

    Of files above 64 MB (the weights of real models) only the first megabyte goes in, which for safetensors
    holds the list of tensors: enough to tell models apart, quick enough to do at every start.
    """
    digest = hashlib.sha256()
    wanted = (".json", ".jinja", ".safetensors", ".model")
    for path in sorted(p for p in Path(folder).iterdir() if p.is_file() and p.suffix in wanted):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as handle:
            digest.update(handle.read() if size <= _SMALL else handle.read(1 << 20))
    return "sha256:" + digest.hexdigest()


# --- journals


class Journal:
    """Append-only JSON lines, one fsynced line per entry: what long work resumes from.

    Each process writes its own part file, ``{stem}-{rank:05d}.jsonl``; :func:`read_journals` reads them all.
    Opening a journal whose last line was torn by a crash cuts that line off. An open journal is locked.

    Raises
    ------
    MedGroundError
        If another process has the same part file open.
    OSError
        With ``filename`` set, if an entry cannot be written; the part file is then what it was before.
    """

    def __init__(self, folder: str | Path, stem: str, rank: int = 0) -> None:
        self.path = target_of(Path(folder) / f"{stem}-{rank:05d}.jsonl")
        self._held = contextlib.ExitStack()
        self._held.enter_context(file_lock(self.path.with_suffix(".lock")))
        try:
            _trim_torn_line(self.path)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        except BaseException:
            self._held.close()
            raise
        self._held.callback(os.close, self._fd)

    def append(self, entry: dict[str, Any]) -> None:
        """Write one entry; it is on disk when this returns."""
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._fd).st_size
        try:
            with _naming(self.path):
                while line:
                    line = line[os.write(self._fd, line) :]
                os.fsync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, size)
            raise

    def close(self) -> None:
        self._held.close()

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
