"""Attribution patching: token patching to first order, in one backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.shared.checks import require
from baselines.shared.patching import patching_estimate, reading_estimate
from baselines.shared.references import EMBEDDING_REFERENCES
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
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
    drop : bool
        AtP*'s GradDrop: the mean size of the estimate over passes in each of which the gradient does not go through one
        layer, so that effects which cancel are seen; unsigned, at one forward and backward for each layer.
    qk_fix : bool
        AtP*'s other repair: attention is computed again with the token's own patched keys, so that effects which run
        through saturated attention are seen (see :func:`~baselines.shared.patching.reading_estimate`).
    """

    reference: str = "token_mean"
    steps: int = 1
    drop: bool = False
    qk_fix: bool = False

    def __post_init__(self) -> None:
        known = ", ".join(EMBEDDING_REFERENCES)
        require(self.reference in EMBEDDING_REFERENCES, "atp", f"reference must be one of {known}")
        require(self.steps >= 1, "atp", "steps must be at least 1")
        alone = not self.qk_fix or (self.steps == 1 and not self.drop)
        require(alone, "atp", "qk_fix goes with neither steps nor drop")


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
def atp(lvlm: Lvlm, episode: Episode, parameters: AtpParameters) -> Attribution:
    """``<e_p - e'_p, ds/de_p>`` at the image, for every image token p, on the token grid.

    Signed, question-aware: the estimate of ``token_patching`` that one backward pass gives. With ``reference="zero"``
    it is gradient times input of the embeddings. AtP* has two repairs, ``drop`` and ``qk_fix``, and uses both at once;
    its nodes are queries, keys and values by themselves, here a token's are patched together, in every layer.
    """
    if parameters.qk_fix:
        return from_heatmap(reading_estimate(lvlm, episode, parameters.reference), episode, signed=True)
    if not parameters.drop:
        return from_heatmap(
            patching_estimate(lvlm, episode, parameters.reference, parameters.steps), episode, signed=True
        )
    sizes = []
    for layer in lvlm.layers:
        handle = layer.register_forward_hook(_passed_by, with_kwargs=True)
        try:
            sizes.append(np.abs(patching_estimate(lvlm, episode, parameters.reference, parameters.steps)))
        finally:
            handle.remove()
    return from_heatmap(np.mean(sizes, axis=0), episode)


def _passed_by(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """What the layer adds to the residual stream, without its gradient."""
    entered = args[0] if args else kwargs["hidden_states"]
    left = output[0] if isinstance(output, tuple) else output
    kept = entered + (left - entered).detach()
    return (kept, *output[1:]) if isinstance(output, tuple) else kept
