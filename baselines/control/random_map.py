"""Control: smoothed noise, another one for every record."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.image_area import image_size
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["RandomMapParameters", "random_map"]


@dataclass(frozen=True)
class RandomMapParameters:
    """Parameters of ``random_map``.

    Attributes
    ----------
    sigma : float
        Width of the smoothing Gaussian as a share of the image's longer side; 0 leaves white noise.
    seed : int
        Together with the frame and the question it decides the noise.
    """

    sigma: float = 0.06
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.sigma < 1, "random_map", "sigma must be a share of the image's side, 0 to 1")


@method(
    "random_map",
    family="control",
    question_aware=False,
    parameters=RandomMapParameters,
    over="native",
    cost="0 F",
    reference="Gaussian noise, smoothed",
)
def random_map(lvlm: Lvlm, episode: Episode, parameters: RandomMapParameters) -> np.ndarray:
    """``G_sigma * e`` with ``e ~ N(0, 1)`` per pixel of the image area; neither image nor model nor question matter.

    Unsigned and blind to the question: frame and question only seed the noise, so that a record has the same map in
    every run and two records have unrelated ones.
    """
    from scipy.ndimage import gaussian_filter

    key = hashlib.sha256(f"{parameters.seed}\n{episode.question}\n".encode() + episode.frame.tobytes()).digest()
    rng = np.random.default_rng(int.from_bytes(key[:16], "big"))
    shape = image_size(episode)
    return gaussian_filter(rng.standard_normal(shape), parameters.sigma * max(shape), mode="reflect")
