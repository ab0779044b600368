"""Relevance patching: attribution patching with LRP's coefficients in place of the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.checks import require
from baselines.shared.patching import patching_estimate
from baselines.shared.references import EMBEDDING_REFERENCES
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["RelpParameters", "relp"]


@dataclass(frozen=True)
class RelpParameters:
    """Parameters of ``relp``.

    Attributes
    ----------
    reference : str
        What e' is: one of :data:`~baselines.shared.references.EMBEDDING_REFERENCES`.
    attention : {"frozen", "attnlrp"}
        Attention weights are constants, as in the paper, or differentiated by AttnLRP's rules.
    """

    reference: str = "token_mean"
    attention: str = "frozen"

    def __post_init__(self) -> None:
        known = ", ".join(EMBEDDING_REFERENCES)
        require(self.reference in EMBEDDING_REFERENCES, "relp", f"reference must be one of {known}")
        require(self.attention in ("frozen", "attnlrp"), "relp", "attention must be frozen or attnlrp")


@method(
    "relp",
    family="relevance",
    over="frame",
    parameters=RelpParameters,
    signed=True,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="RelP, arXiv 2508.21258",
)
def relp(lvlm: Lvlm, episode: Episode, parameters: RelpParameters) -> np.ndarray:
    """``<e_p - e'_p, ds/de_p>`` with the gradient under LRP's rules, on the token grid.

    Norm scales and attention weights are constants, an activation f has the slope f(x) / x, each factor of a gate gets
    half. Signed, question-aware. With ``reference="zero", attention="attnlrp"`` it is ``lrp``.
    """
    from baselines.shared.attnlrp import attnlrp_rules

    with attnlrp_rules(lvlm.adapter.decoder(lvlm.model), attention_scores=parameters.attention == "attnlrp"):
        return patching_estimate(lvlm, episode, parameters.reference)
