"""Attribution patching: token patching to first order, in one backward pass."""

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

__all__ = ["AtpParameters", "atp"]


@dataclass(frozen=True)
class AtpParameters:
    """Parameters of ``atp``.

    Attributes
    ----------
    reference : str
        What e' is: one of :data:`~baselines.shared.references.EMBEDDING_REFERENCES`.
    steps : int
        1: the gradient at the image, as published; more: integrated gradients over the embeddings.
    """

    reference: str = "token_mean"
    steps: int = 1

    def __post_init__(self) -> None:
        known = ", ".join(EMBEDDING_REFERENCES)
        require(self.reference in EMBEDDING_REFERENCES, "atp", f"reference must be one of {known}")
        require(self.steps >= 1, "atp", "steps must be at least 1")


@method(
    "atp",
    family="gradient",
    over="frame",
    parameters=AtpParameters,
    signed=True,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Nanda, Attribution patching, 2023; Kramar et al., AtP*, arXiv 2403.00745",
)
def atp(lvlm: Lvlm, episode: Episode, parameters: AtpParameters) -> np.ndarray:
    """``<e_p - e'_p, ds/de_p>`` at the image, for every image token p, on the token grid.

    Signed, question-aware: the estimate of ``token_patching`` that one backward pass gives. With ``reference="zero"``
    it is gradient times input of the embeddings. The repairs of AtP* (recomputed softmax, dropped gradients) are not
    in it.
    """
    return patching_estimate(lvlm, episode, parameters.reference, parameters.steps)
