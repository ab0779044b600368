"""Eigen-CAM: the first principal component of the image tokens' states, whatever is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.cam import LAST, cam_map, image_states
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["EigencamParameters", "eigencam", "first_component"]


@dataclass(frozen=True)
class EigencamParameters:
    """Parameters of ``eigencam``.

    Attributes
    ----------
    layer : int
        Hidden state: 0 is what enters the first decoder layer, l what leaves layer l - 1, negative counts from the end.
        The default is what enters the last layer.
    centred : bool
        Take the mean over the image tokens off first, as released code does. The paper does not: of channels that come
        out of a ReLU the first component then shows where they are active, of a decoder's what all tokens share (mean
        IoU 0.00 on thirty phantom records of each toy, 0.10 and 0.22 with it).
    """

    layer: int = LAST
    centred: bool = True


@method(
    "eigencam",
    family="activation",
    parameters=EigencamParameters,
    needs=("white_box", "geometry"),
    cost="1 F",
    reference="Muhammad & Yeasin, Eigen-CAM, IJCNN 2020",
    question_aware=False,
)
def eigencam(lvlm: Lvlm, episode: Episode, parameters: EigencamParameters) -> Attribution:
    """``ReLU(H v_1)``, v_1 the first right singular vector of the image tokens' hidden states H (P, D).

    Unsigned and blind to the question, so a control: no target enters, and under causal attention the image's states
    have not seen the question that follows them. What marks the evidence no better than it marks what the image varies
    in most. A singular vector has no sign of its own: here the token that lies farthest out is positive (released code
    takes what the library gives). ``extras["share"]`` is the component's share of the variance.
    """
    layer, states = image_states(lvlm, episode, parameters.layer)
    values, share = first_component(states, parameters.centred)
    return cam_map(episode, values, layer, share=share)


def first_component(states: np.ndarray, centred: bool) -> tuple[np.ndarray, float]:
    """What (P, D) states have of their first component, (P,), the largest of them positive, and its share of squares.

    Constant states, which have no component, give 0.
    """
    given = states - states.mean(axis=0) if centred else states
    if np.abs(given).max() <= 1e-12 * np.abs(states).max():
        return np.zeros(len(given)), 0.0
    left, sizes, _ = np.linalg.svd(given, full_matrices=False)
    values = left[:, 0] * sizes[0]
    farthest = values[int(np.argmax(np.abs(values)))]
    return values * np.sign(farthest), float(sizes[0] ** 2 / (sizes**2).sum())
