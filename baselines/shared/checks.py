"""Checks that several methods share."""

from __future__ import annotations

from medground_bench.core.errors import MethodError

__all__ = ["require"]


def require(condition: bool, name: str, message: str) -> None:
    """Refuse a parameter of the method ``name``.

    Raises
    ------
    MethodError
        If the condition does not hold.
    """
    if not condition:
        raise MethodError(f"method {name!r}: {message}")
