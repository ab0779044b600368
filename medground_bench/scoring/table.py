"""The records that are scored, as columns: what every score is grouped and resampled by."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.core.numbering import Numbering
from medground_bench.imaging.areas import BoxColumn, RaggedBoxes, record_areas
from medground_bench.imaging.overlap import METRICS, BoxScores
from medground_bench.scoring.agreement import common_finding, human_scores
from medground_bench.scoring.ceiling import best_concept, ceiling_scores
from medground_bench.scoring.chance import chance_scores, inside
from medground_bench.scoring.concepts import ConceptReference, concept_reference
from medground_bench.submission import must_answer

if TYPE_CHECKING:
    from medground_bench.core.schema import Candidate
    from medground_bench.dataset.columns import Record
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
    id, dataset, lvlm, mode, attribute : ndarray of object (str)
        What a record is; ``lvlm`` and ``mode`` are empty texts for candidates.
    cluster : ndarray of int
        The patient (else the image) as a number that says nothing else; the same number, the same patient.
    evidence_fraction : ndarray of float
        Evidence area divided by image area.
    size : ndarray of object (str)
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
        """Some of the records, in the order of ``index``; the table itself where these are all as they are."""
        if is_every(index, len(self)):
            return self
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
        belongs = zip(self.table.lvlm, self.table.mode, strict=True)
        answers = (must_answer(*each, lvlm, mode) for each in belongs)
        return np.flatnonzero(np.fromiter(answers, bool, len(self.table)))


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
        A config of a dataset folder; a sequence is read record by record, and none is held.
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
    if sources or localizer is not None or not isinstance(records, Sequence):
        records = list(records)
    ids: list[str] = []
    texts = {name: _Texts() for name in ("dataset", "model", "mode", "attribute")}
    patients, items, clusters, asked = Numbering(), Numbering(), array("q"), array("q")
    extents, evidence, regions = array("d"), BoxColumn(), False
    for record in records:
        ids.append(record.id)
        for name, column in texts.items():
            column.append(getattr(record, name))
        clusters.append(patients.number(f"{record.dataset}\0{record.patient_id or record.image_id}"))
        asked.append(items.number(f"{record.dataset}\0{record.image_id}\0{record.attribute}"))
        extents.extend(record.size)
        evidence.append(record.boxes)
        regions = regions or bool(record.regions)
    if not ids:
        raise ScoringError("the dataset has no records to score against", where=config or None)
    del patients, items
    sizes, cluster = np.asarray(extents).reshape(-1, 2), np.asarray(clusters)
    boxes = inside(evidence.ragged(), sizes)
    fraction = record_areas(boxes, boxes).evidence / sizes.prod(axis=1)
    table = RecordTable(
        id=np.array(ids, object),
        dataset=texts["dataset"].column(),
        lvlm=texts["model"].column(),
        mode=texts["mode"].column(),
        attribute=texts["attribute"].column(),
        cluster=cluster,
        evidence_fraction=fraction,
        size=size_tertiles(fraction),
    )
    finding = texts["dataset"].codes() * len(texts["attribute"].names()) + texts["attribute"].codes()
    chance = chance_scores(boxes, sizes, finding, cluster, items=np.asarray(asked), seed=seed)
    return Reference(
        table,
        boxes,
        sizes,
        chance,
        fingerprint,
        config,
        best_concept(list(records), boxes, sources) if sources else None,
        _second_annotator(records, sources, texts["dataset"].names()),
        concept_reference(list(records), sources, localizer) if sources or localizer or regions else None,
    )


def _second_annotator(records: Sequence[Record], sources: Sequence[Source], datasets: list[str]) -> BoxScores | None:
    """Scores of a second annotator, NaN for records that have none; None where no record has one.

    Only rows whose question rows of another dataset answer as well are held, whatever their number.
    """
    names = list(dict.fromkeys([*datasets, *(source.name for source in sources)]))
    if len(names) < 2:
        return None
    questions, several = Numbering(), bytearray()
    first: list[str] = []
    everything: Iterable[Record | Candidate] = chain(records, *sources)
    for row in everything:
        place = questions.number(_question(row))
        if place == len(first):
            first.append(row.dataset)
            several.append(False)
        several[place] |= first[place] != row.dataset
    mine = [(k, row) for k, row in enumerate(records) if several[questions.number(_question(row))]]
    others = (row for source in sources for row in source if several[questions.number(_question(row))])
    rows = [row for _, row in mine]
    # Of several annotators the first dataset's count, in the order of all rows.
    found, there = human_scores(rows, sorted(chain(rows, others), key=lambda row: names.index(row.dataset)))
    if not there.any():
        return None
    out = np.full((len(METRICS), len(records)), np.nan)
    out[:, [k for k, _ in mine]] = np.stack(found)
    return BoxScores(*out)


def _question(row: Record | Candidate) -> str:
    return f"{row.image_id}\0{common_finding(row.attribute)}"


class _Texts:
    """A column of texts of which few differ: a number each."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._codes = array("q")

    def names(self) -> list[str]:
        """Those that there are, in order of appearance."""
        return list(self._known)

    def append(self, value: str | None) -> None:
        self._codes.append(self._known.setdefault(value or "", len(self._known)))

    def codes(self) -> np.ndarray:
        return np.asarray(self._codes)

    def column(self) -> np.ndarray:
        """The texts, as references to one of each."""
        return np.array(self.names(), object)[self.codes()]


def is_every(index: np.ndarray, count: int) -> bool:
    """Whether positions are all there are, in order: a copy of so many columns can then be spared."""
    return len(index) == count and bool((index == np.arange(count)).all())


def size_tertiles(fraction: Sequence[float] | np.ndarray) -> np.ndarray:
    """``small``, ``medium`` or ``large`` by the tertiles of the evidence-area fraction."""
    fraction = np.asarray(fraction, np.float64)
    if not len(fraction):
        return np.empty(0, object)
    cuts = np.quantile(fraction, [1 / 3, 2 / 3])
    return np.array(SIZES, object)[np.searchsorted(cuts, fraction, side="left")]
