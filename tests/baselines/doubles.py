"""Scorers with a known answer, in place of an LVLM: only what the perturbation methods use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from medground_bench.imaging import Letterbox
from medground_bench.lvlm.episode import Episode, ResponseToken
from medground_bench.lvlm.grid import TokenGrid


def plain_episode(width: int = 224, height: int = 224, *, side: int | None = 224, seed: int = 0) -> Episode:
    """An episode without tensors: a random grey image of no dark pixels, letterboxed."""
    pixels = np.random.default_rng(seed).integers(100, 256, (height, width), dtype=np.uint8)
    image = Image.fromarray(pixels)
    box = Letterbox.identity(width, height) if side is None else Letterbox.fit(width, height, side)
    frame = box.apply(image).convert("RGB")
    return Episode(
        image=image,
        frame=frame,
        letterbox=box,
        question="Is there evidence of x in the image?",
        response="Yes",
        inputs={},
        tokens=(ResponseToken(0, "Y"), ResponseToken(1, "es")),
        rows=(0, 1),
        image_positions=(),
        geometry=TokenGrid(8, 8, frame.size),
    )


class Scorer:
    """Stands for an LVLM whose two response tokens share the score of a function of the frame."""

    key = "scorer"

    def __init__(self, score: Callable[[np.ndarray], float]) -> None:
        self.score, self.images = score, 0

    def log_probs(self, episode: Any, images: np.ndarray, **_: Any) -> np.ndarray:
        self.images += len(images)
        s = np.array([self.score(np.asarray(image, np.float64)) for image in images])
        return np.stack([0.25 * s, 0.75 * s], axis=1)


def cell_of(image: np.ndarray, row: int, col: int, cells: int = 8) -> np.ndarray:
    """The pixels of one cell of a grid over the image."""
    h, w = image.shape[:2]
    return image[row * h // cells : (row + 1) * h // cells, col * w // cells : (col + 1) * w // cells]
