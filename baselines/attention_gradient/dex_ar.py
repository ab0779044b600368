"""DEX-AR: LeGrad for autoregressive models, with heads and tokens weighted by how visual they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.attention_gradient import attention_gradient, last_layers
from baselines.shared.checks import require
from baselines.shared.chosen_tokens import TOKENS, chosen_tokens
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["DexArParameters", "dex_ar"]


@dataclass(frozen=True)
class DexArParameters:
    """Parameters of ``dex_ar``.

    Attributes
    ----------
    layers : int
        How many of the last decoder layers are read.
    tokens : {"all", "answer", "keywords"}
        Tokens of the response that are explained.
    """

    layers: int = 10
    tokens: str = "all"

    def __post_init__(self) -> None:
        require(self.layers >= 1, "dex_ar", "layers must be at least 1")
        require(self.tokens in TOKENS, "dex_ar", f"tokens must be one of {', '.join(TOKENS)}")


@method(
    "dex_ar",
    family="attention_gradient",
    over="frame",
    parameters=DexArParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F; and one decoder layer's backward at T rows, in each of 10 layers",
    reference="DEX-AR, arXiv 2603.06302",
)
def dex_ar(lvlm: Lvlm, episode: Episode, parameters: DexArParameters) -> Attribution:
    """``sum_t delta_t sum_(l, h) w_tlh G_tlh`` on the token grid, with G as in ``legrad``.

    ``w = ReLU(max_p G - max_j ReLU(ds/dA_j))`` over image tokens p and the text j that follows the image: heads that
    look at the image more than at the text. ``delta_t = ReLU(max_(l,h,p) G - max_(l,h,j) ...)`` likewise: tokens that
    do; they are the token scores. Where no token does, the whole image is reported with ``fallback``: the answer is
    driven by language. Unsigned, question-aware. The paper's code runs a forward per token, leaves out the text's first
    token, norms the last layer twice and scales G over all tokens, heads and layers at once.
    """
    found = attention_gradient(
        lvlm,
        episode,
        layers=last_layers(lvlm, parameters.layers),
        target="lens",
        factor="one",
        head_weight="focus",
        token_weight="focus",
        tokens=chosen_tokens(lvlm, episode, parameters.tokens),
    )
    if found.token_weights.any():
        return from_heatmap(found.heat, episode, token_scores=found.token_weights)
    width, height = episode.letterbox.width, episode.letterbox.height
    return Attribution(
        boxes=[(0.0, 0.0, float(width), float(height))],
        heatmap=found.heat,
        token_scores=found.token_weights,
        fallback=True,
        extras={"reason": "no token is visual"},
    )
