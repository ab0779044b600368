"""Gradient-weighted attention, accumulated over the layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.shared.attention_gradient import attention_gradient
from medground_bench.attribution.method import NoParameters, method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["grad_attention"]


@method(
    "grad_attention",
    family="gradient",
    over="frame",
    parameters=NoParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Chefer, Gur & Wolf, ICCV 2021",
)
def grad_attention(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> np.ndarray:
    """Rows of ``(I + R_L) ... (I + R_1)`` with ``R_l = mean_h ReLU(ds/dA_l) * A_l``, their mean, on the token grid.

    The rows are those that predict the response. Unsigned, question-aware (equations 5 and 6 for self-attention). The
    released code multiplies whole matrices, where one row vector is carried from the last layer to the first.
    """
    return attention_gradient(lvlm, episode, factor="attention", propagate="rollout").heat
