"""Tiers: methods that the test does not tell apart share one.

Over the same records, the best method that has no tier yet begins one. Every other is compared with it (sign flips by
patient, Holm's correction over these comparisons), in order of mean IoU, and belongs to the tier up to the first that
differs; that one begins the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.statistics import RESAMPLES, cluster_codes, cluster_sums, holm, sign_flip_test

if TYPE_CHECKING:
    from medground_bench.scoring.files import ScoreFile, SubmissionScores

__all__ = ["LEVEL", "TIER_RULE", "tiers", "tiers_of"]

LEVEL = 0.05
"""Of the test."""

TIER_RULE = (
    "The best method that has no tier yet begins one; in order of IoU it takes in the methods that follow, up to the "
    f"first that differs from it at {LEVEL:.0%} (sign flips by patient, Holm's correction over all that follow)."
)
"""The rule for a reader."""

Group = tuple[str, str]
"""Level and group of an aggregate."""


def tiers(
    files: Sequence[ScoreFile], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[tuple[int, int, Group], int]:
    """The tier of every method, over all records and over those of each dataset.

    Only methods over the same records of the same LVLM, mode and dataset fingerprint are compared.

    Parameters
    ----------
    files : sequence of ScoreFile
        Their submissions.
    resamples, seed
        Of the drawn sign flips.

    Returns
    -------
    dict
        (place of the file, place of its submission, (level, group)) -> tier, from 1. Missing are controls, submissions
        without scores of single records, and groups of too few patients.
    """
    peers: dict[tuple[str, ...], list[tuple[int, int, SubmissionScores]]] = {}
    for f, file in enumerate(files):
        for s, one in enumerate(file.submissions):
            if one.kind == "method" and len(one.positions):
                records = "\0".join(sorted(file.table.id[one.positions].tolist()))
                peers.setdefault((file.fingerprint, one.lvlm, one.mode, records), []).append((f, s, one))
    out: dict[tuple[int, int, Group], int] = {}
    for mine in peers.values():
        orders = [one.positions[np.argsort(files[f].table.id[one.positions])] for f, _, one in mine]
        scores = np.stack([_by_position(one)[order] for (_, _, one), order in zip(mine, orders, strict=True)], axis=1)
        table = files[mine[0][0]].table.take(orders[0])
        groups: list[tuple[Group, np.ndarray]] = [(("all", ""), np.ones(len(table), bool))]
        groups += [(("dataset", name), table.dataset == name) for name in sorted(set(table.dataset.tolist()))]
        for group, rows in groups:
            found = tiers_of(scores[rows], table.cluster[rows], resamples=resamples, seed=seed)
            out |= {(f, s, group): tier for (f, s, _), tier in zip(mine, found, strict=True) if tier}
    return out


def _by_position(one: SubmissionScores) -> np.ndarray:
    """IoU by position in the file's table."""
    out = np.full(int(one.positions.max()) + 1, np.nan)
    out[one.positions] = one.scores["iou"]
    return out


def tiers_of(scores: np.ndarray, clusters: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> list[int]:
    """Tiers of the columns of a table.

    Parameters
    ----------
    scores : ndarray, (records, methods)
        Scores of the same records.
    clusters : sequence of length records
        Their patients.
    resamples, seed
        Of the drawn sign flips; there are more where many methods are compared.

    Returns
    -------
    list of int
        From 1; 0 for all where there are too few patients for the test.
    """
    codes, count = cluster_codes(clusters)
    sums = cluster_sums(scores, codes, count)
    order = np.argsort(-scores.mean(axis=0), kind="stable")
    out = [0] * scores.shape[1]
    place = tier = 0
    while place < len(order):
        tier += 1
        leader, others = order[place], order[place + 1 :]
        out[leader] = tier
        place += 1
        if not len(others):
            break
        # Holm multiplies the least p-value by their number: enough draws that it can be below the level.
        draws = max(resamples, math.ceil(2 * len(others) / LEVEL))
        p = sign_flip_test(sums[:, [leader]] - sums[:, others], resamples=draws, seed=seed)
        if np.isnan(p).any():
            return [0] * scores.shape[1]
        for other, corrected in zip(others.tolist(), holm(p.tolist()), strict=True):
            if corrected <= LEVEL:
                break
            out[other] = tier
            place += 1
    return out
