"""Load large things once per process, and fail once too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from medground_bench.core.errors import MedGroundError

__all__ = ["Once"]


class Once:
    """Results of a loader by its argument, the most recent ones kept.

    A user error is kept as well and raised again: a hub that cannot be reached is not asked again, with all its
    retries, for each of a thousand records.

    Parameters
    ----------
    load : callable
        Argument -> what is loaded.
    keep : int
        How many results to keep.
    """

    def __init__(self, load: Callable[[str], Any], keep: int = 1) -> None:
        self._load, self._keep = load, keep
        self._results: OrderedDict[str, Any] = OrderedDict()

    def __call__(self, argument: str) -> Any:
        if argument not in self._results:
            try:
                result = self._load(argument)
            except MedGroundError as error:
                result = error
            self._results[argument] = result
            while len(self._results) > self._keep:
                self._results.popitem(last=False)
        self._results.move_to_end(argument)
        result = self._results[argument]
        if isinstance(result, MedGroundError):
            raise result
        return result
