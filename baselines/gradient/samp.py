"""SAMP: integrated gradients along two greedy paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.frames import completeness, float_frame, on_frame
from medground_bench.attribution.fills import fill_frame
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    from collections.abc import Callable

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["SampParameters", "greedy_path", "samp"]


@dataclass(frozen=True)
class SampParameters:
    """Parameters of ``samp``.

    Attributes
    ----------
    steps : int
        Steps of each path: one goes at most this fraction of the whole way.
    fraction : float
        Share of the pixels that a step may move; 0 is one in ``steps``, 1 the straight path.
    momentum : float
        Weight of a step's own gradient against those before it, in the choice of pixels.
    """

    steps: int = 64
    fraction: float = 0.0
    momentum: float = 0.5

    def __post_init__(self) -> None:
        require(self.steps >= 1, "samp", "steps must be at least 1")
        require(0 <= self.fraction <= 1, "samp", "fraction must be a share of the pixels, 0 to 1")
        require(0 < self.momentum <= 1, "samp", "momentum must be in (0, 1]")


@method(
    "samp",
    family="gradient",
    parameters=SampParameters,
    signed=True,
    over="frame",
    needs=("white_box", "gradients"),
    cost="130 (F + B) + 3 F; more where limited steps leave pixels on the way",
    reference="Zhang et al., Path choice matters for clear attribution, ICLR 2024",
)
def samp(lvlm: Lvlm, episode: Episode, parameters: SampParameters) -> Attribution:
    """Contributions along a path that lowers the score fastest (x to black) and one that raises it (blur to x).

    Signed, question-aware; on the frame. Each path's part adds up to its change of the score but for the steps' size
    (``extras["residual"]`` is that of both). No official code exists; the step's limits are as in the paper's
    infinitesimal constraint. The code of LiMA's authors starts from a weaker blur (5 pixels) and scales each part.
    """

    def gradient(x: np.ndarray) -> np.ndarray:
        return lvlm.frame_gradients(episode, x[None])[1][0]

    frame = float_frame(episode)
    black, blur = (fill_frame(name, episode).astype(np.float64) for name in ("black", "blur"))
    p = parameters
    gone = greedy_path(gradient, frame, black, p.steps, p.momentum, rising=False, fraction=p.fraction)
    come = greedy_path(gradient, blur, frame, p.steps, p.momentum, rising=True, fraction=p.fraction)
    extras = completeness(lvlm, episode, [black, blur], come - gone)
    return from_heatmap(on_frame(come - gone), episode, signed=True, extras=extras)


def greedy_path(
    gradient: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    end: np.ndarray,
    steps: int,
    momentum: float,
    *,
    rising: bool,
    fraction: float = 0.0,
) -> np.ndarray:
    """Contributions of the values to the change of the score on the way, like ``start``.

    A step moves the ``fraction`` (0: ``1 / steps``) of the pixels whose move promises the largest rise (or fall) by
    first order, at most by ``1 / steps`` of the whole L1 distance; what is left after twice as many steps goes at once.
    """
    whole = np.abs(end - start).sum()
    x, total, smooth = start.copy(), np.zeros_like(start), np.zeros_like(start)
    move = np.zeros_like(start)
    pixels = on_frame(start).size
    most = int(np.ceil(fraction * pixels)) or -(-pixels // steps)
    for step in range(2 * steps):
        slope = gradient(x)
        total += move * slope / 2  # a step's slope is the mean of those at its ends
        if not (x != end).any():
            return total
        smooth = slope if step == 0 else momentum * slope + (1 - momentum) * smooth
        promise = on_frame(smooth * (end - x)) * (1 if rising else -1)
        open_pixels = on_frame(np.abs(end - x)) > 0
        count = min(int(open_pixels.sum()), most)
        order = np.argsort(np.where(open_pixels, -promise, np.inf).ravel(), kind="stable")[:count]
        moving = np.zeros(promise.size, bool)
        moving[order] = True
        chosen = moving.reshape(promise.shape) if step < 2 * steps - 1 else open_pixels
        move = np.where(chosen if x.ndim == 2 else chosen[..., None], end - x, 0.0)
        length = np.abs(move).sum()
        if step < 2 * steps - 1 and length > whole / steps:
            move *= whole / steps / length
        total += move * slope / 2
        arrived = np.abs(x + move - end) < 1e-9
        x = np.where(arrived, end, x + move)
    return total + move * gradient(x) / 2
