"""Blur integrated gradients: the path from a blurred image to the sharp one."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter

from baselines.shared.checks import require
from baselines.shared.frames import completeness, float_frame, on_frame
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["BlurIgParameters", "blur_ig", "blurred"]


@dataclass(frozen=True)
class BlurIgParameters:
    """Parameters of ``blur_ig``.

    Attributes
    ----------
    sigma : float
        Strongest blur, in pixels of the frame.
    steps : int
        Gradients along the path.
    """

    sigma: float = 50.0
    steps: int = 100

    def __post_init__(self) -> None:
        require(self.sigma > 0, "blur_ig", "sigma must be positive")
        require(self.steps >= 1, "blur_ig", "steps must be at least 1")


@method(
    "blur_ig",
    family="gradient",
    parameters=BlurIgParameters,
    signed=True,
    over="frame",
    needs=("white_box", "gradients"),
    cost="100 (F + B) + 2 F",
    reference="Xu, Venugopalan & Sundararajan, Attribution in scale and space, CVPR 2020",
)
def blur_ig(lvlm: Lvlm, episode: Episode, parameters: BlurIgParameters) -> Attribution:
    """``sum_j (x(sigma_j+1) - x(sigma_j)) ds/dx(x(sigma_j+1/2))`` with sigma from 50 pixels to 0, on the frame.

    Signed, question-aware; adds up to ``s(x) - s(x(50))`` but for the steps' size (``extras["residual"]``), and has no
    black baseline. The letterbox's bars are not blurred. The package ``saliency`` takes a derivative at the near end of
    each step, and in batches multiplies every gradient with the last step's difference.
    """
    frame, content = float_frame(episode), episode.letterbox.content
    sigmas = np.linspace(parameters.sigma, 0.0, parameters.steps + 1)
    total, start = np.zeros_like(frame), blurred(frame, content, parameters.sigma)
    here = start
    for first, second in itertools.pairwise(sigmas):
        there = blurred(frame, content, second)
        _, (gradient,) = lvlm.frame_gradients(episode, blurred(frame, content, (first + second) / 2)[None])
        total += (there - here) * gradient
        here = there
    return from_heatmap(on_frame(total), episode, signed=True, extras=completeness(lvlm, episode, [start], total))


def blurred(frame: np.ndarray, content: tuple[int, int, int, int], sigma: float) -> np.ndarray:
    """The frame with its image area blurred, mirrored beyond it."""
    x1, y1, x2, y2 = content
    out = frame.copy()
    if sigma > 0:
        out[y1:y2, x1:x2] = gaussian_filter(out[y1:y2, x1:x2], (sigma, sigma, 0)[: frame.ndim], mode="reflect")
    return out
