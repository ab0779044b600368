"""iGOS++: a mask that deletes and one that inserts, optimised together with their product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.igos import IgosParameters, MaskProblem, descend
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["igos_pp"]


@method(
    "igos_pp",
    family="mask",
    parameters=IgosParameters,
    over="frame",
    needs=("white_box", "gradients"),
    cost="200 (F + B) + 2 F",
    reference="Khorram, Lawson & Fuxin, iGOS++, CHIL 2021; Xing et al., arXiv 2503.13891",
)
def igos_pp(lvlm: Lvlm, episode: Episode, parameters: IgosParameters) -> Attribution:
    """``1 - m_d m_i`` where m_d deletes, m_i inserts, and their product does both.

    The sum of ``S(x, b, m_d) - S(b, x, m_i) + S(x, b, m_d m_i) - S(b, x, m_d m_i)`` and each mask's penalties is
    minimised. Unsigned, question-aware; on a 32 x 32 grid over the frame. EAGLE's port gives all four terms the same
    orientation, so that its insertion never inserts. The masks' variation is a mean over their cells, as in
    ``igos_plus``; in the paper it is a sum.
    """
    problem = MaskProblem(lvlm, episode, parameters)

    def gradient(masks: list[np.ndarray], iteration: int) -> list[np.ndarray]:
        deletes, inserts = masks
        shared = problem.both(deletes * inserts)
        return [
            problem.deletion(deletes) + shared * inserts + problem.penalty(deletes, iteration),
            shared * deletes - problem.insertion(inserts) + problem.penalty(inserts, iteration),
        ]

    start = np.ones((parameters.size, parameters.size))
    deletes, inserts = descend(gradient, [start, start.copy()], parameters.rate, parameters.iterations)
    return from_heatmap(1 - deletes * inserts, episode, token_scores=problem.weights)
