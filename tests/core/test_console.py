from __future__ import annotations

import io

import pytest
from rich.console import Console

from medground_bench.core import console


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> tuple[io.StringIO, Clock]:
    """Standard error that is no terminal, and the time."""
    out, clock = io.StringIO(), Clock()
    monkeypatch.setattr(console, "stderr", Console(file=out, width=80))
    monkeypatch.setattr(console, "time", clock)
    return out, clock


def test_a_log_has_a_line_now_and_then_with_rate_and_time_left(log: tuple[io.StringIO, Clock]) -> None:
    out, clock = log
    with console.progress_bar("toy_qwen direct", resumes=True) as update:
        for done in range(401):
            clock.now = done * 0.5
            update(done, 4000, "occlusion")
    lines = out.getvalue().splitlines()
    assert len(lines) == 6  # in 200 seconds
    assert lines[0] == (
        "toy_qwen direct: 60 of 4000 (2%), 2 per second, 33 min left; occlusion "
        "(may be interrupted: the same command goes on from there)"
    )
    assert lines[1] == "toy_qwen direct: 120 of 4000 (3%), 2 per second, 32 min left; occlusion"


def test_slow_work_is_told_in_seconds_each(log: tuple[io.StringIO, Clock]) -> None:
    out, clock = log
    with console.progress_bar("filter") as update:
        update(3, 100, "")  # three were there
        clock.now = 50.0
        update(4, 100, "")
    assert out.getvalue() == "filter: 4 of 100 (4%), 50 seconds each, 80 min left\n"


def test_short_work_says_nothing(log: tuple[io.StringIO, Clock]) -> None:
    out, clock = log
    with console.progress_bar("scoring") as update:
        for done in range(4):
            clock.now = done
            update(done, 3, "x")
    assert out.getvalue() == ""
