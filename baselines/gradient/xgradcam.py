"""XGrad-CAM on a hidden state of the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.cam import CamParameters, cam_map, image_gradients
from baselines.shared.checks import require
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["XgradcamParameters", "xgradcam", "xgradcam_weights"]


@dataclass(frozen=True)
class XgradcamParameters(CamParameters):
    """Parameters of ``xgradcam``.

    Attributes
    ----------
    layer : int or None
    normed : bool
        As in :class:`CamParameters`.
    floor : float
        Least size of a channel's sum, as a share of the sum of its sizes. Channels that come out of a ReLU, as the
        paper's do, have a share of 1; those of a decoder cancel, and without a floor one that does has all the weight.
    """

    normed: bool = True
    floor: float = 0.01

    def __post_init__(self) -> None:
        require(0 < self.floor <= 1, "xgradcam", "floor must be a share above 0")


@method(
    "xgradcam",
    family="gradient",
    parameters=XgradcamParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Fu et al., Axiom-based Grad-CAM, BMVC 2020, equation 8",
)
def xgradcam(lvlm: Lvlm, episode: Episode, parameters: XgradcamParameters) -> Attribution:
    """Grad-CAM with ``w_d = sum_p G_pd H_pd / sum_p H_pd``: a channel's gradient, averaged where the channel is active.

    Unsigned, question-aware through the gradient. What a channel has over all image tokens is then its gradient times
    input, as the paper's axiom of conservation asks, apart from channels below the ``floor``. H is the last hidden
    state whose image tokens reach the answer (``extras["layer"]``), as attention reads it: before the norm there is
    nothing to conserve, those products add up to zero at each token. Released codes add 1e-7 to the denominator.
    """
    layer, states, gradients = image_gradients(lvlm, episode, parameters, "xgradcam")
    return cam_map(episode, states @ xgradcam_weights(states, gradients, parameters.floor), layer)


def xgradcam_weights(states: np.ndarray, gradients: np.ndarray, floor: float) -> np.ndarray:
    """XGrad-CAM's channel weights, (D,), from (P, D) hidden states and gradients; 0 where a channel is 0 everywhere."""
    total, least = states.sum(axis=0), floor * np.abs(states).sum(axis=0)
    total = np.where(np.abs(total) < least, np.copysign(least, total), total)
    return np.divide((gradients * states).sum(axis=0), total, out=np.zeros_like(total), where=total != 0)
