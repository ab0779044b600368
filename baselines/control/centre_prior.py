"""Control: evidence lies in the middle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.image_area import image_size
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["CentrePriorParameters", "centre_prior"]


@dataclass(frozen=True)
class CentrePriorParameters:
    """Parameters of ``centre_prior``.

    Attributes
    ----------
    sigma : float
        Standard deviation as a share of the image's width and height.
    """

    sigma: float = 0.25

    def __post_init__(self) -> None:
        require(self.sigma > 0, "centre_prior", "sigma must be positive")


@method(
    "centre_prior",
    family="control",
    question_aware=False,
    parameters=CentrePriorParameters,
    over="native",
    cost="0 F",
    reference="Judd et al., ICCV 2009 (their baseline of the centre)",
)
def centre_prior(lvlm: Lvlm, episode: Episode, parameters: CentrePriorParameters) -> np.ndarray:
    """``exp(-((x - 1/2)^2 + (y - 1/2)^2) / (2 sigma^2))``, x and y from 0 to 1 over the image area, not the frame.

    Unsigned and blind to the question; the same for every image of one size. (The chance row of that name is the best
    single centred box; this is the map, sent through the protocol that every map goes through.)
    """
    rows, columns = (
        np.exp(-0.5 * (((np.arange(n) + 0.5) / n - 0.5) / parameters.sigma) ** 2) for n in image_size(episode)
    )
    return np.outer(rows, columns)
