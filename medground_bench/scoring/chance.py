"""What can be scored without looking at the image: the rows every table is read against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.imaging.areas import RaggedBoxes, ragged, record_areas
from medground_bench.imaging.overlap import BoxScores, score_boxes
from medground_bench.scoring.statistics import cluster_codes

__all__ = [
    "CHANCE_ROWS",
    "best_chance",
    "centre_prior_boxes",
    "chance_scores",
    "inside",
    "random_boxes",
    "whole_image_scores",
]

CHANCE_ROWS = ("whole_image", "random_box", "centre_prior")
"""The chance rows in the order of a table, the most informed last."""

DRAWS = 32
"""Placements of the size-matched random box that are averaged per record."""


def chance_scores(
    references: Sequence[Any] | RaggedBoxes,
    sizes: Sequence[Sequence[float]] | np.ndarray,
    attributes: Sequence[Any] | np.ndarray,
    clusters: Sequence[Any] | np.ndarray,
    *,
    items: Sequence[Any] | np.ndarray | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, BoxScores]:
    """Scores per record of the three chance rows.

    Parameters
    ----------
    references : sequence of (sequence of [x1, y1, x2, y2])
        Evidence boxes per record, native pixels.
    sizes : array, shape (n, 2)
        Width and height of every record's image in pixels.
    attributes : sequence of length n
        The finding (with its dataset, where annotation styles differ): what the prior is learned per.
    clusters : sequence of length n
        The patient, else the image: what is left out of a record's prior.
    items : sequence of length n, optional
        What a record asks about (image and attribute): records of several LVLMs that share it count once in the
        prior. Default: every record counts.
    draws : int
        Placements averaged for the random box.
    seed : int
        Of the random box.

    Returns
    -------
    dict of str to BoxScores
        Keys :data:`CHANCE_ROWS`.
    """
    evidence = inside(ragged(references, "references"), image_sizes(sizes, references))
    size = image_sizes(sizes, references)
    random = np.zeros((4, len(size)))
    for boxes in random_boxes(evidence, size, draws=draws, seed=seed):
        for total, column in zip(random, score_boxes(boxes, evidence), strict=True):
            total += column / draws
    prior = centre_prior_boxes(evidence, size, attributes, clusters, items=items)
    every = RaggedBoxes(prior, np.ones(len(size), np.int64))
    return {
        "whole_image": whole_image_scores(evidence, size),
        "random_box": BoxScores(*random),
        "centre_prior": score_boxes(every, evidence),
    }


def whole_image_scores(
    references: Sequence[Any] | RaggedBoxes, sizes: Sequence[Sequence[float]] | np.ndarray
) -> BoxScores:
    """Scores of the whole image as prediction, in closed form.

    With the evidence-area fraction e: IoU = precision = e, recall = 1, F1 = 2 e / (1 + e); all 0 without evidence.
    """
    size = image_sizes(sizes, references)
    evidence = inside(ragged(references, "references"), size)
    fraction = record_areas(evidence, evidence).evidence / size.prod(axis=1)
    recall = (fraction > 0).astype(np.float64)
    return BoxScores(fraction, fraction, recall, 2 * fraction / (1 + fraction))


def random_boxes(evidence: RaggedBoxes, sizes: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> Any:
    """Size-matched random boxes: every evidence box moved to a uniformly random place inside its image.

    Yields ``draws`` times the boxes of all records.
    """
    rng = np.random.default_rng(seed)
    room = np.repeat(sizes, evidence.counts, axis=0)
    extent = evidence.boxes[:, 2:] - evidence.boxes[:, :2]
    for _ in range(draws):
        corner = rng.random(extent.shape) * np.maximum(room - extent, 0.0)
        yield RaggedBoxes(np.concatenate([corner, corner + extent], axis=1), evidence.counts)


def centre_prior_boxes(
    evidence: RaggedBoxes,
    sizes: np.ndarray,
    attributes: Sequence[Any] | np.ndarray,
    clusters: Sequence[Any] | np.ndarray,
    *,
    items: Sequence[Any] | np.ndarray | None = None,
) -> np.ndarray:
    """The per-attribute leave-one-out centre prior: one box per record, shape (n, 4), native pixels.

    The box has the mean centre and the mean size, relative to the image, of the boxes around the evidence of the
    same attribute in all *other* patients. An attribute that no other patient has falls back on the mean over all
    attributes of the other patients, and a lone patient on the whole image.
    """
    n = len(sizes)
    group, groups = cluster_codes(attributes)
    cluster, cluster_count = cluster_codes(clusters)
    if not n == len(group) == len(cluster) == len(evidence.counts):
        raise ScoringError("references, sizes, attributes and clusters must have one entry per record")
    around = np.zeros((n, 5))  # centre x, y, width, height and how many
    has = np.flatnonzero(evidence.counts)
    if len(has):
        first = (np.cumsum(evidence.counts) - evidence.counts)[has]
        scale = sizes[has]
        low = np.minimum.reduceat(evidence.boxes[:, :2], first, axis=0) / scale
        high = np.maximum.reduceat(evidence.boxes[:, 2:], first, axis=0) / scale
        around[has] = np.concatenate([(low + high) / 2, high - low, np.ones((len(has), 1))], axis=1)
    if items is not None:
        repeated = np.ones(n, bool)
        repeated[np.unique(cluster_codes(items)[0], return_index=True)[1]] = False
        around[repeated] = 0.0
    others = _leave_out(around, group, groups, cluster, cluster_count)
    alone = others[:, 4] < 0.5
    if alone.any():
        others[alone] = _leave_out(around, np.zeros(n, np.int64), 1, cluster, cluster_count)[alone]
    known = others[:, 4] > 0.5
    mean = np.tile(np.array([0.5, 0.5, 1.0, 1.0]), (n, 1))
    mean[known] = others[known, :4] / others[known, 4:]
    low, high = mean[:, :2] - mean[:, 2:] / 2, mean[:, :2] + mean[:, 2:] / 2
    return np.concatenate([np.clip(low, 0, 1) * sizes, np.clip(high, 0, 1) * sizes], axis=1)


def _leave_out(values: np.ndarray, group: np.ndarray, groups: int, cluster: np.ndarray, clusters: int) -> np.ndarray:
    """Per record, the sum of ``values`` over its group without its own cluster."""
    pair, place = np.unique(group * clusters + cluster, return_inverse=True)
    out = np.empty_like(values)
    for j, column in enumerate(values.T):
        total, own = np.bincount(group, column, groups), np.bincount(place, column, len(pair))
        out[:, j] = total[group] - own[place]
    return out


def best_chance(means: Mapping[str, float]) -> str:
    """The chance row that a score is judged by: the one with the greatest mean (of equals the most informed)."""
    return max(reversed(list(means)), key=lambda row: means[row])


def image_sizes(sizes: Sequence[Sequence[float]] | np.ndarray, references: Any) -> np.ndarray:
    try:
        size = np.asarray(sizes, np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise ScoringError("image sizes are not pairs of numbers", expected="[[width, height], ...]") from error
    count = len(references.counts) if isinstance(references, RaggedBoxes) else len(references)
    if len(size) != count:
        raise ScoringError(f"{len(size)} image sizes for {count} records", expected="[width, height] per record")
    if not (np.isfinite(size) & (size > 0)).all():
        bad = int(np.argmin((np.isfinite(size) & (size > 0)).all(axis=1)))
        raise ScoringError(f"image size {size[bad].tolist()} is not one", where=f"image_sizes[{bad}]")
    return size


def inside(evidence: RaggedBoxes, sizes: np.ndarray) -> RaggedBoxes:
    """Evidence cut to its images (annotations may reach a little beyond): what everything is scored against."""
    limit = np.repeat(np.concatenate([sizes, sizes], axis=1), evidence.counts, axis=0)
    clipped = np.clip(evidence.boxes, 0.0, limit)
    keep = (clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1])
    if keep.all():
        return RaggedBoxes(clipped, evidence.counts)
    owner = np.repeat(np.arange(len(evidence.counts)), evidence.counts)[keep]
    return RaggedBoxes(clipped[keep], np.bincount(owner, minlength=len(evidence.counts)))
