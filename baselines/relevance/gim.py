"""GIM: gradients that count interactions, through a softmax of higher temperature."""

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

__all__ = ["GimParameters", "gim"]


@dataclass(frozen=True)
class GimParameters:
    """Parameters of ``gim``.

    Attributes
    ----------
    reference : str
        What e' is: one of :data:`~baselines.shared.references.EMBEDDING_REFERENCES`.
    temperature : float
        Of the softmax that the backward pass goes through; the forward pass keeps its own.
    freeze_norms : bool
        The scales of norms are constants.
    share : bool
        The factors of a product share its gradient. With temperature 1 and neither of the two it is ``atp``.
    """

    reference: str = "token_mean"
    temperature: float = 2.0
    freeze_norms: bool = True
    share: bool = True

    def __post_init__(self) -> None:
        known = ", ".join(EMBEDDING_REFERENCES)
        require(self.reference in EMBEDDING_REFERENCES, "gim", f"reference must be one of {known}")
        require(self.temperature > 0, "gim", "temperature must be positive")


@method(
    "gim",
    family="relevance",
    over="frame",
    parameters=GimParameters,
    signed=True,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Edin et al., GIM, arXiv 2505.17630",
)
def gim(lvlm: Lvlm, episode: Episode, parameters: GimParameters) -> np.ndarray:
    """``<e_p - e'_p, ds/de_p>`` with the gradient under GIM's rules, on the token grid.

    Norm scales are constants; the softmax's Jacobian is that of ``softmax(scores / 2)``, which sees through saturated
    attention; products share: queries and keys get a quarter, values, gates and ups a half. Signed, question-aware. The
    package ``gim-explain`` up to 0.1.4 leaves the gate's halves out and patches torch for the whole process.
    """
    from baselines.shared.attnlrp import attnlrp_rules
    from medground_bench.lvlm.tempered import tempered_attention

    rules = attnlrp_rules(
        lvlm.adapter.decoder(lvlm.model), activations=False, norms=parameters.freeze_norms, products=parameters.share
    )
    with rules, tempered_attention(lvlm, parameters.temperature):
        return patching_estimate(lvlm, episode, parameters.reference)
