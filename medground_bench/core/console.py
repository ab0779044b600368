"""Consoles and progress of the command line: a bar in a terminal, now and then a line where there is none."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["progress_bar", "stderr", "stdout"]

stdout = Console()
stderr = Console(stderr=True)

EVERY = 30.0
"""Seconds between two lines of progress in a log."""


@contextlib.contextmanager
def progress_bar(title: str, *, resumes: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """Progress fed by ``update(done, total, what)``: a bar in a terminal; else a line every :data:`EVERY` seconds.

    Parameters
    ----------
    title : str
        What goes on.
    resumes : bool
        The first line of a log says that the same command goes on where this one is stopped.
    """
    if not stderr.is_terminal:
        yield _log_lines(title, resumes)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[what]}"),
    )
    with Progress(*columns, console=stderr, transient=True) as bar:
        task = bar.add_task(title, total=None, what="")

        def update(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, what=what)

        yield update


def _log_lines(title: str, resumes: bool) -> Callable[[int, int, str], None]:
    """``title: 120 of 4000 (3 %), 2.1 per second, 31 min left; what``, with the rate since the first update."""
    started = last = time.monotonic()
    first: int | None = None
    hint = " (may be interrupted: the same command goes on from there)" if resumes else ""

    def update(done: int, total: int, what: str) -> None:
        nonlocal first, last, hint
        first = done if first is None else first
        now = time.monotonic()
        if now - last < EVERY or done <= first:
            return
        last, rate = now, (done - first) / (now - started)
        speed = f"{rate:.3g} per second" if rate >= 0.1 else f"{1 / rate:.3g} seconds each"
        line = f"{title}: {done} of {total} ({done / max(total, 1):.0%}), {speed}, {_spell((total - done) / rate)} left"
        stderr.print(line + (f"; {what}" if what else "") + hint, highlight=False, markup=False, soft_wrap=True)
        hint = ""

    return update


def _spell(seconds: float) -> str:
    """A time to wait in the largest fitting unit."""
    for size, unit in ((86_400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
