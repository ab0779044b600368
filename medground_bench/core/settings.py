"""Results made in one way only: a folder that is resumed must have been made with the same settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from medground_bench.core.errors import MedGroundError

__all__ = ["require_same"]


def require_same(what: str, before: Mapping[str, Any], now: Mapping[str, Any], *, where: object) -> None:
    """Refuse to mix results of different settings.

    Parameters
    ----------
    what : str
        What is there already, for the message ("the verdicts in this folder").
    before, now : mapping
        The settings it was made with, as read from JSON, and those of this run.
    where : path
        Where the earlier ones are written down.

    Raises
    ------
    MedGroundError
        If any setting differs, is new, or is gone; each is named with both values.
    """
    now = json.loads(json.dumps(dict(now)))  # a tuple equals the list it was stored as
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if changed:
        raise MedGroundError(
            f"{what} were made with other settings: "
            + "; ".join(f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in changed),
            where=where,
            expected="one folder, one way of making what is in it",
            remedy="give the earlier run's options to resume it, use another --out, or delete the folder",
        )
