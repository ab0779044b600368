"""Methods that only perturb the frame and score the response: occlusion and RISE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.checks import require
from baselines.masks import random_masks, tile_masks
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["OcclusionParameters", "RiseParameters", "occlusion", "rise"]


@dataclass(frozen=True)
class OcclusionParameters:
    """Parameters of ``occlusion``.

    Attributes
    ----------
    rows, cols : int
        Tiles down and across the frame. 8 x 8 tiles of a 224-pixel frame measure 28 pixels.
    fill : int
        Grey value of an occluded tile, 0 to 255.
    """

    rows: int = 8
    cols: int = 8
    fill: int = 0

    def __post_init__(self) -> None:
        require(self.rows >= 1 and self.cols >= 1, "occlusion", "rows and cols must be at least 1")
        require(0 <= self.fill <= 255, "occlusion", "fill must be a grey value, 0 to 255")


@method(
    "occlusion",
    family="perturbation",
    parameters=OcclusionParameters,
    cost="65 F",
    reference="Zeiler & Fergus, ECCV 2014",
)
def occlusion(lvlm: Lvlm, episode: Episode, parameters: OcclusionParameters) -> np.ndarray:
    """Drop of the sequence score when a tile turns black: ``s(x) - s(x without tile)``, (rows, cols).

    A tile that speaks against the response has a negative value.
    """
    frame = episode.frame_array
    masks = tile_masks(frame.shape[0], frame.shape[1], parameters.rows, parameters.cols)
    variants = np.repeat(frame[None], len(masks) + 1, axis=0)
    variants[1:][masks] = parameters.fill
    scores = sequence_scores(lvlm, episode, variants)
    return (scores[0] - scores[1:]).reshape(parameters.rows, parameters.cols)


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
    """

    masks: int = 256
    cells: int = 8
    keep: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.masks >= 2, "rise", "masks must be at least 2")
        require(self.cells >= 1, "rise", "cells must be at least 1")
        require(0 < self.keep < 1, "rise", "keep must be a probability between 0 and 1")


_CHUNK = 64  # masks held at a time: 64 float masks of 224 x 224 pixels are 13 MB


@method(
    "rise",
    family="perturbation",
    parameters=RiseParameters,
    cost="256 F",
    reference="Petsiuk, Das & Saenko, BMVC 2018",
)
def rise(lvlm: Lvlm, episode: Episode, parameters: RiseParameters) -> np.ndarray:
    """Mean score of the masked images in which a pixel is visible: ``sum_i s_i M_i / sum_i M_i``, (height, width).

    The division by the mask mass of each pixel (not by its expectation, as in the paper) removes the imprint of
    pixels that happened to be visible more often. Scores enter relative to their median, which shifts the map by
    a constant only, and makes the map of a constant scorer exactly constant.
    """
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


def sequence_scores(lvlm: Lvlm, episode: Episode, variants: np.ndarray) -> np.ndarray:
    """Sequence score s of every variant of the frame, (N,) float64: the sum of its tokens' log-probabilities."""
    return np.asarray(lvlm.log_probs(episode, variants), np.float64).sum(axis=1)
