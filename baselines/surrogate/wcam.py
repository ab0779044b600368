"""WCAM: Sobol indices of the image's wavelet coefficients, in space and in scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.sequence_scores import sequence_scores
from baselines.surrogate.sobol import points_within, total_indices
from medground_bench.attribution.method import Attribution, from_heatmap, method
from medground_bench.attribution.regions import tile_labels

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["WcamParameters", "haar", "inverse_haar", "spread_bands", "wcam"]

_LEVELS = 3


@dataclass(frozen=True)
class WcamParameters:
    """Parameters of ``wcam``.

    Attributes
    ----------
    cells : int
        Cells across and down the image of coefficients; a multiple of 8, so that none lies over two bands.
    points : int
        Base points of the Sobol sequence, a power of two.
    budget : int
        Most forward passes; fewer points are taken until ``points (cells^2 + 1)`` fit. 0: as many as it takes.
    seed : int
        Of the sequence's scrambling.
    """

    cells: int = 16
    points: int = 8
    budget: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.cells >= 8 and self.cells % 8 == 0, "wcam", "cells must be a multiple of 8")
        power = self.points >= 2 and self.points & (self.points - 1) == 0
        require(power, "wcam", "points must be a power of two, at least 2")


@method(
    "wcam",
    family="surrogate",
    parameters=WcamParameters,
    over="frame",
    cost="2056 F",
    reference="Kasmi et al., Assessment of the reliability of a model's decision by generalizing attribution to the "
    "wavelet domain, NeurIPS workshop 2023",
)
def wcam(lvlm: Lvlm, episode: Episode, parameters: WcamParameters) -> Attribution:
    """``sobol`` on masks of the Haar coefficients (3 levels); the bands' indices, enlarged and added up, on the frame.

    Unsigned, question-aware. ``extras["scale_profile"]`` has the indices' sum for each level, the coarsest mean first:
    does the answer rest on shape or on texture? Cells are 16 x 16, the paper's 28 x 28 at three times the passes.
    Reconstructions are cut to 0-255; the released code stretches each to the whole range, which changes its brightness.
    """
    frame = episode.frame_array
    x1, y1, x2, y2 = episode.letterbox.content
    image = frame[y1:y2, x1:x2].astype(np.float64)
    image = image if image.ndim == 2 else image.mean(-1)
    height, width = image.shape
    step = 2**_LEVELS
    padded = np.pad(image, ((0, -height % step), (0, -width % step)), mode="edge")
    coefficients = haar(padded)
    labels = tile_labels(coefficients.shape[0], coefficients.shape[1], parameters.cells, parameters.cells)

    def worth(masks: np.ndarray) -> np.ndarray:
        scores = []
        for start in range(0, len(masks), 64):
            chunk = [inverse_haar(coefficients * mask[labels])[:height, :width] for mask in masks[start : start + 64]]
            variants = np.repeat(frame[None], len(chunk), axis=0)
            grey = np.clip(np.rint(chunk), 0, 255).astype(np.uint8)
            variants[:, y1:y2, x1:x2] = grey if frame.ndim == 2 else grey[..., None]
            scores.append(sequence_scores(lvlm, episode, variants))
        return np.concatenate(scores)

    count = parameters.cells**2
    points = points_within(parameters.budget, parameters.points, count, "wcam")
    indices = total_indices(worth, count, points, parameters.seed).reshape(parameters.cells, parameters.cells)
    heat, profile = spread_bands(indices)
    out = np.zeros(frame.shape[:2])
    rows = (np.arange(height) * heat.shape[0]) // padded.shape[0]
    cols = (np.arange(width) * heat.shape[1]) // padded.shape[1]
    out[y1:y2, x1:x2] = heat[np.ix_(rows, cols)]
    return from_heatmap(out, episode, extras={"scale_profile": profile})


def haar(image: np.ndarray, levels: int = _LEVELS) -> np.ndarray:
    """Orthonormal Haar coefficients in one array like the image: coarse ones at the top left, details around them."""
    out = image.astype(np.float64).copy()
    for level in range(levels):
        h, w = (side >> level for side in image.shape)
        part = out[:h, :w]
        part = np.concatenate([part[0::2] + part[1::2], part[0::2] - part[1::2]]) / 2**0.5
        out[:h, :w] = np.concatenate([part[:, 0::2] + part[:, 1::2], part[:, 0::2] - part[:, 1::2]], 1) / 2**0.5
    return out


def inverse_haar(coefficients: np.ndarray, levels: int = _LEVELS) -> np.ndarray:
    """The image of which they are the coefficients."""
    out = coefficients.copy()
    for level in reversed(range(levels)):
        h, w = (side >> level for side in coefficients.shape)
        part = out[:h, :w]
        wide, tall = np.empty_like(part), np.empty_like(part)
        wide[:, 0::2], wide[:, 1::2] = part[:, : w // 2] + part[:, w // 2 :], part[:, : w // 2] - part[:, w // 2 :]
        tall[0::2], tall[1::2] = wide[: h // 2] + wide[h // 2 :], wide[: h // 2] - wide[h // 2 :]
        out[:h, :w] = tall / 2
    return out


def spread_bands(indices: np.ndarray, levels: int = _LEVELS) -> tuple[np.ndarray, list[float]]:
    """Indices of the coefficients' cells -> their map, at the finest band's resolution, and their sum per level.

    A cell's index is spread evenly over the places that it covers, so that nothing is counted twice.
    """
    side = len(indices)
    fine = side // 2
    heat, profile = np.zeros((fine, fine)), []
    for level in range(levels, 0, -1):
        half = side >> level
        corners = [(0, half), (half, 0), (half, half)]
        bands = [indices[y : y + half, x : x + half] for y, x in corners]
        if level == levels:
            bands.insert(0, indices[:half, :half])
            profile.append(float(bands[0].sum()))
            profile.append(float(sum(band.sum() for band in bands[1:])))
        else:
            profile.append(float(sum(band.sum() for band in bands)))
        times = fine // half
        for band in bands:
            heat += np.kron(band, np.ones((times, times))) / times**2
    return heat, profile
