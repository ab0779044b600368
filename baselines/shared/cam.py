"""What the CAM methods share: a hidden state with its gradient, and the map of weighted channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.attribution.method import Attribution, from_heatmap
from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["CamParameters", "cam_map", "image_gradients"]


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
    """

    layer: int | None = None


def cam_map(episode: Episode, states: np.ndarray, weights: np.ndarray, layer: int) -> Attribution:
    """``ReLU(sum_d w_d H_d)`` over the image tokens."""
    heat = episode.grid.as_map(np.maximum(states @ weights, 0))
    return from_heatmap(heat, episode, extras={"layer": layer})


def image_gradients(lvlm: Lvlm, episode: Episode, layer: int | None, name: str) -> tuple[int, np.ndarray, np.ndarray]:
    """Hidden states and gradients at the image positions, (P, D) float64 each, and the layer they are from.

    Raises
    ------
    MethodError
        If the gradient there is zero: the map would be too.
    """
    from medground_bench.lvlm.whitebox import hidden_gradients

    last = len(lvlm.layers)
    found = hidden_gradients(lvlm, episode, range(last) if layer is None else [layer])
    positions = list(episode.image_positions)
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
