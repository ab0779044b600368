"""Saliency: the size of the score's gradient at every pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.frames import float_frame
from medground_bench.attribution.method import NoParameters, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["magnitude", "saliency"]


@method(
    "saliency",
    family="gradient",
    over="frame",
    needs=("white_box", "gradients"),
    cost="1 F + 1 B",
    reference="Simonyan, Vedaldi & Zisserman, ICLR workshop 2014",
)
def saliency(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> np.ndarray:
    """``max_c |ds/dx_pc|`` at every pixel of the frame, c its channels.

    Unsigned, question-aware. Per grey level of the frame: the processor's resize is part of the way. A grey
    radiograph has one channel, whose gradient is that of the model's three together.
    """
    return magnitude(lvlm.frame_gradients(episode, float_frame(episode)[None])[1][0])


def magnitude(gradient: np.ndarray) -> np.ndarray:
    """Largest size of a gradient (H, W[, 3]) over the channels, (H, W)."""
    size = np.abs(gradient)
    return size if size.ndim == 2 else size.max(-1)
