"""LayerCAM on a hidden state of the decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.cam import CamParameters, cam_map, image_gradients
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["layercam", "layercam_values"]


@method(
    "layercam",
    family="gradient",
    parameters=CamParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Jiang et al., LayerCAM, IEEE TIP 2021, equations 5 and 6",
)
def layercam(lvlm: Lvlm, episode: Episode, parameters: CamParameters) -> Attribution:
    """``ReLU(sum_d ReLU(G_pd) H_pd)``: a hidden state weighted at each image token by its own positive gradient.

    Unsigned, question-aware through the gradient. The paper's channels come out of a ReLU; those of a decoder have
    either sign, so that a falling channel of positive gradient counts against its token. The paper adds up several
    layers; here it is one, the last whose image tokens reach the answer (``extras["layer"]``).
    """
    layer, states, gradients = image_gradients(lvlm, episode, parameters, "layercam")
    return cam_map(episode, layercam_values(states, gradients), layer)


def layercam_values(states: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Sum over channels of state times positive gradient, (P,), from (P, D) each."""
    values: np.ndarray = (states * np.maximum(gradients, 0)).sum(axis=1)
    return values
