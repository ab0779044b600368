"""An LVLM that calculates in another data type for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from medground_bench.core.errors import LvlmError

if TYPE_CHECKING:
    from medground_bench.lvlm.model import Lvlm

__all__ = ["other_type", "retyped"]


def other_type(lvlm: Any) -> torch.dtype | None:
    """bfloat16 for a model in float32, float32 for one in half precision; None where its weights are not at hand.

    They are not behind a server, quantised, or kept on disk.
    """
    model = getattr(lvlm, "model", None)
    if not isinstance(model, torch.nn.Module) or lvlm.bits or any(p.device.type == "meta" for p in model.parameters()):
        return None
    return torch.bfloat16 if lvlm.dtype == torch.float32 else torch.float32


@contextmanager
def retyped(lvlm: Lvlm, dtype: torch.dtype) -> Iterator[None]:
    """Inside it the weights are of another type; then the same tensors as before are back, to the last bit.

    Tables that are no weights, as those of rotary embeddings, stay as they are, as when a model is loaded in that type.

    Parameters
    ----------
    lvlm : Lvlm
        Changed in place: use it for nothing else meanwhile. Memory for a second copy of the weights is needed.
    dtype : torch.dtype
        Of floating point.

    Raises
    ------
    LvlmError
        If the memory does not suffice.
    """
    before = [(p, p.data) for p in lvlm.model.parameters() if p.is_floating_point()]
    try:
        try:
            for parameter, value in before:
                parameter.data = value.to(dtype)
        except torch.OutOfMemoryError as error:
            raise LvlmError(f"no memory for the weights in {dtype}", where=lvlm.key) from error
        yield
    finally:
        for parameter, value in before:
            parameter.data = value
