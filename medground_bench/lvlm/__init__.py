"""The vision-language models of the benchmark: load, prepare, score, look inside.

Everything that touches a model goes through here. ``load_lvlm`` gives an :class:`Lvlm`; its ``prepare``
binds one image, question and response into an immutable :class:`Episode`, which ``log_probs``, the
functions of :mod:`medground_bench.lvlm.whitebox` and every attribution method read. The module itself
imports neither torch nor transformers; they arrive with the first name that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medground_bench.lvlm.episode import Episode, Generated, ResponseToken
    from medground_bench.lvlm.grid import TokenBoxes, TokenGrid
    from medground_bench.lvlm.loading import load_lvlm
    from medground_bench.lvlm.model import Lvlm

__all__ = ["Episode", "Generated", "Lvlm", "ResponseToken", "TokenBoxes", "TokenGrid", "load_lvlm"]

_HOMES = {
    "Episode": "episode",
    "Generated": "episode",
    "ResponseToken": "episode",
    "TokenBoxes": "grid",
    "TokenGrid": "grid",
    "load_lvlm": "loading",
    "Lvlm": "model",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
