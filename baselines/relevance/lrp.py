"""Layer-wise relevance propagation through the language model, by AttnLRP's rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.attention_rows import from_row
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["LrpParameters", "lrp"]


@dataclass(frozen=True)
class LrpParameters:
    """Parameters of ``lrp``.

    Attributes
    ----------
    attention_scores : bool
        Whether relevance also flows through queries and keys (AttnLRP). Without it attention weights count as
        constants, as in the conservative propagation of Ali et al. 2022.
    """

    attention_scores: bool = True


@method(
    "lrp",
    family="relevance",
    over="frame",
    parameters=LrpParameters,
    signed=True,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Achtibat et al., AttnLRP, ICML 2024",
)
def lrp(lvlm: Lvlm, episode: Episode, parameters: LrpParameters) -> Attribution:
    """Relevance of the merged image embeddings, ``sum_d x_d * ds/dx_d`` under AttnLRP's backward rules.

    Signed: positive relevance speaks for the response, negative against it. Question-aware. The package ``lxt`` patches
    the model's classes; here hooks carry the rules, and leave.
    """
    from baselines.shared.attnlrp import attnlrp_rules
    from medground_bench.lvlm.whitebox import embedding_relevance

    with attnlrp_rules(lvlm.adapter.decoder(lvlm.model), attention_scores=parameters.attention_scores):
        return from_row(episode, embedding_relevance(lvlm, episode), signed=True)
