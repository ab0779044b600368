"""Localization heads: the few attention heads that ground text in the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.head_choice import chosen_heads
from baselines.shared.head_criteria import prompt_attention
from baselines.shared.localization_heads import image_key
from medground_bench.attribution.method import Attribution, from_heatmap, method
from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["LocalizationHeadsParameters", "localization_heads"]


@dataclass(frozen=True)
class LocalizationHeadsParameters:
    """Parameters of ``localization_heads``.

    Attributes
    ----------
    calibration : str
        What the heads are chosen on: ``phantom``, questions about procedural radiographs that no set contains; a
        dataset folder with records of patients that are not evaluated; or a file of
        :meth:`baselines.shared.localization_heads.Calibration.save`.
    records : int
        Most of them (500 to 1,000 in the paper).
    heads : int
        How many of them are summed.
    sigma : float
        Width of the smoothing Gaussian in token cells; 0 leaves the sum as it is.
    """

    calibration: str = "phantom"
    records: int = 100
    heads: int = 3
    sigma: float = 1.0

    def __post_init__(self) -> None:
        require(self.heads >= 1 and self.records >= 1, "localization_heads", "heads and records must be at least 1")
        require(self.sigma >= 0, "localization_heads", "sigma cannot be negative")


@method(
    "localization_heads",
    family="attention",
    over="frame",
    parameters=LocalizationHeadsParameters,
    needs=("white_box", "geometry", "calibration"),
    cost="1 F, and 100 F once",
    reference="Kang et al., CVPR 2025",
)
def localization_heads(lvlm: Lvlm, episode: Episode, parameters: LocalizationHeadsParameters) -> Attribution:
    """``G_sigma * sum_k a_k``, a_k the attention of the k-th head from the prompt's last position, on the token grid.

    The heads look at the image (attention to it beyond the elbow of all heads) and at one place of it (least spatial
    entropy) most often over the calibration's records. Unsigned, question-aware. The paper's code compares a head's
    index with the elbow's index where the text compares attention.

    Raises
    ------
    MethodError
        With a calibration of another LVLM, or on an image that it was made from.
    """
    found = chosen_heads(lvlm, parameters.calibration, parameters.records)
    if image_key(episode) in found.images:
        raise MethodError("the record's image is one of the calibration's", where=parameters.calibration)
    from scipy.ndimage import gaussian_filter

    attention = prompt_attention(lvlm, episode)
    chosen = found.heads[: parameters.heads]
    heat = np.sum([attention[layer, head] for layer, head in chosen], axis=0)
    return from_heatmap(gaussian_filter(heat, parameters.sigma), episode, extras={"heads": [list(h) for h in chosen]})
