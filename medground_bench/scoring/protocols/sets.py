"""Random sets of cells, and what the response loses without them.

The sets are the record's, not the method's: what their removal costs is asked once for all methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import check_fill

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["SetParameters", "drops", "random_sets"]


@dataclass(frozen=True)
class SetParameters:
    """Options.

    Attributes
    ----------
    fill, regions : str
        What removed cells become, and the cells.
    sets : int
        Random sets (of each size).
    sizes : tuple of int
        Cells of a set, for sensitivity-n.
    """

    fill: str = "blur"
    regions: str = "tiles:8x8"
    sets: int = 100
    sizes: tuple[int, ...] = (1, 4, 16, 32)

    def __post_init__(self) -> None:
        check_fill(self.fill)
        if self.sets < 3 or min(self.sizes, default=0) < 1:
            raise ValueError("sets must be at least 3, sizes positive")


def drops(case: Case, masks: np.ndarray, chosen: np.ndarray, fill: str) -> np.ndarray:
    """How much the response's confidence falls without each set (k, n) of cells."""
    removed = np.stack([np.logical_or.reduce(masks[row], axis=0) for row in chosen])
    probe = case.probe
    return np.asarray(probe.confidence(probe.frame[None])[0] - probe.confidence(probe.without(removed, fill)))


def random_sets(rng: np.random.Generator, count: int, size: int, cells: int) -> np.ndarray:
    """``count`` random sets of ``size`` cells, (count, cells) bool."""
    places = np.argsort(rng.random((count, cells)), axis=1)[:, :size]
    out = np.zeros((count, cells), bool)
    np.put_along_axis(out, places, True, axis=1)
    return out
