"""iGOS+: one mask that deletes and inserts the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.igos import IgosParameters, MaskProblem, descend
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["igos_plus"]


@method(
    "igos_plus",
    family="mask",
    parameters=IgosParameters,
    over="frame",
    needs=("white_box", "gradients"),
    cost="100 (F + B) + 2 F",
    reference="Khorram, Lawson & Fuxin, iGOS++, CHIL 2021; Xing et al., arXiv 2503.13891",
)
def igos_plus(lvlm: Lvlm, episode: Episode, parameters: IgosParameters) -> Attribution:
    """``1 - argmin_m S(x, b, m) - S(b, x, m) + penalties``, S the mean score on the way from b to the masked image.

    The mask keeps the image in the first term and hides it in the second. Unsigned, question-aware; on a 32 x 32 grid
    over the frame. The values are those of the LVLM code's README, from which its own defaults differ in six of eight.
    The mask's variation, where the image is smooth, is a mean over its cells, in the paper a sum; released codes take
    means, too, of half of it over the frame's pixels and of half of the plain one.
    """
    problem = MaskProblem(lvlm, episode, parameters)

    def gradient(masks: list[np.ndarray], iteration: int) -> list[np.ndarray]:
        (mask,) = masks
        return [problem.both(mask) + problem.penalty(mask, iteration)]

    start = np.ones((parameters.size, parameters.size))
    (mask,) = descend(gradient, [start], parameters.rate, parameters.iterations)
    return from_heatmap(1 - mask, episode, token_scores=problem.weights)
