"""IIA: gradient times attention, averaged over interpolations of the image and of the attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.shared.attention_rows import from_row
from baselines.shared.checks import require
from baselines.shared.references import EMBEDDING_REFERENCES, reference_embeddings
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["IiaParameters", "iia"]


@dataclass(frozen=True)
class IiaParameters:
    """Parameters of ``iia``.

    Attributes
    ----------
    outer, inner : int
        Points between the reference and the image, and between no attention and all of it; 1 is the end alone.
    reference : str
        Where the image begins: one of :data:`~baselines.shared.references.EMBEDDING_REFERENCES`.
    """

    outer: int = 6
    inner: int = 6
    reference: str = "zero"

    def __post_init__(self) -> None:
        require(self.outer >= 1 and self.inner >= 1, "iia", "outer and inner must be at least 1")
        known = ", ".join(EMBEDDING_REFERENCES)
        require(self.reference in EMBEDDING_REFERENCES, "iia", f"reference must be one of {known}")


@method(
    "iia",
    family="attention_gradient",
    over="frame",
    parameters=IiaParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="36 (F + B)",
    reference="Barkan et al., Visual explanations via iterated integrated attributions, ICCV 2023",
)
def iia(lvlm: Lvlm, episode: Episode, parameters: IiaParameters) -> Attribution:
    """``mean_ab mean_h ReLU(b A * ds/dA)`` in the last layer, at the image embeddings ``e' + a (e - e')``, on the grid.

    a and b run over evenly spaced points up to 1; b scales the layer's attention. Unsigned, question-aware. One point
    each is ``ReLU(A * dA)`` of the last layer. The paper interpolates pixels, and the released code's branch for CNNs
    subtracts the activation from itself.
    """
    from medground_bench.lvlm.embeddings import leaf_embeddings
    from medground_bench.lvlm.whitebox import trace_attention

    own = leaf_embeddings(lvlm, episode)[0]
    reference = reference_embeddings(lvlm, episode, own, parameters.reference)
    output: Any = lvlm.layers[-1].self_attn.o_proj  # type: ignore[union-attr]
    rows = list(episode.rows)
    total: torch.Tensor | float = 0.0
    for share in _places(parameters.outer):
        mixed = (reference + share * (own - reference))[None]
        for scale in _places(parameters.inner):
            # Scaling what the layer writes is scaling its attention: the product A * dA has the factor in it.
            hook = output.register_forward_hook(lambda m, a, out, scale=scale: out * scale)
            try:
                trace = trace_attention(lvlm, episode, [-1], gradients=True, embeddings=mixed)
            finally:
                hook.remove()
            found = (trace.weights(-1, rows) * trace.gradient(-1, rows)).clamp(min=0)
            total = total + found.double().mean(dim=(0, 1))
    assert not isinstance(total, float)
    return from_row(episode, total / (parameters.outer * parameters.inner))


def _places(count: int) -> list[float]:
    return [1.0] if count == 1 else np.linspace(0, 1, count).tolist()
