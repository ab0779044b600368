"""LiMA: EAGLE's search from both ends of the order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.search.eagle import EagleParameters, explain
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["LimaParameters", "lima"]


@dataclass(frozen=True)
class LimaParameters(EagleParameters):
    """Parameters of ``lima``: those of ``eagle``."""

    search: str = "bidirectional"


@method(
    "lima",
    family="search",
    parameters=LimaParameters,
    over="frame",
    cost="about 2600 F for 64 regions",
    reference="Chen et al., LiMA, arXiv 2504.00470",
)
def lima(lvlm: Lvlm, episode: Episode, parameters: LimaParameters) -> Attribution:
    """``eagle`` with ``search="bidirectional"``: each step also sends the least of the eight last to the end.

    Unsigned, question-aware. The released code adds the terms of ``smdl``, which need a classifier.
    """
    return explain(lvlm, episode, parameters, lambda sets: np.zeros(len(sets)))
