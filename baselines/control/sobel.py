"""Control: an edge detector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.image_area import image_area
from medground_bench.attribution.method import NoParameters, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["sobel"]


@method(
    "sobel",
    family="control",
    question_aware=False,
    over="native",
    cost="0 F",
    reference="Adebayo et al., NeurIPS 2018 (edge detector)",
)
def sobel(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> np.ndarray:
    """``sqrt(Sx^2 + Sy^2)`` of the image area's grey levels; the letterbox's border is no edge.

    Unsigned and blind to the question. Maps that look like it may owe their looks to the image's edges alone.
    """
    from scipy.ndimage import sobel as derivative

    grey = image_area(episode)
    return np.hypot(derivative(grey, axis=0, mode="nearest"), derivative(grey, axis=1, mode="nearest"))
