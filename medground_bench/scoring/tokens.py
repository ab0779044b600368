"""Scores of token attributions: whether the tokens that rest on the finding have the higher scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["EVIDENTIAL", "TOKEN_METRICS", "token_auroc"]

TOKEN_METRICS = ("token_auroc",)

EVIDENTIAL = 1.0
"""A token rests on the finding if its log-probability falls by more than so many nats once the finding is gone."""


def token_auroc(scores: Sequence[float] | np.ndarray, drops: Sequence[float] | np.ndarray) -> float:
    """Probability that a token that rests on the finding has a higher score than one that does not; ties count half.

    Parameters
    ----------
    scores, drops : array_like, (T,)
        Of the response's tokens: the method's scores, and the falls of log-probability without the finding, nats.

    Returns
    -------
    float
        0.5 is chance. NaN where all tokens rest on the finding, or none does, or the lengths differ.
    """
    scores, rests = np.asarray(scores, np.float64), np.asarray(drops, np.float64) > EVIDENTIAL
    if scores.shape != rests.shape or rests.all() or not rests.any() or not np.isfinite(scores).all():
        return float("nan")
    above = scores[rests][:, None] - scores[~rests][None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())
