"""LVLMs of the commands, and the number of threads they run with."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm

__all__ = ["load_for_command", "set_threads"]

SMALL = 2_000_000
"""Below this many parameters the threads of a CPU spend their time waiting for each other: measured on two busy
cores, a model of this size was 6 to 75 times slower with two threads than with one."""

threads: int | None = None
"""``medground-bench --threads``; None leaves the number to torch, except for small models."""


def load_for_command(name: str, **options: Any) -> Lvlm:
    """:func:`medground_bench.lvlm.load_lvlm`, and as many threads as suit the model."""
    from medground_bench.lvlm import load_lvlm

    lvlm = load_lvlm(name, **options)
    if lvlm.family != "server":
        set_threads(lvlm.device.type == "cpu" and sum(p.numel() for p in lvlm.model.parameters()) <= SMALL)
    return lvlm


def set_threads(small: bool) -> None:
    """What ``--threads`` says; else one for small models, and torch's own number for the others."""
    import torch

    usual = _usual_threads()
    torch.set_num_threads(threads or (1 if small else usual))


@cache
def _usual_threads() -> int:
    import torch

    return torch.get_num_threads()
