"""Grad-CAM++ on a hidden state of the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.cam import CamParameters, cam_map, image_gradients
from baselines.shared.checks import require
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["CamPlusPlusParameters", "cam_plus_plus_weights", "gradcam_plus_plus"]


@dataclass(frozen=True)
class CamPlusPlusParameters(CamParameters):
    """Parameters of ``gradcam++``.

    Attributes
    ----------
    layer : int or None
    normed : bool
        As in :class:`CamParameters`.
    eps : float
        Added to the denominator of alpha, in units of the squared gradient.
    """

    eps: float = 1e-6

    def __post_init__(self) -> None:
        require(self.eps > 0, "gradcam++", "eps must be positive")


@method(
    "gradcam++",
    family="gradient",
    parameters=CamPlusPlusParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Chattopadhay et al., WACV 2018",
)
def gradcam_plus_plus(lvlm: Lvlm, episode: Episode, parameters: CamPlusPlusParameters) -> Attribution:
    """Grad-CAM with channel weights ``sum_p alpha_p ReLU(g_p)``, ``alpha = g^2 / (2 g^2 + g^3 sum_p H)``.

    Unsigned, question-aware through the gradient. Released codes add an absolute epsilon to the denominator, which is
    larger than the squared gradients of an LVLM; here it is relative to them.
    """
    layer, states, gradients = image_gradients(lvlm, episode, parameters, "gradcam++")
    return cam_map(episode, states @ cam_plus_plus_weights(states, gradients, parameters.eps), layer)


def cam_plus_plus_weights(states: np.ndarray, gradients: np.ndarray, eps: float) -> np.ndarray:
    """Grad-CAM++'s channel weights, (D,), from (P, D) hidden states and gradients.

    ``alpha = g^2 / (2 g^2 + g^3 sum_P H)``, 0 where g = 0; ``w = sum_P alpha ReLU(g)`` (equations 13 and 19). The
    quotient is reduced to ``1 / (2 + g sum_P H)``, so that eps weighs the same whatever the size of the gradient:
    the weights of (k H, g / k) are those of (H, g) over k.
    """
    denominator = 2 + states.sum(axis=0, keepdims=True) * gradients + eps
    used = (gradients != 0) & (denominator != 0)
    alpha = np.divide(1.0, denominator, out=np.zeros_like(gradients), where=used)
    return (alpha * np.maximum(gradients, 0)).sum(axis=0)
