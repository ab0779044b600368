"""Loaded once, failed once."""

from __future__ import annotations

import pytest

from baselines.shared.once import once
from medground_bench.core.errors import MethodError


def test_what_cannot_be_loaded_is_tried_once() -> None:
    tries: list[str] = []

    def load(name: str) -> str:
        tries.append(name)
        if name == "absent":
            raise MethodError("it is not there")
        return name.upper()

    kept = once(load)
    for _ in range(3):
        with pytest.raises(MethodError, match="not there"):
            kept("absent")
    assert kept("here") == kept("here") == "HERE"
    assert tries == ["absent", "here"]
