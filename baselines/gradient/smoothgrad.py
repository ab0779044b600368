"""SmoothGrad: the mean gradient of noisy copies of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.gradient.saliency import magnitude
from baselines.shared.checks import require
from baselines.shared.frames import float_frame
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["SmoothgradParameters", "smoothgrad"]


@dataclass(frozen=True)
class SmoothgradParameters:
    """Parameters of ``smoothgrad``.

    Attributes
    ----------
    samples : int
        Noisy copies.
    noise : float
        Standard deviation of the noise as a share of the frame's range of grey levels.
    squared : bool
        The mean of squares (SmoothGrad^2) in place of the mean.
    seed : int
        Of the noise.
    """

    samples: int = 25
    noise: float = 0.15
    squared: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.samples >= 1, "smoothgrad", "samples must be at least 1")
        require(self.noise >= 0, "smoothgrad", "noise cannot be negative")


@method(
    "smoothgrad",
    family="gradient",
    parameters=SmoothgradParameters,
    over="frame",
    needs=("white_box", "gradients"),
    cost="25 (F + B)",
    reference="Smilkov et al., arXiv 1706.03825",
)
def smoothgrad(lvlm: Lvlm, episode: Episode, parameters: SmoothgradParameters) -> np.ndarray:
    """``max_c |mean_k ds/dx(x + e_k)|`` with ``e_k ~ N(0, (noise range)^2)``, the same in all channels, on the frame.

    Unsigned, question-aware. Noise is added in float and nothing is cut off at black or white.
    """
    frame = float_frame(episode)
    rng = np.random.default_rng(parameters.seed)
    spread = parameters.noise * np.ptp(frame)
    total = np.zeros_like(frame)
    for _ in range(parameters.samples):
        noise = spread * rng.standard_normal(frame.shape[:2])
        noisy = frame + (noise if frame.ndim == 2 else noise[..., None])
        _, (gradient,) = lvlm.frame_gradients(episode, noisy[None])
        total += gradient**2 if parameters.squared else gradient
    return magnitude(total / parameters.samples)
