"""Guided integrated gradients: the pixels with the smallest gradients move first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.frames import completeness, float_frame, on_frame
from medground_bench.attribution.fills import FILLS, fill_frame
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    from collections.abc import Callable

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["GuidedIgParameters", "guided_ig", "guided_path"]


@dataclass(frozen=True)
class GuidedIgParameters:
    """Parameters of ``guided_ig``.

    Attributes
    ----------
    baseline : str
        Where the path begins: ``black``, ``mean`` or ``blur``.
    steps : int
        Gradients along the path.
    fraction : float
        How many values move at once, as a share of all values.
    band : float
        How far a value may run ahead of the straight path or fall behind it, as a share of the path; 0 is the straight
        path itself.
    """

    baseline: str = "black"
    steps: int = 200
    fraction: float = 0.25
    band: float = 0.02

    def __post_init__(self) -> None:
        require(self.baseline in FILLS, "guided_ig", f"baseline must be one of {', '.join(FILLS)}")
        require(self.steps >= 1, "guided_ig", "steps must be at least 1")
        require(0 < self.fraction <= 1, "guided_ig", "fraction must be in (0, 1]")
        require(0 <= self.band <= 1, "guided_ig", "band must be in [0, 1]")


@method(
    "guided_ig",
    family="gradient",
    parameters=GuidedIgParameters,
    signed=True,
    over="frame",
    needs=("white_box", "gradients"),
    cost="200 (F + B) + 2 F",
    reference="Kapishnikov et al., Guided integrated gradients, CVPR 2021",
)
def guided_ig(lvlm: Lvlm, episode: Episode, parameters: GuidedIgParameters) -> Attribution:
    """Path integral of the gradient over a path on which values of small gradient go ahead, on the frame.

    Signed, question-aware; adds up to ``s(x) - s(baseline)`` but for the steps' size (``extras["residual"]``). Values
    are grey levels, a channel each. Equal to the package ``saliency`` 0.2.1, which does not run with NumPy 2.4.
    """

    def gradient(x: np.ndarray) -> np.ndarray:
        return lvlm.frame_gradients(episode, x[None])[1][0]

    frame = float_frame(episode)
    start = fill_frame(parameters.baseline, episode).astype(np.float64)
    p = parameters
    total = guided_path(gradient, start, frame, steps=p.steps, fraction=p.fraction, band=p.band)
    return from_heatmap(on_frame(total), episode, signed=True, extras=completeness(lvlm, episode, [start], total))


def guided_path(
    gradient: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    end: np.ndarray,
    *,
    steps: int,
    fraction: float,
    band: float,
) -> np.ndarray:
    """Attributions along the guided path, like ``end``.

    After step t the L1 distance to the end is ``1 - t / steps`` of the whole. A step brings values that lag behind the
    band to its lower edge, then moves the unfinished ones with the smallest gradients, ``fraction`` of all values at a
    time, to its upper edge, the last of them only as far as the distance asks.
    """
    way = end - start
    whole = np.abs(way).sum()
    x, total = start.copy(), np.zeros_like(end)
    for t in range(1, steps + 1):
        slope = gradient(x)
        before = x.copy()
        low = start + max(t / steps - band, 0.0) * way
        high = start + min(t / steps + band, 1.0) * way
        behind = np.abs(end - x) > np.abs(end - low)
        x[behind] = low[behind]
        target = whole * (1 - t / steps)
        unfinished = x != high
        while (excess := np.abs(end - x).sum() - target) > 1e-9 * max(whole, 1e-12) and unfinished.any():
            sizes = np.sort(np.abs(slope[unfinished]))
            limit = sizes[min(int(fraction * (slope.size - 1)), len(sizes) - 1)]
            moving = unfinished & (np.abs(slope) <= limit)
            gain = np.abs(high - x)[moving].sum()
            share = min(1.0, excess / gain) if gain > 0 else 1.0
            x[moving] = high[moving] if share == 1.0 else (x + share * (high - x))[moving]
            if share < 1.0:
                break
            unfinished &= ~moving
        total += (x - before) * slope
    return total
