"""A model that has learned nothing, for a while: weights keep their values and lose their order.

Permuting the entries of every weight keeps its scale, so that activations stay in range (Adebayo et al. 2018 draw new
weights, for which a large decoder's activations overflow or vanish).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from medground_bench.core.errors import LvlmError

if TYPE_CHECKING:
    from medground_bench.lvlm.model import Lvlm

__all__ = ["GROUPS", "parameter_groups", "shuffled"]

GROUPS = ("head", "decoder", "projector", "vision")
"""Parts of a model from the answer down to the image."""

_PROJECTOR = re.compile(r"projector|merger|connector|resampler")
_VISION = re.compile(r"vision|visual")


def parameter_groups(lvlm: Lvlm) -> dict[str, list[torch.nn.Parameter]]:
    """The parameters of a model by group; the input embeddings go with the head, to which they are often tied.

    Raises
    ------
    LvlmError
        If a group has none: the model's parts are called otherwise than those of any family that is known.
    """
    layers = {id(p) for p in lvlm.layers.parameters()}
    out: dict[str, list[torch.nn.Parameter]] = {name: [] for name in GROUPS}
    for name, parameter in lvlm.model.named_parameters():
        if id(parameter) in layers:
            out["decoder"].append(parameter)
        elif _PROJECTOR.search(name):
            out["projector"].append(parameter)
        elif _VISION.search(name):
            out["vision"].append(parameter)
        else:
            out["head"].append(parameter)
    empty = [name for name, found in out.items() if not found]
    if empty:
        raise LvlmError(f"no parameters of the {', '.join(empty)} are found", where=lvlm.key)
    return out


@contextmanager
def shuffled(lvlm: Lvlm, groups: Sequence[str], seed: int = 0) -> Iterator[None]:
    """Inside it, the entries of every parameter of these groups are in random order; then all is as it was.

    Parameters
    ----------
    lvlm : Lvlm
        Changed in place: use it for nothing else meanwhile.
    groups : sequence of str
        Of :data:`GROUPS`.
    seed : int
        The same seed gives the same order.
    """
    found = parameter_groups(lvlm)
    unknown = sorted(set(groups) - set(found))
    if unknown:
        raise LvlmError(f"unknown part of a model: {', '.join(unknown)}", expected=", ".join(GROUPS))
    chosen = [p for name in GROUPS if name in groups for p in found[name]]
    before = [p.detach().clone() for p in chosen]
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for parameter in chosen:
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.reshape(-1)[order].reshape(parameter.shape))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(chosen, before, strict=True):
                parameter.copy_(value)
