"""ARC: how alike two places rank the next token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["rank_weights"]

_TOP = 50  # next tokens that are compared


def rank_weights(places: torch.Tensor, row: torch.Tensor, table: torch.Tensor) -> np.ndarray:
    """ARC's weights of n places, (n,): the rank correlation of their predictions with a row's, 0 where it is negative.

    How the paper chooses what is compared could not be found: here it is Spearman's correlation of the logits of the 50
    tokens that the row finds likeliest.

    Parameters
    ----------
    places, row : tensor, (n, D) and (D,)
        Normed last states.
    table : tensor, (V, D)
        The head.
    """
    from scipy.stats import rankdata

    likeliest = (table.float() @ row).topk(min(_TOP, len(table))).indices
    head = table[likeliest].float()
    own, others = (rankdata((head @ s.T).double().cpu().numpy(), axis=0) for s in (row[None], places))
    own, others = own - own.mean(0), others - others.mean(0)  # (k, 1), (k, n)
    sizes = np.linalg.norm(own) * np.linalg.norm(others, axis=0)
    found = np.divide(own[:, 0] @ others, sizes, out=np.zeros(len(places)), where=sizes > 0)
    out: np.ndarray = np.maximum(found, 0)
    return out
