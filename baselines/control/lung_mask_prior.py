"""Control: evidence lies somewhere in the lungs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.once import once
from medground_bench.attribution.method import method
from medground_bench.sources.planted.anatomy import load_localizer

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["LungMaskPriorParameters", "lung_mask_prior"]

_LUNGS = ("right lung", "left lung")
_localizer = once(load_localizer)


@dataclass(frozen=True)
class LungMaskPriorParameters:
    """Parameters of ``lung_mask_prior``.

    Attributes
    ----------
    localizer : str
        Who finds the lungs: a name of the entry-point group ``medground_bench.localizers``.
    """

    localizer: str = "multi_atlas"


@method(
    "lung_mask_prior",
    family="control",
    question_aware=False,
    parameters=LungMaskPriorParameters,
    needs=("localizer",),
    over="native",
    cost="0 F; 1 localisation",
    reference="uniform on the lungs",
)
def lung_mask_prior(lvlm: Lvlm, episode: Episode, parameters: LungMaskPriorParameters) -> np.ndarray:
    """1 on either lung and 0 elsewhere, on the native image; all 0 (degenerate) where no lung is found.

    Unsigned and blind to the question. A method that does not beat it on findings of the lungs has told the chest
    from the rest of the picture, and no more.

    Raises
    ------
    MethodError
        If no installed package brings the localiser.
    """
    found = _localizer(parameters.localizer)(np.asarray(episode.image.convert("L"))).masks
    width, height = episode.image.size
    lungs = np.zeros((height, width))
    for lung in _LUNGS:
        if lung in found:
            lungs[found[lung]] = 1.0
    return lungs
