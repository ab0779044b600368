"""LeGrad: every layer's own logit, differentiated with respect to that layer's attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.shared.attention_gradient import attention_gradient
from medground_bench.attribution.method import NoParameters, method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["legrad"]


@method(
    "legrad",
    family="attention_gradient",
    over="frame",
    needs=("white_box", "geometry", "gradients"),
    cost="1 F; and one decoder layer's backward at T rows, in every layer",
    reference="Bousselham et al., LeGrad, arXiv 2404.03214",
)
def legrad(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> np.ndarray:
    """``sum_l mean_h ReLU(ds_l / dA_l)``, mean over the predicting rows, on the token grid.

    ``s_l = <W_U[y], norm(h_l[r])>`` is the raw logit of the token that a row predicts, read from what leaves layer l.
    Unsigned, question-aware. The paper's package is for CLIP: it takes the cosine of the mean of all tokens, and scales
    the map to 0-1.
    """
    return attention_gradient(lvlm, episode, target="lens", factor="one").heat
