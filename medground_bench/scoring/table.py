"""The records that are scored, as columns: what every score is grouped and resampled by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.imaging.areas import RaggedBoxes, ragged, record_areas
from medground_bench.scoring.agreement import human_scores
from medground_bench.scoring.ceiling import best_concept, ceiling_scores
from medground_bench.scoring.chance import chance_scores, inside
from medground_bench.scoring.concepts import ConceptReference, concept_reference
from medground_bench.submission import must_answer

if TYPE_CHECKING:
    from medground_bench.dataset.columns import Record
    from medground_bench.imaging.overlap import BoxScores
    from medground_bench.sources import Source
    from medground_bench.sources.planted.anatomy import Localizer

__all__ = ["SIZES", "RecordTable", "Reference", "load_reference", "size_tertiles"]

SIZES = ("small", "medium", "large")
"""Evidence-size tertiles, by the share of the image that is evidence."""


@dataclass(frozen=True)
class RecordTable:
    """Columns of records, each of length n.

    Attributes
    ----------
    id, dataset, lvlm, mode, attribute : ndarray of str
        What a record is; ``lvlm`` and ``mode`` are empty texts for candidates.
    cluster : ndarray of int
        The patient (else the image) as a number that says nothing else; the same number, the same patient.
    evidence_fraction : ndarray of float
        Evidence area divided by image area.
    size : ndarray of str
        Tertile of ``evidence_fraction`` over the whole dataset, one of :data:`SIZES`.
    """

    id: np.ndarray
    dataset: np.ndarray
    lvlm: np.ndarray
    mode: np.ndarray
    attribute: np.ndarray
    cluster: np.ndarray
    evidence_fraction: np.ndarray
    size: np.ndarray

    def __len__(self) -> int:
        return len(self.id)

    def take(self, index: np.ndarray) -> RecordTable:
        """Some of the records, in the order of ``index``."""
        return RecordTable(**{name: getattr(self, name)[index] for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Reference:
    """Everything about a dataset config that predictions are scored against.

    Attributes
    ----------
    table : RecordTable
        Its records.
    boxes : RaggedBoxes
        Their evidence, native pixels, cut to the images: methods and chance rows are scored against the same.
    sizes : ndarray, shape (n, 2)
        Width and height of their images.
    chance : mapping of str to BoxScores
        Scores of the chance rows per record.
    fingerprint, config : str
        Which dataset it is.
    concepts, second : BoxScores or None
        Scores of the best anatomical concept and of a second annotator, NaN for records that have none; None where no
        record has one.
    anatomy : ConceptReference or None
        The concepts that hold the evidence; None where nothing is known of them.
    """

    table: RecordTable
    boxes: RaggedBoxes
    sizes: np.ndarray
    chance: Mapping[str, BoxScores]
    fingerprint: str
    config: str
    concepts: BoxScores | None = None
    second: BoxScores | None = None
    anatomy: ConceptReference | None = None
    _ceilings: dict[tuple[tuple[int, int] | None, int | None], BoxScores] = field(default_factory=dict, repr=False)

    def ceiling(self, grid: tuple[int, int] | None, side: int | None) -> BoxScores:
        """Scores of the evidence told in cells (see :func:`~medground_bench.scoring.ceiling.ceiling_scores`)."""
        if (grid, side) not in self._ceilings:
            self._ceilings[grid, side] = ceiling_scores(self.boxes, self.sizes, grid, side=side)
        return self._ceilings[grid, side]

    def covered(self, lvlm: str, mode: str) -> np.ndarray:
        """Positions of the records that a submission for this LVLM and mode must answer."""
        belongs = zip(self.table.lvlm.tolist(), self.table.mode.tolist(), strict=True)
        return np.flatnonzero([must_answer(*each, lvlm, mode) for each in belongs])


def load_reference(
    records: Iterable[Record],
    *,
    fingerprint: str = "",
    config: str = "",
    seed: int = 0,
    sources: Sequence[Source] = (),
    localizer: Localizer | None = None,
) -> Reference:
    """Read a dataset's records into a :class:`Reference` and compute its chance rows.

    Parameters
    ----------
    records : iterable of Record
        A config of a dataset folder.
    seed : int
        Of the random chance row.
    sources : sequence of Source
        What else is known of the images: phantoms tell their anatomical concepts, other sources of the same images are
        second annotators (see :func:`~medground_bench.scoring.agreement.human_scores`), as are the dataset's own
        records of other sources.
    localizer : callable, optional
        Finds the concepts on the images of which no source tells them.

    Raises
    ------
    ScoringError
        If there are no records.
    """
    records = list(records)
    if not records:
        raise ScoringError("the dataset has no records to score against", where=config or None)
    sizes = np.array([r.size for r in records], np.float64)
    boxes = inside(ragged([r.boxes for r in records], "boxes"), sizes)
    fraction = record_areas(boxes, boxes).evidence / sizes.prod(axis=1)
    clusters = [(r.dataset, r.patient_id or r.image_id) for r in records]
    codes = {key: k for k, key in enumerate(dict.fromkeys(clusters))}
    table = RecordTable(
        id=_texts([r.id for r in records]),
        dataset=_texts([r.dataset for r in records]),
        lvlm=_texts([r.model for r in records]),
        mode=_texts([r.mode for r in records]),
        attribute=_texts([r.attribute for r in records]),
        cluster=np.array([codes[key] for key in clusters], np.int64),
        evidence_fraction=fraction,
        size=size_tertiles(fraction),
    )
    second, there = human_scores(records, chain(records, *sources))
    chance = chance_scores(
        boxes,
        sizes,
        [(r.dataset, r.attribute) for r in records],
        clusters,
        items=[(r.dataset, r.image_id, r.attribute) for r in records],
        seed=seed,
    )
    return Reference(
        table,
        boxes,
        sizes,
        chance,
        fingerprint,
        config,
        best_concept(records, boxes, sources) if sources else None,
        second if there.any() else None,
        concept_reference(records, sources, localizer),
    )


def size_tertiles(fraction: Sequence[float] | np.ndarray) -> np.ndarray:
    """``small``, ``medium`` or ``large`` by the tertiles of the evidence-area fraction."""
    fraction = np.asarray(fraction, np.float64)
    if not len(fraction):
        return np.empty(0, np.str_)
    cuts = np.quantile(fraction, [1 / 3, 2 / 3])
    return np.array(SIZES)[np.searchsorted(cuts, fraction, side="left")]


def _texts(values: Sequence[str | None]) -> np.ndarray:
    return np.array([value or "" for value in values], np.str_)
