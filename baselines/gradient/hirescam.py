"""HiResCAM on a hidden state of the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.cam import CamParameters, cam_map, image_gradients
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["HirescamParameters", "hirescam", "hirescam_values"]


@dataclass(frozen=True)
class HirescamParameters(CamParameters):
    """Parameters of ``hirescam``: those of :class:`CamParameters`, with ``normed``."""

    normed: bool = True


@method(
    "hirescam",
    family="gradient",
    parameters=HirescamParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Draelos & Carin, arXiv 2011.08891, equation 3",
)
def hirescam(lvlm: Lvlm, episode: Episode, parameters: HirescamParameters) -> Attribution:
    """``ReLU(sum_d G_pd H_pd)``: gradient times hidden state at each image token, where Grad-CAM averages the gradient.

    Unsigned, question-aware through the gradient. Without the ReLU, which the paper leaves open, the values of all
    positions add up to the score where everything above the state is linear. H is the last hidden state whose image
    tokens reach the answer (``extras["layer"]``), as attention reads it: before the norm the sum over channels is zero,
    whatever the evidence, and what is left of it rounding.
    """
    layer, states, gradients = image_gradients(lvlm, episode, parameters, "hirescam")
    return cam_map(episode, hirescam_values(states, gradients), layer)


def hirescam_values(states: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Sum over channels of state times gradient, (P,), from (P, D) each."""
    values: np.ndarray = (states * gradients).sum(axis=1)
    return values
