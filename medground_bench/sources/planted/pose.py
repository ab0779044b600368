"""A canvas in another pose: turned and cropped, as another film of the same chest would be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Pose", "draw_pose", "posed"]

_TURN = 8.0  # degrees, either way
_LEAST = 0.7  # of the largest window with that turn


@dataclass(frozen=True)
class Pose:
    """The window of a radiograph that a posed canvas shows; it lies inside it, so that no pixel is made up.

    Attributes
    ----------
    turn : float
        Degrees by which the window is turned clockwise against the image, as one sees it.
    side : float
        Its sides as a share of the image's.
    centre : tuple of float
        Its centre (x, y) as a share of the image's sides.
    """

    turn: float
    side: float
    centre: tuple[float, float]


def draw_pose(rng: np.random.Generator, width: int, height: int) -> Pose:
    """A turn of up to 8 degrees, 0.7 to 1 times the largest window that fits with it, anywhere it fits."""
    turn = float(rng.uniform(-_TURN, _TURN))
    c, s = float(np.cos(np.radians(turn))), float(np.sin(np.radians(abs(turn))))
    across, down = c + s * height / width, c + s * width / height  # what a window of side 1 spans, of the image's sides
    side = float(rng.uniform(_LEAST, 1.0)) / max(across, down)
    x, y = (float(rng.uniform(side * span / 2, 1 - side * span / 2)) for span in (across, down))
    return Pose(turn, side, (x, y))


def posed(pixels: NDArray[np.uint8], pose: Pose) -> NDArray[np.uint8]:
    """The window at the image's own size, uint8, (H, W)."""
    height, width = pixels.shape
    c, s = pose.side * np.cos(np.radians(pose.turn)), pose.side * np.sin(np.radians(pose.turn))
    x, y = pose.centre[0] * width, pose.centre[1] * height
    # Where the window's pixel (u, v) lies in the image: centre + side * rotation by turn * ((u, v) - half of the size).
    place = (c, -s, x - c * width / 2 + s * height / 2, s, c, y - s * width / 2 - c * height / 2)
    image = Image.fromarray(pixels).transform((width, height), Image.Transform.AFFINE, place, Image.Resampling.BICUBIC)
    return np.asarray(image)
