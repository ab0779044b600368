"""Grad-ECLIP: gradient-weighted values, loosened attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.attention_gradient import attention_gradient, last_layers
from baselines.shared.checks import require
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["GradEclipParameters", "grad_eclip"]


@dataclass(frozen=True)
class GradEclipParameters:
    """Parameters of ``grad_eclip``.

    Attributes
    ----------
    layers : int
        How many of the last decoder layers are averaged; the paper reads the last.
    """

    layers: int = 1

    def __post_init__(self) -> None:
        require(self.layers >= 1, "grad_eclip", "layers must be at least 1")


@method(
    "grad_eclip",
    family="attention_gradient",
    over="frame",
    parameters=GradEclipParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Zhao et al., Grad-ECLIP, ICML 2024",
)
def grad_eclip(lvlm: Lvlm, episode: Episode, parameters: GradEclipParameters) -> np.ndarray:
    """``ReLU(g_r . v_p) * lambda_p``, mean over heads, predicting rows and layers, on the token grid.

    g is the score's gradient at the heads' output and v the values, so ``g_r . v_p = ds/dA[r, p]``; lambda is the
    cosine of query and key, min-max scaled over the image tokens: the "loosened" attention. Unsigned, question-aware.
    Here per head and with the queries and keys as they meet (normed, rotated); the paper's code passes them through the
    output projection first and treats attention as having one head.
    """
    layers = last_layers(lvlm, parameters.layers)
    return attention_gradient(lvlm, episode, layers=layers, factor="cosine", propagate="mean").heat
