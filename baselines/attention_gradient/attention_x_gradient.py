"""Attention times its gradient: Grad-CAM on attention weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.attention_gradient import attention_gradient, last_layers
from baselines.shared.checks import require
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["AttentionXGradientParameters", "attention_x_gradient"]


@dataclass(frozen=True)
class AttentionXGradientParameters:
    """Parameters of ``attention_x_gradient``.

    Attributes
    ----------
    layers : {"all", "late"}
        All decoder layers, or their last third.
    """

    layers: str = "all"

    def __post_init__(self) -> None:
        require(self.layers in ("all", "late"), "attention_x_gradient", "layers must be all or late")


@method(
    "attention_x_gradient",
    family="attention_gradient",
    over="frame",
    parameters=AttentionXGradientParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Barkan et al., Grad-SAM, CIKM 2021; Selvaraju et al., ICCV 2017",
)
def attention_x_gradient(lvlm: Lvlm, episode: Episode, parameters: AttentionXGradientParameters) -> np.ndarray:
    """``ReLU(ds/dA) * A``, mean over layers, heads and predicting rows, on the token grid.

    Unsigned, question-aware. One layer's own contribution, where ``grad_attention`` multiplies through all layers. The
    package ``vl-saliency`` calls it Grad-CAM.
    """
    layers = None if parameters.layers == "all" else last_layers(lvlm, max(1, round(len(lvlm.layers) / 3)))
    return attention_gradient(lvlm, episode, layers=layers, propagate="mean").heat
