"""Taking in a stranger's submission in a process of its own, with a deadline and a memory limit.

Whatever a submission does to the code that reads it, it does to that process: if it takes too long, it is killed; if it
needs too much memory, it gets none; if it fails in any way, one line says so. What comes back is plain JSON.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import math
import multiprocessing
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.files import sweep
from medground_bench.core.processes import end_with_parent
from medground_bench.pages.leaderboard import uploads
from medground_bench.pages.leaderboard.archive import UploadError
from medground_bench.pages.leaderboard.uploads import Receipt
from medground_bench.scoring import Interval
from medground_bench.submission import PREDICTIONS_FILE

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["DEADLINE", "MEMORY", "receive_apart"]

DEADLINE = 120.0
"""Seconds that one submission may take."""

MEMORY = 768 << 20
"""Bytes that one submission may need beyond what the code itself does."""

for _library in ("pyarrow.parquet", "scipy.ndimage", "scipy.special"):  # what is loaded late, and would count as memory
    import_module(_library)

_AT_ONCE = 2
_SMALL = 1 << 16  # bytes


class _Queue:
    """Who may run: two at once, of which one at most is large; of those that wait, the smallest first.

    What is small is done in a second. So a large upload, hostile or not, keeps no small one waiting.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int]] = []
        self._running: list[int] = []
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def turn(self, size: int) -> Iterator[None]:
        """Wait for the turn of an upload of so many bytes."""
        mine = (size, next(self._numbers))
        with self._changed:
            heapq.heappush(self._waiting, mine)
            self._changed.wait_for(lambda: self._waiting[0] == mine and self._free_for(size))
            heapq.heappop(self._waiting)
            self._running.append(size)
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._running.remove(size)
                self._changed.notify_all()

    def _free_for(self, size: int) -> bool:
        if len(self._running) >= _AT_ONCE:
            return False
        return size <= _SMALL or all(other <= _SMALL for other in self._running)


_queue = _Queue()


def receive_apart(
    kind: str, path: str | Path, *places: str | Path, seconds: float = DEADLINE, memory: int = MEMORY, **options: Any
) -> Receipt:
    """:func:`~medground_bench.pages.leaderboard.uploads.receive_archive` or ``receive_folder`` in a process of its own.

    At most two run at once in a server, one of them large; others wait for their turn, small ones in front.

    Parameters
    ----------
    kind : {"archive", "folder"}
        Which of the two.
    path : path
        The upload.
    *places : path
        Results folder and dataset folder.
    seconds : float
        After so many the process is killed.
    memory : int
        Bytes that it may take (Linux).
    **options
        Of the function.

    Raises
    ------
    UploadError
        If it is refused, took too long or too much memory; the message is meant for whoever sent it.
    RuntimeError
        If it failed in a way that is no refusal; the message names the kind of error, for the server's owner.
    """
    context = _context()
    path = Path(path)
    with _queue.turn(_size(path)):
        ours, theirs = context.Pipe(duplex=False)
        arguments = (theirs, kind, [str(p) for p in (path, *places)], options, memory)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        answer: dict[str, Any]
        try:
            answer = json.loads(ours.recv_bytes(1 << 20)) if ours.poll(seconds) else {"late": True}
        except (EOFError, OSError, ValueError):
            answer = {"died": True}
        finally:
            ours.close()
            process.kill()
            process.join()
            sweep(tempfile.gettempdir())  # what a killed process left
    if "receipt" in answer:
        facts = answer["receipt"]
        iou = None if facts["iou"] is None else Interval(*(math.nan if v is None else v for v in facts["iou"]))
        return Receipt(**{**facts, "path": Path(facts["path"]), "iou": iou})
    if "refused" in answer:
        message, expected, remedy = answer["refused"]
        raise UploadError(message, expected=expected, remedy=remedy)
    if "late" in answer:
        raise UploadError(f"scoring it took more than {seconds:g} seconds", remedy="send fewer boxes and heat maps")
    if "memory" in answer or "died" in answer:
        raise UploadError("scoring it needs more memory than a submission may take", remedy="send less in it")
    raise RuntimeError(str(answer.get("failed")))


def _size(path: Path) -> int:
    file = path / PREDICTIONS_FILE if path.is_dir() else path
    try:
        return file.stat().st_size
    except OSError:  # the worker will say what is wrong
        return 0


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imports are done once, in a process without threads
    return context


def _work(answer: Connection, kind: str, paths: list[str], options: dict[str, Any], memory: int) -> None:
    end_with_parent()
    receive: Callable[..., Receipt] = uploads.receive_archive if kind == "archive" else uploads.receive_folder
    out: dict[str, Any]
    try:
        _limit_memory(memory)
        receipt = asdict(receive(*paths, **options))
        iou = receipt["iou"]
        finite = None if iou is None else [float(v) if math.isfinite(v) else None for v in iou]
        out = {"receipt": {**receipt, "path": str(receipt["path"]), "iou": finite}}
    except UploadError as error:
        out = {"refused": [error.message, error.expected, error.remedy]}
    except MemoryError:
        out = {"memory": True}
    except BaseException as error:  # any failure is this submission's alone
        out = {"failed": f"{type(error).__name__}: {str(error)[:500]}"}
        if re.search("alloc.*emory|emory.*alloc|failed to map segment", str(error)):  # other words for a MemoryError
            out = {"memory": True}
    with contextlib.suppress(OSError):
        answer.send_bytes(json.dumps(out).encode())
    answer.close()
    os._exit(0)  # no clean-up of what a hostile file may have left in the interpreter


def _limit_memory(extra: int) -> None:
    """Allow this process so many bytes more than it has."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = now + extra if hard == resource.RLIM_INFINITY else min(now + extra, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):  # no such limit on this system: the deadline remains
        pass
