"""Occlusion: the drop of the score when a tile is covered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.sequence_scores import sequence_scores
from medground_bench.attribution.method import method
from medground_bench.attribution.regions import region_masks

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["OcclusionParameters", "occlusion"]


@dataclass(frozen=True)
class OcclusionParameters:
    """Parameters of ``occlusion``.

    Attributes
    ----------
    rows, cols : int
        Tiles down and across the frame. 8 x 8 tiles of a 224-pixel frame measure 28 pixels.
    fill : int
        Grey value of an occluded tile, 0 to 255.
    budget : int
        Most forward passes; tiles become larger until they fit. 0: as many as it takes.
    """

    rows: int = 8
    cols: int = 8
    fill: int = 0
    budget: int = 0

    def __post_init__(self) -> None:
        require(self.rows >= 1 and self.cols >= 1, "occlusion", "rows and cols must be at least 1")
        require(0 <= self.fill <= 255, "occlusion", "fill must be a grey value, 0 to 255")
        require(self.budget == 0 or self.budget >= 2, "occlusion", "budget must be 0 or at least 2 passes")


@method(
    "occlusion",
    family="perturbation",
    parameters=OcclusionParameters,
    signed=True,
    over="frame",
    cost="65 F",
    reference="Zeiler & Fergus, ECCV 2014",
)
def occlusion(lvlm: Lvlm, episode: Episode, parameters: OcclusionParameters) -> np.ndarray:
    """Drop of the sequence score when a tile turns black: ``s(x) - s(x without tile)``, (rows, cols).

    Signed: a tile that speaks against the response has a negative value. Question-aware. The paper slides its grey
    square in small steps; tiles do not overlap.
    """
    frame, rows, cols = episode.frame_array, parameters.rows, parameters.cols
    while parameters.budget and rows * cols + 1 > parameters.budget:
        rows, cols = (rows - 1, cols) if rows >= cols else (rows, cols - 1)
    masks = region_masks(f"tiles:{rows}x{cols}", episode)
    variants = np.repeat(frame[None], len(masks) + 1, axis=0)
    variants[1:][masks] = parameters.fill
    scores = sequence_scores(lvlm, episode, variants)
    return (scores[0] - scores[1:]).reshape(rows, cols)
