"""Activation patching of image tokens: the causal effect of one token's embedding."""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.shared.checks import require
from baselines.shared.references import EMBEDDING_REFERENCES, reference_embeddings
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["TokenPatchingParameters", "token_patching"]


@dataclass(frozen=True)
class TokenPatchingParameters:
    """Parameters of ``token_patching``.

    Attributes
    ----------
    reference : str
        What replaces a token: one of :data:`~baselines.shared.references.EMBEDDING_REFERENCES`.
    neighbourhood : int
        Side of the square of tokens that is replaced together, odd: neighbours carry copies.
    layer : int
        Hidden state in which they are replaced: 0 is what enters the decoder, l what leaves layer l - 1.
    """

    reference: str = "token_mean"
    neighbourhood: int = 1
    layer: int = 0

    def __post_init__(self) -> None:
        known = ", ".join(EMBEDDING_REFERENCES)
        require(self.reference in EMBEDDING_REFERENCES, "token_patching", f"reference must be one of {known}")
        require(self.layer >= 0, "token_patching", "layer must be at least 0")
        require(self.neighbourhood % 2 == 1, "token_patching", "neighbourhood must be an odd number of tokens")


@method(
    "token_patching",
    family="intervention",
    over="frame",
    parameters=TokenPatchingParameters,
    signed=True,
    needs=("white_box", "geometry"),
    cost="66 D for 64 tokens; one D for each more",
    reference="Meng et al., ROME, NeurIPS 2022; Zhang & Nanda, ICLR 2024",
)
def token_patching(lvlm: Lvlm, episode: Episode, parameters: TokenPatchingParameters) -> Attribution:
    """``s(e) - s(e with e_p <- e'_p)`` for every image token p, on the token grid.

    Signed, question-aware. The vision tower is not run again, so other tokens still hold what the tower spread of the
    region: the difference from ``occlusion`` tells how much. ``extras["all"]`` is ``s(e) - s(e')``, the effect of all
    tokens at once. Released codes take the mean over a calibration set for e'; here it is the image's own mean. With
    ``layer`` e is that hidden state, as in patching of activations (CAAP patches a range of layers).
    """
    from medground_bench.lvlm.embeddings import leaf_embeddings
    from medground_bench.lvlm.whitebox import embedding_log_probs, hidden_states

    layer, entering = parameters.layer, leaf_embeddings(lvlm, episode)[0]
    require(layer < len(lvlm.layers), "token_patching", f"layer must be below {len(lvlm.layers)}")
    own = hidden_states(lvlm, episode, [layer])[layer] if layer else entering
    reference = reference_embeddings(lvlm, episode, own, parameters.reference, layer)
    grid, positions = episode.grid, np.asarray(episode.image_positions)
    near = parameters.neighbourhood // 2
    boxes = np.array([box or (np.nan,) * 4 for box in grid.boxes])
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    groups: list[np.ndarray] = [np.array([], int), positions]
    for token in range(len(grid)):
        block = (np.abs(centres - centres[token]) <= (near + 0.25) * sizes[token]).all(1)
        block[token] = True  # a token that sees nothing has no neighbours
        groups.append(positions[block])

    waiting: deque[np.ndarray] = deque()  # what is to be replaced in the sequences that come

    def variants(start: int, stop: int) -> torch.Tensor:
        waiting.clear()  # of a batch that did not fit
        waiting.extend(groups[start:stop])
        out = entering.expand(stop - start, -1, -1).clone()
        return out if layer else patched(out)

    def patched(states: torch.Tensor) -> torch.Tensor:
        for one in states:
            group = waiting.popleft()
            one[group] = reference[group]
        return states

    def enter(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (patched(args[0].clone()), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": patched(kwargs["hidden_states"].clone())}

    with ExitStack() as stack:
        if layer:
            stack.callback(lvlm.layers[layer].register_forward_pre_hook(enter, with_kwargs=True).remove)
        scores = embedding_log_probs(lvlm, episode, len(groups), variants).sum(1)
    heat = grid.as_map(scores[0] - scores[2:])
    return from_heatmap(heat, episode, signed=True, extras={"all": float(scores[0] - scores[1])})
