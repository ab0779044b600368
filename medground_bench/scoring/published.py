"""Numbers that the paper states, as data with their source."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Published", "published_note", "published_numbers"]

_FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Published:
    """A published number.

    Attributes
    ----------
    method, dataset, mode, metric : str
        What it is of: the name of the method here, a source's key, ``direct`` or ``reason``, a metric.
    value : float
        The number, a fraction.
    """

    method: str
    dataset: str
    mode: str
    metric: str
    value: float


@cache
def published_numbers() -> tuple[Published, ...]:
    """The numbers, in the order of the paper."""
    return tuple(Published(**entry) for entry in json.loads(_FILE.read_text(encoding="utf-8"))["numbers"])


def published_note() -> str:
    """Where they are from, and what they may be compared with."""
    content = json.loads(_FILE.read_text(encoding="utf-8"))
    return f"{content['source']['title']}, {content['source']['where']}. {content['note']}"
