"""The game of regions: players are parts of the frame, a coalition's worth is the score of what it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medground_bench.attribution.fills import compose, fill_frame
from medground_bench.attribution.regions import region_labels
from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["SCORES", "RegionGame"]

SCORES = ("log", "pmean", "pbar")
"""``log``: sum of the tokens' log-probabilities; ``pmean``, ``pbar``: arithmetic, geometric mean of probabilities."""

_CHUNK = 64  # frames held at a time


class RegionGame:
    """Scores of the frame with some regions kept and the others filled. No coalition is scored twice.

    Parameters
    ----------
    lvlm, episode
        The model and what it reads.
    regions : str or ndarray
        A specification of :func:`~medground_bench.attribution.regions.region_labels`, or labels (H, W); pixels of
        label -1 are no player and always kept.
    fill : str
        What takes the place of a region: a name of :data:`~medground_bench.attribution.fills.FILLS`.
    score : str
        One of :data:`SCORES`.
    chosen : sequence of int, optional
        Numbers of the response's tokens that count; default all.

    Attributes
    ----------
    labels : ndarray, (H, W) int
    count : int
        Players.
    """

    def __init__(
        self,
        lvlm: Lvlm,
        episode: Episode,
        regions: str | np.ndarray,
        fill: str = "black",
        score: str = "log",
        chosen: Sequence[int] | None = None,
    ) -> None:
        self._lvlm, self._episode, self._score = lvlm, episode, score
        self._chosen = slice(None) if chosen is None else list(chosen)
        self.labels = region_labels(regions, episode) if isinstance(regions, str) else regions
        self.count = int(self.labels.max()) + 1
        self._frame, self._fill = episode.frame_array, fill_frame(fill, episode)
        self._seen: dict[bytes, np.ndarray] = {}

    def tokens(self, kept: np.ndarray) -> np.ndarray:
        """Log-probabilities of the response's tokens, (N, T) float64, for coalitions.

        Parameters
        ----------
        kept : ndarray, (N, count)
            bool, or float in [0, 1]: how much of each region is left.
        """
        kept = np.asarray(kept)
        if kept.ndim != 2 or kept.shape[1] != self.count:
            raise MethodError(f"coalitions of shape {kept.shape}", expected=f"(N, {self.count})")
        keys = [row.tobytes() for row in kept]
        new = [k for k, key in enumerate(keys) if key not in self._seen]
        new = list({keys[k]: k for k in new}.values())
        for start in range(0, len(new), _CHUNK):
            part = new[start : start + _CHUNK]
            scores = np.asarray(self._lvlm.log_probs(self._episode, self.frames(kept[part])), np.float64)
            self._seen.update({keys[k]: row for k, row in zip(part, scores, strict=True)})
        return np.stack([self._seen[key] for key in keys])

    def values(self, kept: np.ndarray) -> np.ndarray:
        """Worth of coalitions, (N,) float64."""
        tokens = self.tokens(kept)[:, self._chosen]
        if self._score == "log":
            return tokens.sum(1)
        return np.exp(tokens.mean(1)) if self._score == "pbar" else np.exp(tokens).mean(1)

    def frames(self, kept: np.ndarray) -> np.ndarray:
        """The frames of coalitions, (N, H, W[, 3]) uint8."""
        gone = np.concatenate([~kept if kept.dtype == bool else 1.0 - kept, np.zeros((len(kept), 1), kept.dtype)], 1)
        return compose(self._frame, gone[:, self.labels], self._fill)  # label -1 takes the last column

    def heat(self, values: np.ndarray) -> np.ndarray:
        """Values of the players as a map over the frame, (H, W) float64; 0 where there is none."""
        return np.append(np.asarray(values, float), 0.0)[self.labels]
