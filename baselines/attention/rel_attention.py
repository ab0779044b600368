"""Relative attention: where the question looks and a generic prompt does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.episodes import prepare_like
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["RelAttentionParameters", "default_layer", "rel_attention"]

_DEPTHS = {"qwen2_5_vl": 0.78}  # layer 22 of 28 in the paper's Qwen2.5-VL 7B; 14 of 32 in LLaVA 7B
_DEPTH = 0.44


@dataclass(frozen=True)
class RelAttentionParameters:
    """Parameters of ``rel_attention``.

    Attributes
    ----------
    layer : int or None
        Decoder layer; None: at 0.78 of a Qwen2.5-VL's depth and 0.44 of any other's.
    prompt : str
        The generic prompt.
    rows : {"prompt", "response"}
        The last position of the prompt, as in the paper, or all positions that predict the response.
    eps : float
        Least attention to divide by.
    relative : bool
        ``eps`` is a share of the generic prompt's mean attention to an image token (1e-3 removes spikes).
    """

    layer: int | None = None
    prompt: str = "Write a general description of the image."
    rows: str = "prompt"
    eps: float = 1e-8
    relative: bool = False

    def __post_init__(self) -> None:
        require(self.rows in ("prompt", "response"), "rel_attention", "rows must be prompt or response")
        require(self.eps > 0, "rel_attention", "eps must be positive")


@method(
    "rel_attention",
    family="attention",
    over="frame",
    parameters=RelAttentionParameters,
    needs=("white_box", "geometry"),
    cost="2 F",
    reference="Zhang et al., ICLR 2025 (relative attention of ViCrop)",
)
def rel_attention(lvlm: Lvlm, episode: Episode, parameters: RelAttentionParameters) -> np.ndarray:
    """``a_q[p] / max(a_g[p], eps)``, a the head-mean attention of one layer to image token p, on the token grid.

    q is the record's question and g a generic prompt: attention sinks stand in both and cancel. Unsigned,
    question-aware. The paper's code divides without eps, in bfloat16; here in float32.
    """
    generic = prepare_like(lvlm, episode, question=parameters.prompt)
    question, plain = (_attention(lvlm, one, parameters) for one in (episode, generic))
    least = parameters.eps * (plain.mean() if parameters.relative else 1.0)
    return episode.grid.as_map(question / np.maximum(plain, least))


def default_layer(lvlm: Lvlm) -> int:
    """The paper's layer, as a share of the model's depth."""
    total = len(lvlm.layers)
    return min(total - 1, round(_DEPTHS.get(lvlm.family, _DEPTH) * total))


def _attention(lvlm: Lvlm, episode: Episode, parameters: RelAttentionParameters) -> np.ndarray:
    """(P,) float32."""
    from medground_bench.lvlm.whitebox import trace_attention

    layer = default_layer(lvlm) if parameters.layer is None else parameters.layer
    rows = episode.rows[:1] if parameters.rows == "prompt" else episode.rows
    weights = trace_attention(lvlm, episode, [layer]).weights(layer, rows).mean(dim=(0, 1))
    return weights[list(episode.image_positions)].cpu().numpy()
