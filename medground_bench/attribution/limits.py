"""A limit on the time that one method may take for one record."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["check_limit", "time_limit"]


def check_limit(seconds: float | None) -> None:
    """Raise :class:`MethodError` if a limit of so many seconds cannot be kept here."""
    if seconds is None:
        return
    if not seconds > 0:
        raise MethodError(f"a time limit of {seconds} seconds", expected="a positive number")
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        raise MethodError("a time limit for methods needs the main thread of a Unix process")


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """End what runs within it after so many seconds by a :class:`MethodError`; None: never.

    It ends between two operations: one call into a library that takes longer is waited for.
    """
    if seconds is None:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise MethodError(f"it took more than {seconds:g} seconds", remedy="a higher --method-timeout, or a budget")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
