"""Control: evidence lies where radiologists found it in other patients."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.image_area import image_size
from medground_bench.attribution.method import Attribution, from_heatmap, method
from medground_bench.sources.distributions import ANY, DISTRIBUTIONS, BoxDistribution

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["PopulationPriorParameters", "evidence_map", "measured", "population_prior"]


@dataclass(frozen=True)
class PopulationPriorParameters:
    """Parameters of ``population_prior``.

    Attributes
    ----------
    source : str
        Measured source (``nih_cxr14``, ``chestx_det``, ``rsna``); empty: whichever has most boxes of the finding.
    """

    source: str = ""

    def __post_init__(self) -> None:
        known = sorted({row.source for row in DISTRIBUTIONS})
        require(self.source in ("", *known), "population_prior", f"source must be empty or one of {', '.join(known)}")


@method(
    "population_prior",
    family="control",
    parameters=PopulationPriorParameters,
    over="native",
    cost="0 F",
    reference="mean evidence map of other patients (Wang et al. 2017; Lian et al. 2021; Shih et al. 2019)",
)
def population_prior(lvlm: Lvlm, episode: Episode, parameters: PopulationPriorParameters) -> Attribution:
    """``P(pixel in a box)`` for boxes of the finding that the question names, from the measured table of real boxes.

    Unsigned; knows the question, not the image. The strongest guess that never looks: a method that does not beat it
    has shown no localisation of this record. The boxes were drawn on up to 383 radiographs of three open sources; on
    records of these very images it has seen the answers. A finding without a row of its own gets that of all
    findings; ``extras`` name the row.
    """
    row = measured(episode.question, parameters.source)
    heat = evidence_map(row, *image_size(episode))
    return from_heatmap(heat, episode, over="native", extras={"distribution": f"{row.source}/{row.finding}"})


def measured(question: str, source: str = "") -> BoxDistribution:
    """The row of the longest measured finding that a question names, else that of all findings; of the most boxes."""
    rows = [row for row in DISTRIBUTIONS if source in ("", row.source)]
    text = question.lower()
    named = [r for r in rows if r.finding != ANY and re.search(rf"\b{re.escape(r.finding.lower())}(s|es)?\b", text)]
    if named:
        return max(named, key=lambda r: (len(r.finding), r.boxes))
    return max(rows, key=lambda r: (r.finding == ANY, r.boxes))


def evidence_map(row: BoxDistribution, height: int, width: int) -> np.ndarray:
    """Probability that a pixel of a (height, width) image lies in a box, from a row's moments.

    A box's centre is normal around ``0.5 -+ offset`` across (on the left of the image with probability
    ``row.right``) and normal down, its area one of the deciles and its aspect one of the quartiles, all independent.
    """
    from scipy.special import ndtr

    x, y = ((np.arange(n) + 0.5) / n for n in (width, height))

    def within(points: np.ndarray, centre: float, spread: float, length: float) -> np.ndarray:
        """P(|point - c| < length / 2) for a normal c."""
        above, below = ((points - centre + s * length / 2) / max(spread, 1e-6) for s in (1, -1))
        return ndtr(above) - ndtr(below)

    offset, spread = row.offset
    heat = np.zeros((height, width))
    for area in row.area:
        for aspect in row.aspect:
            wide = min(1.0, (area * aspect * height / width) ** 0.5)
            across = row.right * within(x, 0.5 - offset, spread, wide)
            across += (1 - row.right) * within(x, 0.5 + offset, spread, wide)
            heat += np.outer(within(y, *row.y, min(1.0, area / wide)), across)
    return heat / (len(row.area) * len(row.aspect))
