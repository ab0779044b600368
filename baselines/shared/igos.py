"""Integrated-gradient optimised masks: what iGOS+ and iGOS++ share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.chosen_tokens import TOKENS, chosen_tokens
from baselines.shared.frames import float_frame, on_frame
from medground_bench.attribution.fills import FILLS, fill_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["IgosParameters", "MaskProblem", "descend", "enlargement"]


@dataclass(frozen=True)
class IgosParameters:
    """Parameters of ``igos_plus`` and ``igos_pp``.

    Attributes
    ----------
    fill : str
        What shows where the mask is 0.
    size : int
        Cells of the mask across and down.
    points : int
        Points of the integrated gradient.
    iterations : int
    rate : float
        Step size.
    l1, l2, l3 : float
        Weights of the mask's area, of its squared area (which fades by ``exp(-gamma)`` an iteration), of its variation.
    gamma : float
    noise : float
        Standard deviation of noise on the frames, in grey levels (the LVLM code adds 0.2 of normalised pixels, some 14
        grey levels of Qwen's; without it the mask is the same in every run).
    tokens : {"keywords", "all", "answer"}
        Tokens whose log-probabilities count: those that the blurred frame costs more than 1 nat (without any, the one
        whose probability falls most), all, or the verdict.
    seed : int
        Of the noise.
    """

    fill: str = "blur"
    size: int = 32
    points: int = 10
    iterations: int = 5
    rate: float = 10.0
    l1: float = 1.0
    l2: float = 0.1
    l3: float = 10.0
    gamma: float = 1.0
    noise: float = 0.0
    tokens: str = "keywords"
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.fill in FILLS, "igos", f"fill must be one of {', '.join(FILLS)}")
        require(min(self.size, self.points, self.iterations) >= 1, "igos", "size, points, iterations are at least 1")
        require(self.tokens in TOKENS, "igos", f"tokens must be one of {', '.join(TOKENS)}")


class MaskProblem:
    """Gradients of the interval scores and penalties with respect to a mask (g, g), 1 where the image is kept."""

    def __init__(self, lvlm: Lvlm, episode: Episode, parameters: IgosParameters) -> None:
        self._lvlm, self._episode, self._parameters = lvlm, episode, parameters
        self.frame = float_frame(episode)
        self.fill = fill_frame(parameters.fill, episode).astype(np.float64)
        self._rng = np.random.default_rng(parameters.seed)
        height, width = self.frame.shape[:2]
        self._down, self._across = enlargement(height, parameters.size), enlargement(width, parameters.size)
        small = self._down.T @ (self.frame if self.frame.ndim == 2 else self.frame.mean(-1)) @ self._across
        self._small = small / (self._down.sum(0)[:, None] * self._across.sum(0)) / 255
        self.weights: np.ndarray | None = None
        if parameters.tokens != "all":
            self.weights = np.zeros(len(episode.tokens))
            self.weights[chosen_tokens(lvlm, episode, parameters.tokens)] = 1

    def interval(self, first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Gradient, (g, g), of ``mean_j s(a t_j + b (1 - t_j))`` with ``t_j = (j / n) up(mask)`` and j = 1 ... n."""
        shown = self._down @ mask @ self._across.T
        shown = shown if self.frame.ndim == 2 else shown[..., None]
        shares = np.arange(1, self._parameters.points + 1) / self._parameters.points
        frames = np.stack([second + share * shown * (first - second) for share in shares])
        if self._parameters.noise:
            frames += self._rng.normal(0, self._parameters.noise, frames.shape)
        _, gradients = self._lvlm.frame_gradients(self._episode, frames, self.weights)
        pull = on_frame((first - second) * np.tensordot(shares, gradients, axes=1) / len(shares))
        out: np.ndarray = self._down.T @ pull @ self._across
        return out

    def both(self, mask: np.ndarray) -> np.ndarray:
        """Deletion less insertion: gradient of ``S(x, b, m) - S(b, x, m)``, to be minimised."""
        return self.deletion(mask) - self.insertion(mask)

    def deletion(self, mask: np.ndarray) -> np.ndarray:
        """Of the score with the image where the mask is high."""
        return self.interval(self.frame, self.fill, mask)

    def insertion(self, mask: np.ndarray) -> np.ndarray:
        """Of the score with the image where the mask is low."""
        return self.interval(self.fill, self.frame, mask)

    def penalty(self, mask: np.ndarray, iteration: int) -> np.ndarray:
        """Gradient of the penalties."""
        p = self._parameters
        fading = 2 * p.l2 * np.exp(-p.gamma * iteration)
        out = -p.l1 / mask.size - fading * (1 - mask)
        for axis in (0, 1):
            step = np.diff(mask, axis=axis)
            pull = 2 * p.l3 / mask.size * step * np.exp(-((np.diff(self._small, axis=axis) / 0.01) ** 2))
            before, after = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
            before[axis], after[axis] = (1, 0), (0, 1)
            out = out + np.pad(pull, before) - np.pad(pull, after)
        return out


def descend(
    gradient: Callable[[list[np.ndarray], int], Sequence[np.ndarray]], masks: list[np.ndarray], rate: float, count: int
) -> list[np.ndarray]:
    """Nesterov's method with momentum ``i / (i + 5)``, masks cut to [0, 1] after each step."""
    ahead = [mask.copy() for mask in masks]
    for i in range(count):
        slopes = gradient(ahead, i)
        moved = [np.clip(mask - rate * slope, 0, 1) for mask, slope in zip(ahead, slopes, strict=True)]
        share = (i + 1) / (i + 6)
        ahead = [np.clip(new + share * (new - old), 0, 1) for new, old in zip(moved, masks, strict=True)]
        masks = moved
    return masks


def enlargement(length: int, cells: int) -> np.ndarray:
    """(length, cells) bilinear weights: the values of ``length`` pixels from those of ``cells`` cells."""
    centres = np.clip((np.arange(length) + 0.5) * cells / length - 0.5, 0, cells - 1)
    return np.clip(1 - np.abs(centres[:, None] - np.arange(cells)), 0, None)
