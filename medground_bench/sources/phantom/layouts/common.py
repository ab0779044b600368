"""What the layouts share: the facts of a drawn phantom, and made-up ids."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medground_bench.core.schema import Box, Candidate

__all__ = ["MANIFEST", "Drawn", "Planted", "Row", "Written", "digest", "jitter", "sorted_groups"]

MANIFEST = "phantom.json"
"""File beside a written source that says from which seed each image was drawn."""


@dataclass(frozen=True)
class Planted:
    """A finding of a drawn phantom, without its mask."""

    attribute: str
    side: str | None
    location: str
    concept: str
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Drawn:
    """One phantom whose image has been written: all that the annotation files need.

    Attributes
    ----------
    number : int
        Position in the set.
    seed : int
        What it was drawn from.
    image_id, patient : str
        Its names in the source.
    file : str
        Path of the image below the source's root.
    width, height : int
        Pixels.
    findings : tuple of Planted
        What it carries.
    anatomy : dict of str to Box
        Boxes of anatomical regions, where the layout asks for them.
    marker : str or None
        The corner of its marker.
    contrast : float
        What of their attenuation its findings have.
    """

    number: int
    seed: int
    image_id: str
    patient: str
    file: str
    width: int
    height: int
    findings: tuple[Planted, ...]
    anatomy: dict[str, Box] = field(default_factory=dict)
    marker: str | None = None
    contrast: float = 1.0


class Written:
    """The candidates a layout's annotation files stand for, collected while they are written.

    ``sized`` says that the annotation files state the size of every image.
    """

    def __init__(self, dataset: str, root: Path, sized: bool = False) -> None:
        self.dataset = dataset
        self.root = root
        self.sized = sized
        self.candidates: list[Candidate] = []
        self.planted: dict[tuple[str, str], list[str]] = {}
        self._seen: Counter[tuple[str, str]] = Counter()

    def add(
        self,
        drawn: Drawn,
        attribute: str,
        boxes: tuple[Box, ...],
        planted: tuple[str, ...],
        regions: tuple[str, ...] = (),
    ) -> None:
        """Add the next candidate; ``planted`` are the phantom's findings behind the attribute."""
        key = (drawn.image_id, attribute)
        self._seen[key] += 1
        candidate = Candidate(
            index=len(self.candidates),
            dataset=self.dataset,
            image_id=drawn.image_id,
            patient_id=drawn.patient,
            attribute=attribute,
            boxes=boxes,
            image_path=self.root / drawn.file,
            size=(drawn.width, drawn.height) if self.sized else None,
            regions=regions,
        )
        self.candidates.append(replace(candidate, ordinal=self._seen[key]))
        self.planted.setdefault(key, []).extend(planted)

    def add_group(self, attribute: str, group: Sequence[Row]) -> None:
        """Add the candidate that a group of rows stands for."""
        boxes, planted = tuple(row.box for row in group), tuple(row.attribute for row in group)
        self.add(group[0].drawn, attribute, boxes, planted, tuple(row.region for row in group if row.region))


@dataclass(frozen=True)
class Row:
    """A row of an annotation table: its source's key, its fields, and the box and region it stands for."""

    key: tuple[Any, ...]
    fields: list[str]
    box: Box
    drawn: Drawn
    attribute: str
    region: str = ""


def sorted_groups(rows: Iterable[Row]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """Rows grouped by key, groups sorted, rows of a group in file order: how the table-shaped sources enumerate."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(row.key, []).append(row)
    return sorted(groups.items())


def digest(*parts: object) -> str:
    """32 hexadecimal digits that look like an id and sort in no order of ours."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:32]


def jitter(drawn: Drawn) -> np.random.Generator:
    """Random stream for the harmless irregularities in a phantom's annotations."""
    return np.random.default_rng([drawn.seed, 2])
