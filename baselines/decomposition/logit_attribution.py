"""Direct logit attribution: what attention carries straight from an image token into the answer's logit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from baselines.shared.attention_rows import from_row
from baselines.shared.checks import require
from baselines.shared.chosen_tokens import answer_tokens
from baselines.shared.directions import CONTRASTS, logit_directions
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from medground_bench.lvlm import Episode, Lvlm
    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["LogitAttributionParameters", "direct_effects", "logit_attribution"]


@dataclass(frozen=True)
class LogitAttributionParameters:
    """Parameters of ``logit_attribution``.

    Attributes
    ----------
    contrast : {"softmax", "logit", "yes_no"}
        The token's logit less the expected one, as log-probabilities have it; the raw logit; or that of the verdict
        less that of its opposite.
    hops : {1, 2}
        2: where a response reasons before its verdict, attention from the verdict to the image goes by way of the
        reasoning (Saliency-R1).
    """

    contrast: str = "softmax"
    hops: int = 1

    def __post_init__(self) -> None:
        require(self.hops in (1, 2), "logit_attribution", "hops must be 1 or 2")
        require(self.contrast in CONTRASTS, "logit_attribution", f"contrast must be {' or '.join(CONTRASTS)}")


@method(
    "logit_attribution",
    family="decomposition",
    over="frame",
    parameters=LogitAttributionParameters,
    signed=True,
    needs=("white_box", "geometry"),
    cost="1 F",
    reference="Elhage et al., A mathematical framework for transformer circuits, 2021; Saliency-R1, CVPR 2026",
)
def logit_attribution(lvlm: Lvlm, episode: Episode, parameters: LogitAttributionParameters) -> Attribution:
    """``sum_t sum_l sum_h A_l^h[r, p] <d_r, W_O^h v_l^h[p]>`` with d_r the logit's direction, on the token grid.

    The final norm's scale, and that of Gemma's norm after attention, are constants. Signed, question-aware. Direct
    paths alone: what travels over a question token is not seen; ``extras["direct_share"]`` is the part of the (centred)
    logit that the image's direct paths make up. With two hops A is ``A[answer, reasoning] A[reasoning, p]``, heads
    averaged, for the answer's rows. Released code clips the sum at 0 and explains raw logits.
    """
    import torch

    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode)
    rows = list(episode.rows)
    directions = logit_directions(lvlm, episode, trace, parameters.contrast)
    answer = answer_tokens([token.text for token in episode.tokens])
    via = [episode.rows[t] + 1 for t in range(answer[0])] if parameters.hops == 2 else []
    if via:
        rows, directions = [rows[t] for t in answer], directions[answer]
    total = reduce(torch.add, (direct_effects(trace, layer, rows, directions, via).sum(0) for layer in trace.layers))
    whole = float((trace.final[rows].double() * directions.double()).sum())
    share = float(total[list(episode.image_positions)].sum()) / whole if whole else None
    return from_row(episode, total, signed=True, extras={"direct_share": share})


def direct_effects(
    trace: AttentionTrace, layer: int, rows: list[int], directions: torch.Tensor, via: Sequence[int] = ()
) -> torch.Tensor:
    """What attention of one layer writes from every position along given directions of the rows, (R, S) float64.

    ``via`` are positions that it goes by way of: A is then the product of what the rows and what those attend to.
    """
    import torch

    along = directions * trace.write_scale(layer, rows)  # (R, D)
    reading = torch.einsum("hpd,rd->hrp", trace.head_outputs(layer), along)
    weights = trace.weights(layer, rows)
    if via:
        weights = (weights.mean(0)[:, list(via)] @ trace.weights(layer, via).mean(0))[None]
    return (weights * reading).double().sum(0)
