"""AG-CAM: attention gradients times the sigmoid of the attention scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.attention_gradient import Factor, attention_gradient
from baselines.shared.checks import require
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["AgcamParameters", "agcam"]


@dataclass(frozen=True)
class AgcamParameters:
    """Parameters of ``agcam``.

    Attributes
    ----------
    sigmoid_of : {"scores", "weights"}
        What the sigmoid is taken of: the scores before the softmax, as in the paper, or the attention weights.
    """

    sigmoid_of: str = "scores"

    def __post_init__(self) -> None:
        require(self.sigmoid_of in ("scores", "weights"), "agcam", "sigmoid_of must be scores or weights")


@method(
    "agcam",
    family="attention_gradient",
    over="frame",
    parameters=AgcamParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Leem & Seo, AG-CAM, AAAI 2024",
)
def agcam(lvlm: Lvlm, episode: Episode, parameters: AgcamParameters) -> np.ndarray:
    """``sum_l sum_h ReLU(ds/dA) * sigmoid(q k' / sqrt(d))``, mean over the predicting rows, on the token grid.

    Unsigned, question-aware. The class logit and the class token of the paper's ViT are here the sequence score and
    the rows that predict the response. The package ``vl-saliency`` takes the sigmoid of the softmax's result, between
    0.5 and 0.73, which does little: ``sigmoid_of="weights"``.
    """
    sigmoid: Factor = "sigmoid_scores" if parameters.sigmoid_of == "scores" else "sigmoid_weights"
    return attention_gradient(lvlm, episode, factor=sigmoid, head_weight="sum").heat
