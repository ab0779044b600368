"""Grad-CAM in the image tower of a two-tower model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.two_tower.tower import hidden_with_gradient, need_two_towers
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["TowerCamParameters", "tower_gradcam"]


@dataclass(frozen=True)
class TowerCamParameters:
    """Parameters of ``tower_gradcam``.

    Attributes
    ----------
    layer : int
        Hidden state of the image tower, negative from the end. The last one of CLIP reaches the score by its class
        token alone; -2 is the last whose patches do in every class.
    """

    layer: int = -2


@method(
    "tower_gradcam",
    family="gradient",
    over="frame",
    parameters=TowerCamParameters,
    needs=("white_box", "gradients", "two_towers"),
    cost="1 F + 1 B",
    reference="Selvaraju et al., ICCV 2017, on tokens",
)
def tower_gradcam(lvlm: Lvlm, episode: Episode, parameters: TowerCamParameters) -> np.ndarray:
    """``ReLU(sum_d w_d H_d)`` over the patches, w the mean gradient of each channel of ``log p(finding)``.

    Unsigned, question-aware through the gradient. The paper's channels are those of a convolution.
    """
    model = need_two_towers(lvlm, "tower_gradcam")
    states, gradients = hidden_with_gradient(model, episode, parameters.layer)
    weights = gradients.mean(dim=0)
    return episode.grid.as_map((states @ weights).clamp(min=0).double().cpu().numpy())
