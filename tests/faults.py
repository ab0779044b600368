"""Faults on purpose: a process killed at a certain renaming, and what it leaves."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medground_bench.core import files

KILLED = "killed"


def run_killed_at(number: int, when: str, run: Callable[[], Any]) -> str | int:
    """Run in a child process that dies by SIGKILL right before or after its ``number``-th renaming (from 1).

    Returns
    -------
    "killed" or int
        Or, when it came to its end, how many renamings there were.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            count = _armed(number, when)
            files._swept.clear()  # as in a process that has just started
            run()
            os.write(write, str(count[0]).encode())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return KILLED
    assert os.waitstatus_to_exitcode(status) == 0, "the run failed by itself: see standard error"
    return int(said)


def every_kill(run: Callable[[], Any], renamings: int) -> Iterator[tuple[int, str]]:
    """Kill a run at each of its renamings, before it and after it; yields each place once the process is dead."""
    for number in range(1, renamings + 1):
        for when in ("before", "after"):
            assert run_killed_at(number, when, run) == KILLED
            yield number, when


def hidden(folder: Path, *expected: str) -> list[str]:
    """Hidden files and folders below a folder, without those that are expected."""
    found = (str(p.relative_to(folder)) for p in folder.rglob(".*"))
    return sorted(name for name in found if Path(name).name not in expected)


def _armed(number: int, when: str) -> list[int]:
    """Count every renaming of this process, and die at the ``number``-th."""
    count = [0]

    def wrapped(rename: Callable[..., Any]) -> Callable[..., Any]:
        def renaming(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            here = count[0] == number
            if here and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = rename(*arguments, **options)
            if here and when == "after":
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return renaming

    os.rename, os.replace = wrapped(os.rename), wrapped(os.replace)
    if files._renameat2() is not None:
        files._exchange = wrapped(files._exchange)
    return count
