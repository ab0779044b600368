"""The mean of other methods' maps, each as ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from medground_bench.attribution.method import Attribution, from_heatmap, get_method, method
from medground_bench.imaging import resize_heatmap

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["EnsembleRankParameters", "ensemble_rank", "ranks"]


@dataclass(frozen=True)
class EnsembleRankParameters:
    """Parameters of ``ensemble_rank``.

    Attributes
    ----------
    methods : str
        Registered methods, separated by commas, each with its default parameters.
    """

    methods: str = "grad_attention,relp,occlusion"

    def __post_init__(self) -> None:
        names = self.names
        require(bool(names) and "ensemble_rank" not in names, "ensemble_rank", "methods must name other methods")

    @property
    def names(self) -> list[str]:
        """The methods' names."""
        return [name.strip() for name in self.methods.split(",") if name.strip()]


@method(
    "ensemble_rank",
    family="ensemble",
    over="frame",
    parameters=EnsembleRankParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="67 F + 2 B; that of its methods",
    reference="mean rank, after Borda",
)
def ensemble_rank(lvlm: Lvlm, episode: Episode, parameters: EnsembleRankParameters) -> Attribution:
    """Mean over methods of the rank of each pixel's heat, 0 to 1, on the frame.

    Unsigned: negative heat ranks low; question-aware as its methods are. Maps that name nothing (degenerate) are left
    out and told in ``extras``; without any the map is 0.
    """
    shape = (episode.frame.height, episode.frame.width)
    total, used, dropped = np.zeros(shape), 0, []
    for name in parameters.names:
        found = get_method(name).run(lvlm, episode)
        if found.heatmap is None or found.degenerate or found.fallback:
            dropped.append(name)
            continue
        total += ranks(resize_heatmap(np.asarray(found.heatmap, np.float64), shape))
        used += 1
    return from_heatmap(total / max(used, 1), episode, extras={"left_out": dropped})


def ranks(values: np.ndarray) -> np.ndarray:
    """Each value's rank, 0 the least and 1 the greatest; equal values share the mean of their ranks."""
    from scipy.stats import rankdata

    out: np.ndarray = (rankdata(values).reshape(values.shape) - 1) / max(values.size - 1, 1)
    return out
