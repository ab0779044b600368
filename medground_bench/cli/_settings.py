"""``NAME=VALUE`` options."""

from __future__ import annotations

import json
from typing import Any

from medground_bench.core.errors import MedGroundError

__all__ = ["parse_settings", "parse_value"]


def parse_settings(option: str, pairs: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs of an option -> settings.

    Raises
    ------
    MedGroundError
        If a pair is not of that form.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise MedGroundError(f"--{option} {pair!r} is not understood", expected="NAME=VALUE, e.g. steps=50")
        settings[name] = parse_value(text)
    return settings


def parse_value(text: str) -> Any:
    """A value as JSON where it parses, else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
