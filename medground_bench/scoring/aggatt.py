"""Aggregated attributions (AggAtt; Rao, Boehle & Schiele 2022): what a method's maps look like from best to worst.

Records are sorted by how well the map finds the evidence (area under the precision-recall curve; of methods without
maps the boxes' IoU), ties by the share of the heat inside, and cut at the quantiles :data:`QUANTILES`. The picture of a
bin is the mean of its maps' positive parts, each scaled to [0, 1] and laid so that the largest box of the evidence
fills the middle third of the picture both ways. Nothing is chosen by hand, and the middle bins show the usual record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from medground_bench.imaging import Letterbox
    from medground_bench.scoring.files import ScoreFile, SubmissionScores
    from medground_bench.submission import Prediction, Submission

__all__ = [
    "MOST",
    "QUANTILES",
    "SIDE",
    "AggregatedMaps",
    "Bin",
    "Evidence",
    "aggregate_maps",
    "bin_edges",
    "registered",
]

QUANTILES = (0.0, 0.02, 0.05, 0.5, 0.95, 0.98, 1.0)
"""Between which shares of the records, best first, the bins lie."""

SIDE = 48
"""Cells a side of a picture; the evidence has the middle :data:`SIDE` / 3."""

MOST = 200
"""Maps that are averaged in a bin, at most: a seeded sample."""

Evidence = tuple[Sequence[Sequence[float]], tuple[int, int]]
"""Boxes in native pixels, and the width and height of their image."""


@dataclass(frozen=True, eq=False)
class Bin:
    """Records between two quantiles.

    Attributes
    ----------
    low, high : float
        The quantiles.
    records, drawn : int
        How many there are, and how many the picture is the mean of.
    score : float
        Mean score; NaN of an empty bin.
    picture : ndarray, (SIDE, SIDE)
        Mean map; NaN where no image reaches.
    """

    low: float
    high: float
    records: int
    drawn: int
    score: float
    picture: np.ndarray

    @property
    def inside(self) -> float:
        """Mean of the picture over the evidence's box."""
        return _mean(self.picture[_THIRD, _THIRD])

    @property
    def outside(self) -> float:
        """Mean of the picture around it."""
        around = self.picture.copy()
        around[_THIRD, _THIRD] = np.nan
        return _mean(around)


_THIRD = slice(SIDE // 3, 2 * SIDE // 3)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


@dataclass(frozen=True, eq=False)
class AggregatedMaps:
    """The pictures of a method.

    Attributes
    ----------
    method, kind : str
        Whose.
    of, measure : str
        ``map`` or ``boxes``, and what its records are sorted by: ``auprc`` or ``iou``.
    bins : tuple of Bin
        Best first.
    missing : int
        Records without a map, which are left out. A map that is the same everywhere counts as 0.
    """

    method: str
    kind: str
    of: str
    measure: str
    bins: tuple[Bin, ...]
    missing: int

    def flat(self) -> list[dict[str, Any]]:
        """Plain values, a line for each bin."""
        return [
            {
                "method": self.method,
                "kind": self.kind,
                "of": self.of,
                "from": b.low,
                "to": b.high,
                "records": b.records,
                "drawn": b.drawn,
                "measure": self.measure,
                **{k: None if np.isnan(v) else round(v, 6) for k, v in self._numbers(b).items()},
                "missing": self.missing,
            }
            for b in self.bins
        ]

    @staticmethod
    def _numbers(one: Bin) -> dict[str, float]:
        return {"score": one.score, "inside": one.inside, "outside": one.outside}


def bin_edges(count: int) -> list[int]:
    """Where the bins of ``count`` sorted records begin and end; some are empty where there are few.

    >>> np.diff(bin_edges(100)).tolist()
    [2, 3, 45, 45, 3, 2]
    """
    return [int(np.floor(q * count + 0.5)) for q in QUANTILES]


def registered(
    heatmap: np.ndarray | None,
    boxes: Sequence[Sequence[float]],
    letterbox: Letterbox,
    evidence: Sequence[Sequence[float]],
    *,
    signed: bool = False,
) -> np.ndarray:
    """A map around the evidence, (SIDE, SIDE): its largest box in the middle third, NaN outside of the image.

    All NaN where there is no evidence.

    Parameters
    ----------
    heatmap : ndarray, (h, w), or None
        Over the letterbox's frame; None: the boxes are the map, 1 inside and 0 outside.
    boxes, evidence : sequence of [x1, y1, x2, y2]
        Native pixels.
    """
    if not len(evidence):
        return np.full((SIDE, SIDE), np.nan)
    x1, y1, x2, y2 = max(evidence, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
    along = 3 * (np.arange(SIDE) + 0.5) / SIDE - 1  # 0 to 1 in the box
    xs, ys = x1 + along * (x2 - x1), y1 + along * (y2 - y1)
    image = np.outer((ys >= 0) & (ys < letterbox.height), (xs >= 0) & (xs < letterbox.width))
    out = np.zeros((SIDE, SIDE))
    if heatmap is None:
        for a, b, c, d in boxes:
            out[np.outer((ys >= b) & (ys < d), (xs >= a) & (xs < c))] = 1.0
    else:
        heat = np.asarray(heatmap, np.float64)
        heat = np.maximum(heat, 0) if signed else heat
        if np.isfinite(heat).all() and np.ptp(heat):
            heat = (heat - heat.min()) / np.ptp(heat)
            (fx, fy), (sx, sy) = letterbox.content[:2], letterbox.scale
            cols = (np.clip(xs, 0, letterbox.width) * sx + fx) * heat.shape[1] / letterbox.frame_width
            rows = (np.clip(ys, 0, letterbox.height) * sy + fy) * heat.shape[0] / letterbox.frame_height
            place = np.ix_(rows.astype(int).clip(0, len(heat) - 1), cols.astype(int).clip(0, heat.shape[1] - 1))
            out = heat[place]
    return np.where(image, out, np.nan)


def aggregate_maps(
    judged: Iterable[tuple[Submission, SubmissionScores, ScoreFile]],
    evidence: Mapping[tuple[str, str], Evidence],
    *,
    seed: int = 0,
) -> list[AggregatedMaps]:
    """The pictures of every method, over all its LVLMs and modes.

    Parameters
    ----------
    judged : iterable of (Submission, SubmissionScores, ScoreFile)
        Submissions with their scores and the file that holds these.
    evidence : mapping of (fingerprint of the dataset, record id) to Evidence
        Of all records.
    seed : int
        Of the sample of a bin with more than :data:`MOST` records.
    """
    parts: dict[tuple[str, str, str], list[_Part]] = {}
    for submission, scores, file in judged:
        of = "map" if "auprc" in scores.scores else "boxes"
        parts.setdefault((scores.method, scores.kind, of), []).append(_Part(submission, scores, file))
    return [_aggregated(*key, found, evidence, seed) for key, found in parts.items()]


@dataclass(frozen=True)
class _Part:
    submission: Submission
    scores: SubmissionScores
    file: ScoreFile


def _aggregated(
    method: str, kind: str, of: str, parts: Sequence[_Part], evidence: Mapping[tuple[str, str], Evidence], seed: int
) -> AggregatedMaps:
    measure, tie = ("auprc", "energy") if of == "map" else ("iou", "precision")
    score, ties = (np.concatenate([p.scores.scores[name] for p in parts]) for name in (measure, tie))
    whose = [(k, i) for k, part in enumerate(parts) for i in part.scores.positions.tolist()]
    there = np.flatnonzero(~np.isnan(score))
    order = there[np.lexsort((-ties[there], -score[there]))].tolist()
    rng = np.random.default_rng(seed)
    edges = bin_edges(len(order))
    members = [order[a:b] for a, b in pairwise(edges)]
    drawn = [m if len(m) <= MOST else [m[j] for j in sorted(rng.choice(len(m), MOST, replace=False))] for m in members]
    sums, counts = np.zeros((2, len(members), SIDE, SIDE))
    bin_of = {whose[j]: b for b, chosen in enumerate(drawn) for j in chosen}
    for k, part in enumerate(parts):
        ids = part.file.table.id.tolist()
        wanted = {ids[i]: b for (p, i), b in bin_of.items() if p == k}
        for said in part.submission:
            if said.id in wanted:
                picture = _picture(part, said, of, evidence[part.file.fingerprint, said.id])
                reached = ~np.isnan(picture)
                sums[wanted[said.id]] += np.where(reached, picture, 0.0)
                counts[wanted[said.id]] += reached
    bins = tuple(
        Bin(
            low=QUANTILES[b],
            high=QUANTILES[b + 1],
            records=len(members[b]),
            drawn=len(drawn[b]),
            score=float(score[members[b]].mean()) if members[b] else float("nan"),
            picture=np.divide(sums[b], counts[b], out=np.full((SIDE, SIDE), np.nan), where=counts[b] > 0),
        )
        for b in range(len(members))
    )
    return AggregatedMaps(method, kind, of, measure, bins, len(score) - len(order))


def _picture(part: _Part, said: Prediction, of: str, evidence: Evidence) -> np.ndarray:
    boxes, size = evidence
    box = part.submission.letterbox(size)
    heat = part.submission.heatmap(said) if of == "map" else None
    return registered(heat, said.boxes, box, boxes, signed=part.submission.signed)
