"""What a head of attention is judged by: how much of it falls on the image, and on how many places there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["elbow", "prompt_attention", "spatial_entropy"]


def prompt_attention(lvlm: Lvlm, episode: Episode) -> np.ndarray:
    """Attention of every head from the last position of the prompt to the image tokens, (L, H, rows, cols) float64."""
    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode)
    image = list(episode.image_positions)
    layers = [trace.weights(n, episode.rows[:1])[:, 0, image].double().cpu().numpy() for n in trace.layers]
    grid = episode.grid
    return np.stack([[grid.as_map(head) for head in layer] for layer in layers])


def elbow(values: np.ndarray) -> float:
    """The value at which the sorted values bend: the point farthest below the chord from first to last."""
    ordered = np.sort(np.asarray(values, float))
    if len(ordered) < 3 or ordered[-1] == ordered[0]:
        return float(ordered[0])
    x = np.linspace(0.0, 1.0, len(ordered))
    y = (ordered - ordered[0]) / (ordered[-1] - ordered[0])
    return float(ordered[np.argmax(x - y)])


def spatial_entropy(attention: np.ndarray) -> float:
    """``-sum_c p_c ln p_c`` over the 8-connected components c of what exceeds the map's mean, p_c their share of it.

    0 for one component; infinite for a constant map, which has none.
    """
    from scipy import ndimage

    above = np.maximum(attention - attention.mean(), 0)
    labels, count = ndimage.label(above > 0, structure=np.ones((3, 3)))
    if not count:
        return float("inf")
    share = ndimage.sum_labels(above, labels, np.arange(1, count + 1)) / above.sum()
    return float(-(share * np.log(share)).sum())
