"""The records that are scored, as columns: what every score is grouped and resampled by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.imaging.areas import RaggedBoxes, ragged, record_areas
from medground_bench.imaging.overlap import BoxScores
from medground_bench.scoring.chance import chance_scores

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
        Their evidence, native pixels.
    sizes : ndarray, shape (n, 2)
        Width and height of their images.
    chance : mapping of str to BoxScores
        Scores of the chance rows per record.
    fingerprint, config : str
        Which dataset it is.
    """

    table: RecordTable
    boxes: RaggedBoxes
    sizes: np.ndarray
    chance: Mapping[str, BoxScores]
    fingerprint: str
    config: str

    def covered(self, lvlm: str, mode: str) -> np.ndarray:
        """Positions of the records that a submission for this LVLM and mode must answer."""
        table = self.table
        return np.flatnonzero(np.isin(table.lvlm, ["", lvlm]) & np.isin(table.mode, ["", mode]))


def load_reference(
    rows: Iterable[Mapping[str, Any]], *, fingerprint: str = "", config: str = "", seed: int = 0
) -> Reference:
    """Read a dataset's rows into a :class:`Reference` and compute its chance rows.

    Parameters
    ----------
    rows : iterable of mapping
        Rows of a dataset config without the image (``DatasetFolder.rows()``).
    seed : int
        Of the random chance row.

    Raises
    ------
    ScoringError
        If there are no rows.
    """
    rows = list(rows)
    if not rows:
        raise ScoringError("the dataset has no records to score against", where=config or None)
    boxes = ragged([row["boxes"] for row in rows], "boxes")
    sizes = np.array([(row["width"], row["height"]) for row in rows], np.float64)
    fraction = record_areas(boxes, boxes).evidence / sizes.prod(axis=1)
    clusters = [(row["dataset"], row.get("patient_id") or row["image_id"]) for row in rows]
    codes = {key: k for k, key in enumerate(dict.fromkeys(clusters))}
    table = RecordTable(
        id=_texts(rows, "id"),
        dataset=_texts(rows, "dataset"),
        lvlm=_texts(rows, "model"),
        mode=_texts(rows, "mode"),
        attribute=_texts(rows, "attribute"),
        cluster=np.array([codes[key] for key in clusters], np.int64),
        evidence_fraction=fraction,
        size=size_tertiles(fraction),
    )
    chance = chance_scores(
        boxes,
        sizes,
        [(row["dataset"], row["attribute"]) for row in rows],
        clusters,
        items=[(row["dataset"], row["image_id"], row["attribute"]) for row in rows],
        seed=seed,
    )
    return Reference(table, boxes, sizes, chance, fingerprint, config)


def size_tertiles(fraction: Sequence[float] | np.ndarray) -> np.ndarray:
    """``small``, ``medium`` or ``large`` by the tertiles of the evidence-area fraction."""
    fraction = np.asarray(fraction, np.float64)
    if not len(fraction):
        return np.empty(0, np.str_)
    cuts = np.quantile(fraction, [1 / 3, 2 / 3])
    return np.array(SIZES)[np.searchsorted(cuts, fraction, side="left")]


def _texts(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    return np.array(["" if row.get(key) is None else str(row[key]) for row in rows], np.str_)
