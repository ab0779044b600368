"""What a submission is: its two files, their keys and limits, and how a fault in them is told."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from medground_bench.core.errors import SubmissionError

__all__ = [
    "HEADER_FILE",
    "HEADER_KEYS",
    "MAX_BOXES",
    "MAX_FAULTS",
    "MAX_FRAME",
    "MAX_HEATMAP",
    "MAX_LINES",
    "MAX_VALUES",
    "PREDICTIONS_FILE",
    "REQUIRED_HEADER",
    "TIME_LIMIT",
    "Clock",
    "Fault",
    "ValidationReport",
]

HEADER_FILE = "submission.json"
PREDICTIONS_FILE = "predictions.jsonl"

REQUIRED_HEADER = ("method", "lvlm", "mode", "dataset_fingerprint")
"""Keys of ``submission.json`` without which predictions cannot be scored."""

HEADER_KEYS = (
    *REQUIRED_HEADER,
    *("lvlm_revision", "settings", "seed", "versions", "authors", "licence", "created", "cost"),
)
"""All documented keys of ``submission.json``; a missing one is a warning, but for ``cost``: a record's passes
``forward`` and ``backward`` and its ``seconds``, in the mean, where they were measured."""

ROW_KEYS = (
    "id",
    "boxes",
    "concept",
    "concept_scores",
    "tokens",
    "fallback",
    "degenerate",
    "heatmap",
    "masks",
    "extras",
    "error",
)
"""Keys of a row of ``predictions.jsonl``; others are a warning."""

MAX_BOXES = 1000
"""Greatest number of boxes of one record; of more none is looked at."""

MAX_VALUES = 50_000
"""Greatest number of token scores, and of concept scores, of one record; of more none is looked at."""

MAX_FAULTS = 1000
"""Faults, and warnings, that a report lists; of more it has the number."""

MAX_LINES = 1_000_000
"""Lines of ``predictions.jsonl``, blank ones included, where the dataset does not say how many there can be."""

MAX_HEATMAP = 4_000_000
"""Pixels of one heat map."""

MAX_FRAME = 1 << 16
"""Greatest ``settings.frame_side``."""

TIME_LIMIT = 3600.0
"""Seconds that reading one submission may take, and again scoring it."""


class Clock:
    """Ends work on a submission that takes too long.

    Parameters
    ----------
    seconds : float
        From now on.
    """

    def __init__(self, seconds: float = TIME_LIMIT) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def check(self) -> None:
        """Raise when the time is over.

        Raises
        ------
        SubmissionError
            If it is.
        """
        if time.monotonic() > self._end:
            raise SubmissionError(
                f"this submission takes more than {self.seconds:g} seconds",
                remedy="name fewer boxes and smaller heat maps",
            )


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a submission.

    Attributes
    ----------
    code : str
        Short stable name of the kind of fault, for machines.
    message : str
        What is wrong.
    remedy : str
        What to do about it.
    file : str
        File inside the submission.
    line : int or None
        Line of the file, from 1; None where the fault is not in a line (a missing id).
    id : str or None
        Record id, where it is known.
    field : str or None
        Which part of the row, e.g. ``boxes[2]``.
    """

    code: str
    message: str
    remedy: str
    file: str = PREDICTIONS_FILE
    line: int | None = None
    id: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        parts = [p for p in (place, self.id, self.field) if p]
        return f"{': '.join(parts)}: {self.message} -- {self.remedy}"


@dataclass
class ValidationReport:
    """What :func:`~medground_bench.submission.validate_submission` found.

    Attributes
    ----------
    folder : str
        The submission.
    header : mapping
        ``submission.json`` as far as it could be read.
    rows : int
        Non-blank lines of ``predictions.jsonl``.
    faults, warnings : list of Fault
        Every fault, in file order, then the missing ids; a submission with none is valid. At most :data:`MAX_FAULTS`
        are listed.
    unlisted : dict of str to int
        Code -> number of faults beyond those.
    """

    folder: str
    header: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 0
    faults: list[Fault] = field(default_factory=list)
    warnings: list[Fault] = field(default_factory=list)
    unlisted: dict[str, int] = field(default_factory=dict)

    def add(self, *faults: Fault) -> None:
        """Add faults, as many as are listed."""
        for fault in faults:
            if len(self.faults) < MAX_FAULTS:
                self.faults.append(fault)
            else:
                self.unlisted[fault.code] = self.unlisted.get(fault.code, 0) + 1

    def warn(self, *warnings: Fault) -> None:
        """Add warnings, as many as are listed."""
        self.warnings += warnings[: max(0, MAX_FAULTS - len(self.warnings))]

    @property
    def count(self) -> int:
        """How many faults there are, listed or not."""
        return len(self.faults) + sum(self.unlisted.values())

    @property
    def valid(self) -> bool:
        return not self.faults

    def counts(self) -> dict[str, int]:
        """How many faults there are of each kind."""
        out = dict(self.unlisted)
        for fault in self.faults:
            out[fault.code] = out.get(fault.code, 0) + 1
        return out

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values (``--format json``)."""
        return {
            "submission": self.folder,
            "valid": self.valid,
            "rows": self.rows,
            "counts": self.counts(),
            "unlisted": sum(self.unlisted.values()),
            "faults": [asdict(f) for f in self.faults],
            "warnings": [asdict(f) for f in self.warnings],
        }
