"""Control: what is bright is important."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.shared.image_area import image_area
from medground_bench.attribution.method import NoParameters, method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["intensity"]


@method(
    "intensity",
    family="control",
    question_aware=False,
    over="native",
    cost="0 F",
    reference="the image itself",
)
def intensity(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> np.ndarray:
    """Grey level of every pixel of the image area: dense tissue, devices and burnt-in letters.

    Unsigned and blind to the question. What a product of gradient and input resembles when the gradient says little.
    """
    return image_area(episode)
