"""First-order patching: what a patch changes times a gradient, at the embeddings or where attention reads a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.references import reference_embeddings

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["one_key_changed", "patching_estimate", "reading_estimate"]


def patching_estimate(lvlm: Lvlm, episode: Episode, reference: str, steps: int = 1) -> np.ndarray:
    """``<e_p - e'_p, ds/de_p>`` for every image token p, (rows, cols) float64.

    Parameters
    ----------
    lvlm, episode
        The model and what it reads. Rules that are installed in the model shape the gradient.
    reference : str
        What e' is: one of :data:`~baselines.shared.references.EMBEDDING_REFERENCES`.
    steps : int
        1: the gradient at e. More: the mean of the gradients at the midpoints of so many pieces of the way from e' to
        e, as in integrated gradients.
    """
    import torch

    from medground_bench.lvlm.embeddings import check_finite, leaf_embeddings, score_embeddings

    own = leaf_embeddings(lvlm, episode)[0]
    difference = own - reference_embeddings(lvlm, episode, own, reference)
    total = torch.zeros_like(own, dtype=torch.float64)
    for k in range(steps):
        back = 0.0 if steps == 1 else 1 - (k + 0.5) / steps
        with torch.enable_grad():
            leaf = (own - back * difference)[None].detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(score_embeddings(lvlm, episode, leaf).sum(), leaf)
        check_finite(gradient, "the gradient at the embeddings", lvlm)
        total += gradient[0].double() / steps
    values = (total * difference.double()).sum(-1)[list(episode.image_positions)]
    return episode.grid.as_map(values.cpu().numpy())


def reading_estimate(lvlm: Lvlm, episode: Episode, reference: str) -> np.ndarray:
    """AtP* with its repair of queries and keys, (rows, cols) float64: what others read of a token, before and after.

    A patched token p reaches the score by what other rows r read of its keys and values, in any layer. The estimate is
    ``sum_(l, r != p) <o_r - o'_r, ds/do_r>``, o the heads' output and o' the same with p's key and value replaced by
    those that p alone, patched, would have: the softmax is computed again, and the token's own way through norms and
    MLPs is the real one. Only what lies above the reading is taken to first order.

    Parameters
    ----------
    lvlm, episode
        The model and what it reads.
    reference : str
        What e' is: one of :data:`~baselines.shared.references.EMBEDDING_REFERENCES`.
    """
    from medground_bench.lvlm.embeddings import leaf_embeddings
    from medground_bench.lvlm.trace import trace_attention

    own = leaf_embeddings(lvlm, episode)[0]
    image = list(episode.image_positions)
    patched = reference_embeddings(lvlm, episode, own, reference)[image]
    trace = trace_attention(lvlm, episode, gradients=True, embeddings=own[None])
    total = np.zeros(len(image))
    for layer, keys, values in trace.alone(image, patched):
        queries, upstream = trace.queries(layer).double(), trace.output_gradient(layer).double()  # (H, S, d)
        scale = float(lvlm.layers[layer].self_attn.scaling)  # type: ignore[union-attr,arg-type]
        moved = (keys - trace.keys(layer)[:, image]).double().transpose(1, 2)  # (H, d, P)
        bent = (values - trace.values(layer)[:, image]).double().transpose(1, 2)
        scores, slope = trace.scores(layer).double(), trace.gradient(layer).double()  # (H, S, S)
        change = one_key_changed(scores, slope, image, scale * queries @ moved, upstream @ bent)
        change[:, image, range(len(image))] = 0  # the token's own row is on its own way
        total -= change.sum((0, 1)).cpu().numpy()
    return episode.grid.as_map(total)


def one_key_changed(
    scores: torch.Tensor, slope: torch.Tensor, columns: list[int], moved: torch.Tensor, bent: torch.Tensor
) -> torch.Tensor:
    """``A'.dA' - A.dA`` of every row when one column's score and value change, for P columns: (H, R, P).

    With ``w = A_p / (1 - A_p + A_p e^d)`` it is ``w (e^d - 1) ((1 - A_p) dA_p - sum_(j != p) A_j dA_j) + w e^d b``: no
    softmax is computed for each column. What a weight of almost 1 leaves to the others is added up, not subtracted.

    Parameters
    ----------
    scores, slope : tensor, (H, R, S)
        Before the softmax, and the gradient dA at the attention A.
    columns : list of int, length P
    moved, bent : tensor, (H, R, P)
        d, by how much the column's score grows, and b, by how much its dA does.
    """
    hidden = scores == -float("inf")
    weights, slope = scores.softmax(-1), slope.masked_fill(hidden, 0)
    top = scores.argmax(-1, keepdim=True)
    without = weights.scatter(-1, top, 0)
    given = weights * slope
    others = (given.sum(-1, keepdim=True) - given).scatter(-1, top, (without * slope).sum(-1, keepdim=True))
    rest = (1 - weights).scatter(-1, top, without.sum(-1, keepdim=True))[..., columns]
    pull = rest * slope[..., columns] - others[..., columns]
    grown = moved.clamp(-300, 300)
    share = weights[..., columns] / (rest + weights[..., columns] * grown.exp()).clamp(min=1e-300)
    return share * (grown.expm1() * pull + grown.exp() * bent)
