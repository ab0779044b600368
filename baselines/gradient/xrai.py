"""XRAI: segments in the order of their mean integrated gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.frames import float_frame, straight_path
from medground_bench.attribution.method import Attribution, from_heatmap, method
from medground_bench.core.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["XraiParameters", "grow_regions", "grown", "xrai"]


@dataclass(frozen=True)
class XraiParameters:
    """Parameters of ``xrai``.

    Attributes
    ----------
    steps : int
        Gradients on each of the two ways, from black and from white.
    scales : tuple of float
        Of Felzenszwalb's segmentation; one over-segmentation each.
    smallest : int
        Least pixels that a segment must add.
    """

    steps: int = 20
    scales: tuple[float, ...] = (50, 100, 150, 250, 500, 1200)
    smallest: int = 50

    def __post_init__(self) -> None:
        require(self.steps >= 1, "xrai", "steps must be at least 1")


@method(
    "xrai",
    family="gradient",
    parameters=XraiParameters,
    signed=True,
    over="frame",
    needs=("white_box", "gradients", "scikit_image"),
    cost="40 (F + B)",
    reference="Kapishnikov et al., XRAI, ICCV 2019",
)
def xrai(lvlm: Lvlm, episode: Episode, parameters: XraiParameters) -> Attribution:
    """Mean attribution of the segment by which a pixel was covered, segments taken greedily, on the frame.

    Attributions are integrated gradients from a black and a white frame, averaged, the largest channel's; segments
    those of Felzenszwalb at six scales (sigma 0.8, 150 pixels at least), grown by 5 pixels. Signed, question-aware.
    20 steps each where the package ``saliency`` takes 100. Grey radiographs have few edges: ``extras["segments"]``.
    """
    try:
        from skimage.segmentation import felzenszwalb
    except ImportError as error:
        raise MissingDependencyError(
            "method 'xrai' needs scikit-image", remedy='pip install "medground-bench[methods]"'
        ) from error
    frame = float_frame(episode)
    ends = (np.zeros_like(frame), np.full_like(frame, 255.0))
    values = np.mean([straight_path(lvlm, episode, end, parameters.steps) for end in ends], axis=0)
    heat = values if values.ndim == 2 else values.max(-1)
    shown, masks = frame / 127.5 - 1, []
    for scale in parameters.scales:
        axis = -1 if frame.ndim == 3 else None
        labels = felzenszwalb(shown, scale=scale, sigma=0.8, min_size=150, channel_axis=axis)
        masks += grown(labels, 5)
    return from_heatmap(
        grow_regions(heat, masks, parameters.smallest), episode, signed=True, extras={"segments": len(masks)}
    )


def grow_regions(heat: np.ndarray, masks: Sequence[np.ndarray], smallest: int) -> np.ndarray:
    """Cover a map by masks, each time by that of the largest mean over what it would add.

    Parameters
    ----------
    heat : ndarray, (H, W)
        Attributions.
    masks : sequence of ndarray, (H, W) bool
        Segments, which may overlap.
    smallest : int
        Masks that would add fewer pixels are dropped.

    Returns
    -------
    ndarray, (H, W)
        The mean with which a pixel was covered; of pixels that no mask covers, the mean of their own.
    """
    flat, out = heat.ravel(), np.zeros(heat.size)
    covered = np.zeros(heat.size, bool)
    places = [np.flatnonzero(mask) for mask in masks]
    pixels = np.concatenate([*places, np.zeros(0, int)])  # of all masks, those that are not covered yet
    owner = np.repeat(np.arange(len(masks)), [len(place) for place in places])
    while len(pixels):
        size = np.bincount(owner, minlength=len(masks))
        means = np.bincount(owner, flat[pixels], len(masks)) / np.maximum(size, 1)
        means[size < max(smallest, 1)] = -np.inf
        best = int(np.argmax(means))
        if means[best] == -np.inf:
            break
        chosen = pixels[owner == best]
        out[chosen], covered[chosen] = means[best], True
        keep = ~covered[pixels] & (means[owner] > -np.inf)
        pixels, owner = pixels[keep], owner[keep]
    if not covered.all():
        out[~covered] = flat[~covered].mean()
    return out.reshape(heat.shape)


def grown(labels: np.ndarray, radius: int) -> list[np.ndarray]:
    """A mask (H, W) for every label from 0, with all pixels within a radius of it."""
    from scipy.ndimage import distance_transform_edt, find_objects

    out = []
    for number, (down, across) in enumerate(find_objects(labels + 1)):
        window = tuple(slice(max(side.start - radius, 0), side.stop + radius) for side in (down, across))
        mask = np.zeros(labels.shape, bool)
        mask[window] = distance_transform_edt(labels[window] != number) <= radius
        out.append(mask)
    return out
