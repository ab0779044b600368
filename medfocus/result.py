"""What concept transfer returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medground_bench.core.schema import Box

__all__ = ["DOUBTFUL", "FRAME", "Found", "Transfer"]

FRAME = 224
"""Side of the letterboxed frame that masks are stored in, pixels."""

DOUBTFUL = 0.5
"""Confidence below which a localisation should be looked at."""


@dataclass(frozen=True, eq=False)
class Found:
    """One concept on one image.

    Attributes
    ----------
    box : Box
        Native pixels, half-open.
    mask : ndarray, (FRAME, FRAME) bool
        Its pixels on the letterboxed frame; may be empty where only the box is known.
    """

    box: Box
    mask: np.ndarray


@dataclass(frozen=True, eq=False)
class Transfer:
    """All concepts of one image.

    Attributes
    ----------
    concepts : mapping of str to Found
        In the vocabulary's order.
    reference : str
        Name of the reference radiograph that said most.
    details : mapping
        Diagnostics, JSON-serialisable.
    """

    concepts: Mapping[str, Found]
    reference: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def boxes(self) -> dict[str, Box]:
        """Concept -> native box."""
        return {concept: found.box for concept, found in self.concepts.items()}

    @property
    def confidence(self) -> float:
        """0 to 1: how far the references agree on where the lungs are; NaN where one reference alone speaks.

        It tells noise from a chest. It does not foretell which of 74 radiographs, as they are and spoilt (444 images),
        fail (lungs' mean box IoU below 0.7): four do, and the references agree on them as on others (AUROC 0.54);
        ``benchmarks/localiser.py`` makes the table anew.
        """
        return float(self.details.get("confidence", float("nan")))
