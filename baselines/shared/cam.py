"""What the CAM methods share: a hidden state, its gradient, and the map of what its channels say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.attribution.method import Attribution, from_heatmap
from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["LAST", "CamParameters", "cam_map", "image_gradients", "image_states"]

LAST = -2
"""The hidden state that enters the last layer, which is where a CAM without gradients looks."""


@dataclass(frozen=True)
class CamParameters:
    """Parameters of the CAM methods.

    Attributes
    ----------
    layer : int or None
        Hidden state: 0 is what enters the first decoder layer, l what leaves layer l - 1, negative counts from the
        end. None follows the rule: the last hidden state whose image positions still reach the answer. What leaves
        the last layer never does (only the predicting rows are read there); what enters it does unless a sliding
        window hides the image from every predicting row, in which case the rule goes further down.
    normed : bool
        Take the hidden state as the layer's attention reads it, after the norm. The score does not depend on how long
        the state before the norm is: there the products of its channels and their gradients add up to zero.
    """

    layer: int | None = None
    normed: bool = False


def cam_map(episode: Episode, values: np.ndarray, layer: int, **extras: Any) -> Attribution:
    """The positive part of a value for each image token, (P,), on the token grid."""
    heat = episode.grid.as_map(np.maximum(values, 0))
    return from_heatmap(heat, episode, extras={"layer": layer, **extras})


def image_states(lvlm: Lvlm, episode: Episode, layer: int) -> tuple[int, np.ndarray]:
    """Which hidden state it is, counted from 0, and what it holds at the image positions, (P, D) float64.

    Tokens that see nothing (newlines between tiles) stand out of everything: they have the mean of those that do.
    """
    from medground_bench.lvlm.whitebox import hidden_states

    ((number, states),) = hidden_states(lvlm, episode, [layer]).items()
    held = states[list(episode.image_positions)].double().cpu().numpy()
    blind = np.array([box is None for box in episode.grid.boxes])
    held[blind] = held[~blind].mean(axis=0)
    return number, held


def image_gradients(
    lvlm: Lvlm, episode: Episode, parameters: CamParameters, name: str
) -> tuple[int, np.ndarray, np.ndarray]:
    """Hidden states and gradients at the image positions, (P, D) float64 each, and the layer they are from.

    Raises
    ------
    MethodError
        If the gradient there is zero: the map would be too.
    """
    from medground_bench.lvlm.embeddings import layer_numbers
    from medground_bench.lvlm.whitebox import hidden_gradients

    layer, last = parameters.layer, len(lvlm.layers)
    wanted = range(last) if layer is None else layer_numbers([layer], last + 1, "hidden states")
    positions = list(episode.image_positions)
    if list(wanted) != [last]:
        found = hidden_gradients(lvlm, episode, wanted, read=parameters.normed)
        for number in sorted(found, reverse=True):
            states, gradients = (t[positions].double().cpu().numpy() for t in found[number])
            if gradients.any():
                return number, states, gradients
    where = f"hidden state {layer}" if layer is not None else f"each of the hidden states 0 to {last - 1}"
    raise MethodError(
        f"method {name!r}: the gradient of the response at the image tokens of {where} is exactly zero",
        expected=f"a hidden state below {last} whose image positions reach the answer",
        remedy="leave the parameter 'layer' at its default, or choose a lower one",
    )
