"""Grad-CAM on a hidden state of the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.shared.cam import CamParameters, cam_map, image_gradients
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["cam_weights", "gradcam"]


@method(
    "gradcam",
    family="gradient",
    parameters=CamParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Selvaraju et al., ICCV 2017",
)
def gradcam(lvlm: Lvlm, episode: Episode, parameters: CamParameters) -> Attribution:
    """``ReLU(sum_d w_d H_d)`` over the image tokens, w the mean gradient of each channel.

    Unsigned, question-aware through the gradient. The paper's channels are those of a convolution; H is here the last
    hidden state whose image tokens reach the answer (``extras["layer"]``).
    """
    layer, states, gradients = image_gradients(lvlm, episode, parameters, "gradcam")
    return cam_map(episode, states @ cam_weights(gradients), layer)


def cam_weights(gradients: np.ndarray) -> np.ndarray:
    """Grad-CAM's channel weights: the mean over positions of (P, D) gradients, (D,)."""
    return gradients.mean(axis=0)
