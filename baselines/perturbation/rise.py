"""RISE: the mean score of randomly masked images in which a pixel is visible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.masks import random_masks
from baselines.shared.sequence_scores import sequence_scores
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["RiseParameters", "rise"]

_CHUNK = 64  # masks held at a time: 64 float masks of 224 x 224 pixels are 13 MB


@dataclass(frozen=True)
class RiseParameters:
    """Parameters of ``rise``.

    Attributes
    ----------
    masks : int
        Random masks. The paper uses 4,000 and more; 256 rank 64 cells reliably (the standard error of a cell is
        then 1/8 of the scores' spread) at a cost that six LVLMs and thousands of records can bear.
    cells : int
        Cells of the low-resolution grid, across and down.
    keep : float
        Probability that a cell stays visible.
    seed : int
        Seed of the masks. Every record gets the same masks.
    budget : int
        Most forward passes: no more masks than that. 0: as many as ``masks`` says.
    """

    masks: int = 256
    cells: int = 8
    keep: float = 0.5
    seed: int = 0
    budget: int = 0

    def __post_init__(self) -> None:
        require(self.masks >= 2, "rise", "masks must be at least 2")
        require(self.cells >= 1, "rise", "cells must be at least 1")
        require(self.budget == 0 or self.budget >= 2, "rise", "budget must be 0 or at least 2 passes")
        require(0 < self.keep < 1, "rise", "keep must be a probability between 0 and 1")


@method(
    "rise",
    family="perturbation",
    over="frame",
    parameters=RiseParameters,
    cost="256 F",
    reference="Petsiuk, Das & Saenko, BMVC 2018",
)
def rise(lvlm: Lvlm, episode: Episode, parameters: RiseParameters) -> np.ndarray:
    """Mean score of the masked images in which a pixel is visible: ``sum_i s_i M_i / sum_i M_i``, (height, width).

    Unsigned, question-aware. The division by the mask mass of each pixel (not by its expectation, as in the paper)
    removes the imprint of pixels that happened to be visible more often. Scores enter relative to their median, which
    shifts the map by a constant only, and makes the map of a constant scorer exactly constant.
    """
    if parameters.budget:
        parameters = replace(parameters, masks=min(parameters.masks, parameters.budget), budget=0)
    frame = episode.frame_array
    height, width = frame.shape[:2]
    rng = np.random.default_rng(parameters.seed)
    state = rng.bit_generator.state
    scores = np.empty(parameters.masks)
    for chunk, masks in _mask_chunks(rng, parameters, height, width):
        visible = masks if frame.ndim == 2 else masks[..., None]
        scores[chunk] = sequence_scores(lvlm, episode, np.round(frame * visible).astype(np.uint8))
    scores -= np.median(scores)

    rng.bit_generator.state = state  # the same masks again: cheaper than holding them all
    weighted, mass = np.zeros((height, width)), np.zeros((height, width))
    for chunk, masks in _mask_chunks(rng, parameters, height, width):
        weighted += np.tensordot(scores[chunk], masks.astype(np.float64), axes=1)
        mass += masks.sum(axis=0, dtype=np.float64)
    return weighted / np.maximum(mass, np.finfo(float).tiny)


def _mask_chunks(
    rng: np.random.Generator, parameters: RiseParameters, height: int, width: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Places and masks, a chunk at a time."""
    for start in range(0, parameters.masks, _CHUNK):
        chunk = slice(start, min(start + _CHUNK, parameters.masks))
        count = chunk.stop - chunk.start
        yield chunk, random_masks(rng, count, height, width, cells=parameters.cells, keep=parameters.keep)
