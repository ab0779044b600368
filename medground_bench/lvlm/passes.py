"""How many passes of the language model something costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medground_bench.lvlm.model import Lvlm

__all__ = ["Passes", "count_passes"]


@dataclass
class Passes:
    """Sequences that went through the language model.

    Attributes
    ----------
    forward, backward : int
        Of every batch the sequences in it. Passes of the decoder alone count like those of the whole model; what the
        vision tower does alone does not.
    """

    forward: int = 0
    backward: int = 0


@contextmanager
def count_passes(lvlm: Lvlm) -> Iterator[Passes]:
    """Count the passes that are made within it; of an LVLM whose head is out of reach (a server) none are."""
    passes = Passes()

    def seen(module: Any, args: Any, logits: Any) -> None:
        count = int(logits.shape[0])
        passes.forward += count
        if logits.requires_grad:
            logits.register_hook(lambda gradient: _add(passes, count))

    get = getattr(getattr(lvlm, "model", None), "get_output_embeddings", None)
    head = get() if callable(get) else None
    hook = None if head is None else head.register_forward_hook(seen)
    try:
        yield passes
    finally:
        if hook is not None:
            hook.remove()


def _add(passes: Passes, count: int) -> None:
    passes.backward += count
