"""CEM: the effect of a region, by exchange with the same place of normal radiographs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.frames import reference_frames
from baselines.shared.sequence_scores import sequence_scores
from medground_bench.attribution.method import method
from medground_bench.attribution.regions import region_labels

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["CemParameters", "cem"]


@dataclass(frozen=True)
class CemParameters:
    """Parameters of ``cem``.

    Attributes
    ----------
    references : str
        As for :func:`~baselines.shared.frames.reference_frames`: a folder of normal radiographs of other patients.
    donors : int
        Radiographs that every region is exchanged with.
    regions : str
        Partition of the frame.
    budget : int
        Most forward passes: fewer donors are taken until ``donors x regions + 1`` fit. 0: as many as it takes.
    seed : int
        Chooses the donors.
    """

    references: str = "phantom"
    donors: int = 10
    regions: str = "tiles:8x8"
    budget: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.donors >= 1, "cem", "donors must be at least 1")
        require(self.budget >= 0, "cem", "budget cannot be negative")


@method(
    "cem",
    family="intervention",
    parameters=CemParameters,
    signed=True,
    needs=("references",),
    over="frame",
    cost="641 F",
    reference="Hu et al., Interpreting low-level vision models with causal effect maps, 2024",
)
def cem(lvlm: Lvlm, episode: Episode, parameters: CemParameters) -> np.ndarray:
    """``mean_d s(x) - s(x with the region from donor d)`` for every region, on the frame.

    Signed, question-aware. Donors are stretched to the image's area, not registered: a rib may not meet its
    continuation. On a linear score it is ``expected_gradients``. The released code, for super-resolution, adapts the
    number of donors.
    """
    labels, frame = region_labels(parameters.regions, episode), episode.frame_array
    count = int(labels.max()) + 1
    donors = parameters.donors
    if parameters.budget:
        donors = max(1, min(donors, (parameters.budget - 1) // count))
    pool = np.rint(reference_frames(parameters.references, episode, donors, parameters.seed)).astype(np.uint8)
    (base,) = sequence_scores(lvlm, episode, frame[None])
    drops = np.zeros(count)
    for donor in pool:
        masks = labels == np.arange(count)[:, None, None]
        variants = np.where(masks[..., None] if frame.ndim == 3 else masks, donor, frame)
        drops += (base - sequence_scores(lvlm, episode, variants)) / len(pool)
    return np.append(drops, 0.0)[labels]
