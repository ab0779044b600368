"""Scores of the concept that a method names: whether it holds the evidence, its rank, and how sure the method is.

What holds the evidence of a record is a set of the paper's concepts. Where the source names the region of every box
(Chest ImaGenome), it is these regions and all that they are part of. Elsewhere, and where the anatomy of the image is
known, it is for every box the concepts whose masks hold most of it: the one that holds the largest share, and those
that hold nearly as much (an effusion lies in a lung and in its costophrenic angle).

A method that names concepts is judged by them; of any other the heat map names the concept that most of its heat lies
in. Zones count as the concept that they are part of, a group of concepts is right if every member is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.anatomy import COMPOSITES, CONCEPTS, within
from medground_bench.imaging.zones import breast_mask
from medground_bench.scoring.heatmaps import cell_coverage
from medground_bench.scoring.places import place_labels
from medground_bench.sources.phantom.source import phantom_for, phantom_root

if TYPE_CHECKING:
    from medground_bench.core.schema import Candidate
    from medground_bench.dataset.columns import Record
    from medground_bench.imaging.letterbox import Letterbox
    from medground_bench.sources import Source
    from medground_bench.sources.planted.anatomy import Localizer

__all__ = [
    "CONCEPT_METRICS",
    "HOLDS",
    "Anatomy",
    "ConceptReference",
    "anatomy_of",
    "concept_chance",
    "concept_reference",
    "heat_in_concepts",
    "holding",
    "score_concepts",
]

CONCEPT_METRICS = (
    "concept_accuracy",
    "concept_rank",
    "concept_confidence",
    "concept_brier",
    "concept_accuracy_uniform",
    "concept_accuracy_largest",
    "concept_accuracy_prior",
    "concept_rank_uniform",
)
"""Columns per record: what the method scores, and what it would by naming any concept, the largest one of the image, or
the one that usually holds the finding in other patients."""

HOLDS = 0.8
"""A concept holds a box as well as the best one does from this share of what the best one holds."""

CELLS = 64
"""Cells a side on which concepts are kept, over the native image."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """Where the concepts are on one image.

    Attributes
    ----------
    names : tuple of str
        Those that are there.
    shares : ndarray, (concepts, CELLS, CELLS)
        Share of every cell of the image that each covers.
    labels : ndarray of uint8
        The place of every pixel (see :func:`medground_bench.scoring.places.place_labels`).
    """

    names: tuple[str, ...]
    shares: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, masks: Mapping[str, np.ndarray]) -> Anatomy:
        """From masks of the native image, (H, W) bool; empty ones are left out."""
        names = tuple(c for c in CONCEPTS if c in masks and np.any(masks[c]))
        shares = [_cells(np.asarray(masks[c], np.float32)) for c in names]
        stacked = np.stack(shares) if shares else np.zeros((0, CELLS, CELLS), np.float32)
        return cls(names, stacked, place_labels({c: np.asarray(masks[c], bool) for c in names}))

    @property
    def breasts(self) -> np.ndarray | None:
        """Where breasts cast their shadow, (CELLS, CELLS) bool; None where the lungs are not known."""
        return breast_mask({name: share > 0.5 for name, share in zip(self.names, self.shares, strict=True)})


def anatomy_of(record: Record, candidate: Candidate | None, localizer: Localizer | None = None) -> Anatomy | None:
    """The anatomy of a record's image: exact where it is a phantom's, else found by the localizer, else not known."""
    if candidate is not None and phantom_root(candidate.image_path) is not None:
        return Anatomy.of(phantom_for(candidate).masks)
    return None if localizer is None else Anatomy.of(localizer(np.asarray(record.image)).masks)


@dataclass(frozen=True, eq=False)
class ConceptReference:
    """What is known of the concepts of records.

    Attributes
    ----------
    holding : tuple of frozenset of str
        Per record the concepts that hold its evidence; empty where that is not known.
    anatomy : tuple of Anatomy or None
        Per record; None where it is not known.
    chance : dict of str to ndarray, (records,)
        The chance columns of :data:`CONCEPT_METRICS`, NaN where they are not known.
    """

    holding: tuple[frozenset[str], ...]
    anatomy: tuple[Anatomy | None, ...]
    chance: dict[str, np.ndarray]


def concept_reference(
    records: Sequence[Record], sources: Iterable[Source] = (), localizer: Localizer | None = None
) -> ConceptReference | None:
    """The concepts that hold the evidence of every record.

    Parameters
    ----------
    records : sequence of Record
        The records; their ``regions`` come first.
    sources : iterable of Source
        Those whose images are phantoms tell the exact masks.
    localizer : callable, optional
        Finds the concepts on the images of all other records
        (see :func:`medground_bench.sources.planted.load_localizer`).

    Returns
    -------
    ConceptReference or None
        None where nothing is known of any record.
    """
    anatomies = _anatomies(records, sources, localizer)
    anatomy = tuple(anatomies.get((r.dataset, r.image_id)) for r in records)
    found = tuple(
        _named(r.regions) if r.regions else holding(a, r.boxes, r.size) if a is not None else frozenset()
        for r, a in zip(records, anatomy, strict=True)
    )
    if not any(found) and not anatomies:
        return None
    return ConceptReference(found, anatomy, concept_chance(records, found, anatomy))


def _named(regions: Iterable[str]) -> frozenset[str]:
    """The concepts that regions are, or are part of."""
    return frozenset(name for region in regions for name in within(region) if name in CONCEPTS)


def _anatomies(
    records: Sequence[Record], sources: Iterable[Source], localizer: Localizer | None
) -> dict[tuple[str, str], Anatomy]:
    images = {(r.dataset, r.image_id): r for r in records}
    phantoms: dict[tuple[str, str], Candidate] = {
        (s.name, c.image_id): c for s in sources for c in s if phantom_root(c.image_path) is not None
    }
    found = {key: anatomy_of(record, phantoms.get(key), localizer) for key, record in images.items()}
    return {key: anatomy for key, anatomy in found.items() if anatomy is not None}


def holding(anatomy: Anatomy, boxes: Sequence[Sequence[float]], size: tuple[int, int]) -> frozenset[str]:
    """The concepts that hold boxes of an image of (width, height): of each box the best one and all nearly as good."""
    edges = [np.linspace(0.0, length, CELLS + 1) for length in size]
    out: set[str] = set()
    for box in boxes:
        inside = cell_coverage(np.asarray(box, np.float64).reshape(1, 4), edges[1], edges[0])
        held = (anatomy.shares * inside).sum((1, 2))
        if held.size and held.max() > 0:
            out.update(name for name, value in zip(anatomy.names, held, strict=True) if value >= HOLDS * held.max())
    return frozenset(out)


def heat_in_concepts(heatmap: np.ndarray, letterbox: Letterbox, anatomy: Anatomy) -> dict[str, float]:
    """Share of a heat map's heat above its minimum that lies in each concept; empty for a map that says nothing.

    Parameters
    ----------
    heatmap : ndarray, (h, w)
        Over the letterbox's frame, any resolution.
    """
    from PIL import Image

    heat = np.asarray(heatmap, np.float64)
    if not np.isfinite(heat).all() or not np.ptp(heat):
        return {}
    heat = (heat - heat.min()) / np.ptp(heat)
    x1, y1, x2, y2 = letterbox.content
    sx, sy = heat.shape[1] / letterbox.frame_width, heat.shape[0] / letterbox.frame_height
    picture = Image.fromarray(heat.astype(np.float32))
    box = (x1 * sx, y1 * sy, min(x2 * sx, heat.shape[1]), min(y2 * sy, heat.shape[0]))
    cells = np.asarray(picture.resize((CELLS, CELLS), Image.Resampling.BOX, box=box), np.float64)
    if cells.sum() <= 0:
        return {}
    return dict(zip(anatomy.names, ((anatomy.shares * cells).sum((1, 2)) / cells.sum()).tolist(), strict=True))


def score_concepts(named: str | None, scores: Mapping[str, float], holds: frozenset[str]) -> dict[str, float]:
    """Scores of what a method says about the concepts of one record.

    Parameters
    ----------
    named : str or None
        The concept, zone or group that it names; None: none, which is wrong.
    scores : mapping of str to float
        Of every concept, larger is more important; empty where it gives none.
    holds : frozenset of str
        Those that hold the evidence.

    Returns
    -------
    dict of str to float
        ``concept_accuracy`` (0 or 1); ``concept_rank``, one over the rank of the best concept that is right, among the
        eleven (equals share their ranks); ``concept_confidence``, the share of the positive scores that the named one
        has; ``concept_brier``, its squared distance to the accuracy. NaN where there are no scores.
    """
    parts = [_concept(part) for part in COMPOSITES.get(named, (named,))] if named is not None else []
    right = float(bool(parts) and all(part in holds for part in parts))
    nothing = float("nan")
    out = {"concept_accuracy": right, "concept_rank": nothing, "concept_confidence": nothing, "concept_brier": nothing}
    each: dict[str, float] = {}
    for name, value in scores.items():
        concept = _concept(name)
        if concept in CONCEPTS and np.isfinite(value):
            each[concept] = max(each.get(concept, -np.inf), float(value))
    if not each:
        return out
    best = max((each[c] for c in holds if c in each), default=None)
    out["concept_rank"] = 0.0
    if best is not None:
        values = np.array(list(each.values()))
        out["concept_rank"] = float(1 / (1 + (values > best).sum() + ((values == best).sum() - 1) / 2))
    total = sum(max(value, 0.0) for value in each.values())
    share = sum(max(each.get(part, 0.0), 0.0) for part in parts) / total if total > 0 else 1 / len(each)
    return out | {"concept_confidence": share, "concept_brier": (share - right) ** 2}


def _concept(name: str) -> str:
    """The concept that a zone counts as."""
    return next((larger for larger in within(name) if larger in CONCEPTS), name)


def concept_chance(
    records: Sequence[Record], held: Sequence[frozenset[str]], anatomy: Sequence[Anatomy | None]
) -> dict[str, np.ndarray]:
    """What a guess scores, per record; NaN where the concepts are not known.

    ``uniform`` is the mean over guesses of any concept, in closed form; ``largest`` names the concept of the largest
    area; ``prior`` the one that holds the same finding most often in other patients (else any finding; else none).
    """
    n, total = len(records), len(CONCEPTS)
    out = {name: np.full(n, np.nan) for name in CONCEPT_METRICS[4:]}
    seen: dict[tuple[str, str], set[str]] = {}  # one question counts once, whatever number of LVLMs were asked it
    counts: dict[Any, Counter[str]] = {}
    for record, holds in zip(records, held, strict=True):
        question = (record.dataset, record.image_id + "\0" + record.attribute)
        for name in holds - seen.setdefault(question, set()):
            seen[question].add(name)
            for key in _groups(record):
                counts.setdefault(key, Counter())[name] += 1
    for k, (record, holds, known) in enumerate(zip(records, held, anatomy, strict=True)):
        if not holds:
            continue
        m = len(holds)
        out["concept_accuracy_uniform"][k] = m / total
        first = [comb(total - place, m - 1) / comb(total, m) / place for place in range(1, total - m + 2)]
        out["concept_rank_uniform"][k] = sum(first)
        if known is not None and known.names:
            out["concept_accuracy_largest"][k] = known.names[int(known.shares.sum((1, 2)).argmax())] in holds
        out["concept_accuracy_prior"][k] = _usual(record, counts) in holds
    return out


def _groups(record: Record) -> tuple[Any, ...]:
    """Keys of counts: finding and all findings, of everybody and of the patient."""
    finding, patient = (record.dataset, record.attribute), (record.dataset, record.patient_id)
    return finding, (finding, patient), "all", ("all", patient)


def _usual(record: Record, counts: Mapping[Any, Counter[str]]) -> str | None:
    finding, own_finding, every, own = _groups(record)
    for group, mine in ((finding, own_finding), (every, own)):
        others = counts.get(group, Counter()) - counts.get(mine, Counter())
        if others:
            return max(CONCEPTS, key=lambda name: others[name])
    return None


def _cells(mask: np.ndarray) -> np.ndarray:
    """Mean of a mask over every cell of the image."""
    from PIL import Image

    return np.asarray(Image.fromarray(mask).resize((CELLS, CELLS), Image.Resampling.BOX), np.float32)
