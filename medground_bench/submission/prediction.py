"""A row of ``predictions.jsonl`` as a typed record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medground_bench.core.schema import Box

__all__ = ["Prediction"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a method says about one record, as a submission holds it.

    Attributes
    ----------
    id : str
        Of the record.
    boxes : tuple of (x1, y1, x2, y2)
        Evidence in native pixels, half-open, best first. Empty: the method named none.
    concept : str or None
        Anatomical concept the answer rests on.
    concept_scores : mapping of str to float
        Score of every concept, larger is more important.
    tokens : tuple of float or None
        Score of every response token.
    fallback, degenerate : bool
        The whole image is reported: nothing passed the method's threshold, or the heat map was constant, zero or not
        finite.
    heatmap : str or None
        File of the heat map, inside the submission's folder.
    extras : mapping
        Anything else, JSON.
    error : str or None
        Why the method failed on this record.
    masks : tuple
        Regions as masks (see :mod:`medground_bench.submission.masks`), where the method draws them.
    """

    id: str
    boxes: tuple[Box, ...]
    concept: str | None = None
    concept_scores: Mapping[str, float] = field(default_factory=dict)
    tokens: tuple[float, ...] | None = None
    fallback: bool = False
    degenerate: bool = False
    heatmap: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    masks: tuple[Any, ...] = ()

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Prediction:
        """From a valid row of the file; a null counts as absent and unknown keys are left aside."""
        tokens = row.get("tokens")
        return cls(
            id=row["id"],
            boxes=tuple((float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in row["boxes"]),
            concept=row.get("concept"),
            concept_scores=row.get("concept_scores") or {},
            tokens=None if tokens is None else tuple(float(score) for score in tokens),
            fallback=bool(row.get("fallback")),
            degenerate=bool(row.get("degenerate")),
            heatmap=row.get("heatmap"),
            extras=row.get("extras") or {},
            error=row.get("error"),
            masks=tuple(row.get("masks") or ()),
        )

    def to_row(self) -> dict[str, Any]:
        """As the file has it: what was not said is left out."""
        row: dict[str, Any] = {"id": self.id, "boxes": [list(box) for box in self.boxes]}
        if self.concept is not None:
            row["concept"] = self.concept
        if self.concept_scores:
            row["concept_scores"] = dict(self.concept_scores)
        if self.tokens is not None:
            row["tokens"] = list(self.tokens)
        row["fallback"], row["degenerate"] = self.fallback, self.degenerate
        if self.extras:
            row["extras"] = dict(self.extras)
        if self.heatmap is not None:
            row["heatmap"] = self.heatmap
        if self.masks:
            row["masks"] = list(self.masks)
        if self.error is not None:
            row["error"] = self.error
        return row
