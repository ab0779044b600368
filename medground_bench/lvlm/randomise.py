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

__all__ = ["GROUPS", "QUARTERS", "parameter_groups", "shuffled"]

GROUPS = ("head", "decoder", "projector", "vision")
"""Parts of a model from the answer down to the image."""

QUARTERS = (
    *("head", "decoder_4", "decoder_3", "decoder_2", "decoder_1"),
    *("projector", "vision_4", "vision_3", "vision_2", "vision_1"),
)
"""The same with decoder and vision tower in quarters of their layers, the fourth nearest to the answer."""

_PROJECTOR = re.compile(r"projector|merger|connector|resampler")
_VISION = re.compile(r"vision|visual")
_LAYER = re.compile(r"\.(\d+)\.")


def parameter_groups(lvlm: Lvlm, *, quarters: bool = False) -> dict[str, list[torch.nn.Parameter]]:
    """The parameters of a model by group; the input embeddings go with the head, to which they are often tied.

    Parameters
    ----------
    lvlm : Lvlm
        The model.
    quarters : bool
        Whether by :data:`QUARTERS`; what stands in the vision tower before its first layer is of the first quarter,
        what stands after its last of the last. A tower of fewer than four layers has quarters without parameters.

    Raises
    ------
    LvlmError
        If a group has none: the model's parts are called otherwise than those of any family that is known.
    """
    place = {id(p): layer for layer, module in enumerate(lvlm.layers) for p in module.parameters()}
    found: dict[str, list[tuple[int | None, torch.nn.Parameter]]] = {name: [] for name in GROUPS}
    for name, parameter in lvlm.model.named_parameters():
        number = _LAYER.search(name)
        if id(parameter) in place:
            found["decoder"].append((place[id(parameter)], parameter))
        elif _PROJECTOR.search(name):
            found["projector"].append((None, parameter))
        elif _VISION.search(name):
            found["vision"].append((int(number[1]) if number else None, parameter))
        else:
            found["head"].append((None, parameter))
    empty = [name for name, parameters in found.items() if not parameters]
    if empty:
        raise LvlmError(f"no parameters of the {', '.join(empty)} are found", where=lvlm.key)
    if not quarters:
        return {name: [p for _, p in parameters] for name, parameters in found.items()}
    out: dict[str, list[torch.nn.Parameter]] = {name: [] for name in QUARTERS}
    for name, parameters in found.items():
        if name in QUARTERS:
            out[name] = [p for _, p in parameters]
            continue
        count = 1 + max((layer for layer, _ in parameters if layer is not None), default=0)
        last = -1
        for layer, parameter in parameters:
            last = last if layer is None else layer
            after = layer is None and last == count - 1
            out[f"{name}_{4 if after else 1 + 4 * max(last, 0) // count}"].append(parameter)
    return out


@contextmanager
def shuffled(lvlm: Lvlm, groups: Sequence[str], seed: int = 0) -> Iterator[None]:
    """Inside it, the entries of every parameter of these groups are in random order; then all is as it was.

    Parameters
    ----------
    lvlm : Lvlm
        Changed in place: use it for nothing else meanwhile.
    groups : sequence of str
        Of :data:`GROUPS`, or of :data:`QUARTERS`.
    seed : int
        The same seed gives the same order.
    """
    found = {**parameter_groups(lvlm, quarters=True), **parameter_groups(lvlm)}
    unknown = sorted(set(groups) - set(found))
    if unknown:
        raise LvlmError(f"unknown part of a model: {', '.join(unknown)}", expected=", ".join([*GROUPS, *QUARTERS]))
    chosen = list({id(p): p for name in (*GROUPS, *QUARTERS) if name in groups for p in found[name]}.values())
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
