"""First-order patching: the inner product of what a patch changes with a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.references import reference_embeddings

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["patching_estimate"]


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
