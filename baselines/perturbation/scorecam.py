"""Score-CAM: channels of a hidden state, each worth what the LVLM says to the image seen through it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.cam import LAST, cam_map, image_states
from baselines.shared.checks import require
from baselines.shared.sequence_scores import sequence_scores
from medground_bench.attribution.fills import FILLS, compose, fill_frame
from medground_bench.attribution.method import Attribution, method
from medground_bench.imaging import resize_heatmap

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["ScorecamParameters", "channel_masks", "score_weights", "scorecam"]

_CHUNK = 64  # frames held at a time


@dataclass(frozen=True)
class ScorecamParameters:
    """Parameters of ``scorecam``.

    Attributes
    ----------
    channels : int
        Channels of the hidden state that are tried, those that vary most over the image tokens. The paper tries all:
        a decoder has thousands.
    layer : int
        Hidden state: 0 is what enters the first decoder layer, l what leaves layer l - 1, negative counts from the end.
        The default is what enters the last layer.
    fill : str
        What shows where a channel's mask is 0.
    budget : int
        Most forward passes, of which two are for the states and for the filled frame: no more channels than are left.
        0: as many as ``channels`` says.
    """

    channels: int = 64
    layer: int = LAST
    fill: str = "black"
    budget: int = 0

    def __post_init__(self) -> None:
        require(self.channels >= 2, "scorecam", "channels must be at least 2")
        require(self.fill in FILLS, "scorecam", f"fill must be one of {', '.join(FILLS)}")
        require(self.budget == 0 or self.budget >= 4, "scorecam", "budget must be 0 or at least 4 passes")


@method(
    "scorecam",
    family="perturbation",
    parameters=ScorecamParameters,
    needs=("white_box", "geometry"),
    cost="66 F",
    reference="Wang et al., Score-CAM, CVPR workshop 2020",
)
def scorecam(lvlm: Lvlm, episode: Episode, parameters: ScorecamParameters) -> Attribution:
    """``sum_k a_k M_k``, a the softmax over channels k of the score of the frame where it shows through M_k.

    M_k is channel k of a hidden state at the image tokens, scaled to 0-1, and enlarged bilinearly for the frame.
    Unsigned, question-aware through the scores. The softmax of log-probabilities makes a_k the response's probability,
    as a share of those of all channels. The paper adds up the channels themselves: they have come out of a ReLU there,
    and share a zero and a unit, which a decoder's do not. Where no mask changes the filled
    frame's score the map is 0, not the mean of the channels.
    """
    most = min(parameters.channels, parameters.budget - 2) if parameters.budget else parameters.channels
    layer, states = image_states(lvlm, episode, parameters.layer)
    masks = channel_masks(states, most)
    weights = score_weights(lvlm, episode, masks, parameters.fill)
    return cam_map(episode, masks @ weights, layer, weights=weights)


def channel_masks(states: np.ndarray, most: int) -> np.ndarray:
    """The channels of (P, D) states that vary most, in falling order, each scaled to 0-1: (P, K).

    A channel that does not vary is no mask.
    """
    order = np.argsort(-states.var(axis=0), kind="stable")[:most]
    chosen = states[:, order[np.ptp(states[:, order], axis=0) > 0]]
    masks: np.ndarray = (chosen - chosen.min(axis=0)) / np.ptp(chosen, axis=0)
    return masks


def score_weights(lvlm: Lvlm, episode: Episode, masks: np.ndarray, fill: str) -> np.ndarray:
    """Softmax over K masks on the image tokens, (P, K), of the score of the frame seen through each, (K,).

    All 0 where each has the score of the filled frame.
    """
    frame, filled = episode.frame_array, fill_frame(fill, episode)
    scores = [sequence_scores(lvlm, episode, filled[None])]
    for start in range(0, masks.shape[1], _CHUNK):
        shown = [resize_heatmap(episode.grid.as_map(mask), frame.shape[:2]) for mask in masks.T[start : start + _CHUNK]]
        scores.append(sequence_scores(lvlm, episode, compose(frame, 1 - np.clip(shown, 0, 1), filled)))
    gained = np.concatenate(scores[1:] or [np.zeros(0)]) - scores[0]
    if not gained.any():
        return np.zeros(masks.shape[1])
    raised: np.ndarray = np.exp(gained - gained.max())
    return raised / raised.sum()
