"""Load large things once per process, and fail once too."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, TypeVar

from medground_bench.core.errors import MedGroundError

__all__ = ["once"]

T = TypeVar("T")


def once(load: Callable[[str], T]) -> Callable[[str], T]:
    """A loader that keeps its last result.

    A user error is kept as well and raised again: a hub that cannot be reached is not asked again, with all its
    retries, for each of a thousand records.
    """

    @lru_cache(maxsize=1)
    def outcome(argument: str) -> tuple[Any, MedGroundError | None]:
        try:
            return load(argument), None
        except MedGroundError as error:
            return None, error

    @wraps(load)
    def kept(argument: str) -> T:
        result, error = outcome(argument)
        if error is not None:
            raise error
        loaded: T = result
        return loaded

    return kept
