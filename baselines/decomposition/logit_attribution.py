"""Direct logit attribution: what attention carries straight from an image token into the answer's logit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.attention_rows import from_row
from baselines.shared.checks import require
from baselines.shared.directions import CONTRASTS, logit_directions
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm
    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["LogitAttributionParameters", "direct_effects", "logit_attribution"]


@dataclass(frozen=True)
class LogitAttributionParameters:
    """Parameters of ``logit_attribution``.

    Attributes
    ----------
    contrast : {"softmax", "logit"}
        The token's logit less the expected one, as log-probabilities have it, or the raw logit.
    """

    contrast: str = "softmax"

    def __post_init__(self) -> None:
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
    logit that the image's direct paths make up. Released code clips the sum at 0 and explains raw logits.
    """
    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode)
    rows = list(episode.rows)
    directions = logit_directions(lvlm, episode, trace, parameters.contrast)
    total: torch.Tensor | None = None
    for layer in trace.layers:
        effects = direct_effects(trace, layer, rows, directions).sum(0)
        total = effects if total is None else total + effects
    assert total is not None
    whole = float((trace.final[rows].double() * directions.double()).sum())
    share = float(total[list(episode.image_positions)].sum()) / whole if whole else None
    return from_row(episode, total, signed=True, extras={"direct_share": share})


def direct_effects(trace: AttentionTrace, layer: int, rows: list[int], directions: torch.Tensor) -> torch.Tensor:
    """What attention of one layer writes from every position along given directions of the rows, (R, S) float64."""
    import torch

    along = directions * trace.write_scale(layer, rows)  # (R, D)
    reading = torch.einsum("hpd,rd->hrp", trace.head_outputs(layer), along)
    return (trace.weights(layer, rows) * reading).double().sum(0)
