"""VPS: EAGLE's search over a hundred superpixels, with the response's own probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.search.eagle import EagleParameters, explain
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["VpsParameters", "vps"]


@dataclass(frozen=True)
class VpsParameters(EagleParameters):
    """Parameters of ``vps``: those of ``eagle``."""

    regions: str = "slic:100"
    score: str = "pbar"


@method(
    "vps",
    family="search",
    parameters=VpsParameters,
    over="frame",
    cost="about 3900 F for 100 regions",
    reference="Chen et al., Interpreting object-level foundation models via visual precision search, CVPR 2025",
)
def vps(lvlm: Lvlm, episode: Episode, parameters: VpsParameters) -> Attribution:
    """``eagle`` over 100 superpixels with the geometric mean probability.

    Unsigned, question-aware. The paper's clue and collaboration scores are a detector's (IoU times class score); a
    response has its probability, with which they are EAGLE's two terms.
    """
    return explain(lvlm, episode, parameters, lambda sets: np.zeros(len(sets)))
