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
        """0 to 1: how far the references agree on the lungs, times the share of their lungs that finds its like there.

        NaN of the preset ``paper``, where one reference alone speaks. It tells failures (lungs' mean box IoU below 0.7)
        from other radiographs, as they are and spoilt, with AUROC 0.875 [0.642, 1.000] (18 fail of 1332); below 0.75 it
        is 0.861, below 0.8 it is 0.834. Of 19 that are below :data:`DOUBTFUL` 11 fail, of the 1313 others 7
        (``benchmarks/localiser.py``, 16 real references).
        """
        return float(self.details.get("confidence", float("nan")))
