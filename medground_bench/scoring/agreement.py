"""Experts against experts: how well the boxes of one group of annotators match those of another on the same images.

No attribution can be expected to match an expert better than another expert does: the human row is to box scores what
the chance rows are from below. Sources that annotate the same radiographs are told by equal ``image_id`` (those that
stem from NIH ChestX-ray14, once their ``nih_names.json`` says which image is which); they call the same finding by
different names, which :data:`COMMON_FINDINGS` brings together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.core.schema import Box, Candidate
from medground_bench.dataset.columns import Record
from medground_bench.imaging.areas import record_areas
from medground_bench.imaging.letterbox import Letterbox
from medground_bench.imaging.overlap import BoxScores, score_areas, score_boxes
from medground_bench.scoring.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    cluster_codes,
    cluster_sums,
    ratio_intervals,
)

__all__ = ["ALL", "COMMON_FINDINGS", "Agreement", "agreement", "common_finding", "human_scores", "second_opinions"]

ALL = "all"
"""Stands for all findings together."""

COMMON_FINDINGS: dict[str, str] = {
    # RSNA marked opacities suspicious of pneumonia, ChestX-Det calls them consolidation, NIH's list has both of these.
    "pneumonia": "lung opacity",
    "lung opacity": "lung opacity",
    "consolidation": "lung opacity",
    "infiltrate": "lung opacity",
    "infiltration": "lung opacity",
    "effusion": "pleural effusion",
    "pleural effusion": "pleural effusion",
    "lung mass": "mass",
    "lung nodule": "nodule",
    "enlarged cardiac silhouette": "cardiomegaly",
    "rib fracture": "fracture",
    "pulmonary fibrosis": "fibrosis",
}
"""What a source calls a finding (in small letters) -> the name that sources share; others keep their own."""

Annotated = Candidate | Record


@dataclass(frozen=True)
class Agreement:
    """One source's boxes against another's, on the images on which both mark the finding.

    Attributes
    ----------
    first, second : str
        Keys of the sources: the second is read as a prediction of the first.
    finding : str
        The shared name, or :data:`ALL`.
    images, patients, boxes : int
        Images on which both mark it, their patients, and the first's boxes on them.
    best_iou : Interval
        Mean over the first's boxes of the largest IoU with one of the second's.
    iou, precision, recall, f1 : Interval
        The benchmark's scores of the unions of boxes, mean over (image, finding).
    """

    first: str
    second: str
    finding: str
    images: int
    patients: int
    boxes: int
    best_iou: Interval
    iou: Interval
    precision: Interval
    recall: Interval
    f1: Interval


@dataclass(frozen=True)
class _Marked:
    """What one source marks on one image under one shared name."""

    boxes: tuple[Box, ...]
    patient: str
    size: tuple[int, int] | None

    def on(self, size: tuple[int, int] | None) -> tuple[Box, ...]:
        """The boxes on a copy of the image of another size."""
        if size is None or self.size is None or size == self.size:
            return self.boxes
        resize = Letterbox(*self.size, *size, content=(0, 0, *size))
        return tuple(resize.to_frame(self.boxes))


def common_finding(attribute: str) -> str:
    """The name that sources share for a finding.

    >>> common_finding("Infiltrate"), common_finding("Emphysema")
    ('lung opacity', 'emphysema')
    """
    name = attribute.strip().lower()
    return COMMON_FINDINGS.get(name, name)


def agreement(
    sources: Sequence[Sequence[Candidate]], *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> list[Agreement]:
    """Every source against every other, per finding and over all findings that they share.

    Parameters
    ----------
    sources : sequence of sequence of Candidate
        Two or more, each of one ``dataset``.
    resamples, confidence, seed
        Of the intervals' bootstrap, clustered by patient.

    Returns
    -------
    list of Agreement
        By pair in the order given, both ways, findings by name and :data:`ALL` last. Pairs that share nothing are left
        out.

    Raises
    ------
    ScoringError
        If fewer than two different sources are given.
    """
    marks = {source[0].dataset: _by_finding(source) for source in sources if len(source)}
    if len(marks) < 2 or len(marks) < len(sources):
        raise ScoringError(f"{len(marks)} different source(s) with candidates", expected="two or more, each once")
    out = []
    for first, second in sorted(permutations(marks, 2), key=lambda pair: _pair_order(list(marks), pair)):
        shared = sorted(set(marks[first]) & set(marks[second]))
        findings = sorted({finding for _, finding in shared})
        for finding in [*findings, ALL] if len(findings) > 1 else findings:
            keys = [key for key in shared if finding in (key[1], ALL)]
            pairs = [(marks[first][key], marks[second][key]) for key in keys]
            intervals = _intervals(pairs, resamples, confidence, seed)
            out.append(
                Agreement(
                    first,
                    second,
                    finding,
                    images=len({image for image, _ in keys}),
                    patients=len({a.patient for a, _ in pairs}),
                    boxes=sum(len(a.boxes) for a, _ in pairs),
                    best_iou=intervals[0],
                    iou=intervals[1],
                    precision=intervals[2],
                    recall=intervals[3],
                    f1=intervals[4],
                )
            )
    return out


def _pair_order(names: list[str], pair: tuple[str, str]) -> tuple[list[int], bool]:
    """A against B is followed by B against A."""
    places = [names.index(name) for name in pair]
    return sorted(places), places != sorted(places)


def _size(row: Annotated) -> tuple[int, int] | None:
    return row.size if isinstance(row, Candidate) else (row.width, row.height)


def _by_finding(rows: Iterable[Annotated]) -> dict[tuple[str, str], _Marked]:
    """Boxes by (image, shared finding); a source's own findings of one shared name go together."""
    out: dict[tuple[str, str], _Marked] = {}
    for row in rows:
        if row.boxes:
            key = (row.image_id, common_finding(row.attribute))
            marked = _Marked(tuple(row.boxes), row.patient_id, _size(row))
            out[key] = replace(marked, boxes=out[key].on(marked.size) + marked.boxes) if key in out else marked
    return out


def _best_ious(first: Sequence[Box], second: Sequence[Box]) -> np.ndarray:
    """Of every box of the first the largest IoU with one of the second."""
    pairs = list(product(first, second))
    scores = score_areas(record_areas([[b] for _, b in pairs], [[a] for a, _ in pairs]))
    best: np.ndarray = scores.iou.reshape(len(first), len(second)).max(axis=1)
    return best


def _intervals(
    pairs: Sequence[tuple[_Marked, _Marked]], resamples: int, confidence: float, seed: int
) -> list[Interval]:
    """Best IoU per box, then the four scores per (image, finding), clustered by patient."""
    opinions = [b.on(a.size) for a, b in pairs]
    scores = score_boxes(opinions, [a.boxes for a, _ in pairs])
    best = [_best_ious(a.boxes, opinion) for (a, _), opinion in zip(pairs, opinions, strict=True)]
    sums = np.stack([[ious.sum() for ious in best], *scores], axis=1)
    counts = np.ones_like(sums)
    counts[:, 0] = [len(ious) for ious in best]
    codes, clusters = cluster_codes([a.patient for a, _ in pairs])
    return ratio_intervals(
        cluster_sums(sums, codes, clusters)[:, None],
        cluster_sums(counts, codes, clusters)[:, None],
        [(0.0, 1.0)] * sums.shape[1],
        resamples=resamples,
        confidence=confidence,
        seed=seed,
    )


def second_opinions(rows: Sequence[Annotated], annotator: Iterable[Annotated]) -> list[tuple[Box, ...] | None]:
    """Another source's boxes for every row: same image, same finding, in the row's own pixels.

    Parameters
    ----------
    rows : sequence of Candidate or Record
        What is to be looked up.
    annotator : iterable of Candidate or Record
        What the other source marked; rows of the same dataset as the row in question are no second opinion.

    Returns
    -------
    list of (tuple of Box) or None
        None where the other does not mark the finding on the image.
    """
    by_dataset: dict[str, list[Annotated]] = defaultdict(list)
    for row in annotator:
        by_dataset[row.dataset].append(row)
    marks = {dataset: _by_finding(found) for dataset, found in by_dataset.items()}
    out: list[tuple[Box, ...] | None] = []
    for row in rows:
        key = (row.image_id, common_finding(row.attribute))
        found = next((m[key] for dataset, m in marks.items() if dataset != row.dataset and key in m), None)
        out.append(None if found is None else found.on(_size(row)))
    return out


def human_scores(rows: Sequence[Annotated], annotators: Iterable[Annotated]) -> tuple[BoxScores, np.ndarray]:
    """The human row: a second annotator's boxes scored as if a method had given them.

    Parameters
    ----------
    rows : sequence of Candidate or Record
        The records of a table.
    annotators : iterable of Candidate or Record
        Sources (or rows of other datasets in the same folder) that may annotate the same images; where several do, the
        first one's boxes count.

    Returns
    -------
    scores : BoxScores
        Per row; NaN where there is no second annotator.
    there : ndarray, shape (n,), bool
        Where there is one.
    """
    opinions = second_opinions(rows, annotators)
    there = np.array([opinion is not None for opinion in opinions], bool)
    scores = score_boxes(
        [o for o in opinions if o is not None], [r.boxes for r, t in zip(rows, there, strict=True) if t]
    )
    out = np.full((4, len(rows)), np.nan)
    out[:, there] = np.stack(scores)
    return BoxScores(*out), there
