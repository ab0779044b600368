"""MSEA-style aggregation: a method's maps at several sizes of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from medground_bench.attribution.method import Attribution, from_heatmap, get_method, method
from medground_bench.imaging import Letterbox, resize_heatmap

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["MseaParameters", "msea", "unit_range"]


@dataclass(frozen=True)
class MseaParameters:
    """Parameters of ``msea``.

    Attributes
    ----------
    inner : str
        The method whose maps are aggregated.
    scales : tuple of float
        Sizes of the frame, as factors.
    arc : bool
        With ``tam``: its context is weighted by rank correlation (``tam.weights=arc``), as in the paper.
    """

    inner: str = "tam"
    scales: tuple[float, ...] = (0.75, 1.0, 1.25, 1.5)
    arc: bool = False

    def __post_init__(self) -> None:
        require(self.inner not in ("msea", "ensemble_rank"), "msea", "inner must be a method that reads the image")
        require(not self.arc or self.inner == "tam", "msea", "arc is about the context of the inner method 'tam'")
        require(bool(self.scales) and all(s > 0 for s in self.scales), "msea", "scales must be positive")


@method(
    "msea",
    family="ensemble",
    over="frame",
    parameters=MseaParameters,
    needs=("white_box", "geometry"),
    cost="4 F; 4 times that of the inner method",
    reference="Liang et al., arXiv 2509.22415",
)
def msea(lvlm: Lvlm, episode: Episode, parameters: MseaParameters) -> Attribution:
    """Mean over sizes of the image of a method's map, each scaled to 0-1, on the frame.

    Unsigned; question-aware as the inner method is. The paper's set of scales could not be found: these are ours. Its
    rank-correlation weights for TAM's context are an option (``arc``); what they compare is decided there. A family
    whose processor makes one size of every image (Gemma 3) sees blur where others see another number of tokens.
    """
    box = episode.letterbox
    if Letterbox.fit(box.width, box.height, box.frame_width) != box:
        require(parameters.scales == (1.0,), "msea", "native frames have one size: use a square frame (side)")
    inner = get_method(parameters.inner)
    options = inner.make_parameters({"weights": "arc"} if parameters.arc else None)
    total, sizes = np.zeros((box.frame_height, box.frame_width)), []
    for scale in parameters.scales:
        side = round(box.frame_width * scale)
        same = side == box.frame_width
        one = episode if same else lvlm.prepare(episode.image, episode.question, episode.response, side=side)
        heat = np.asarray(inner.run(lvlm, one, options).heatmap, np.float64)
        total += unit_range(resize_heatmap(heat, total.shape)) / len(parameters.scales)
        sizes.append(side)
    return from_heatmap(total, episode, extras={"sides": sizes, "inner": parameters.inner})


def unit_range(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 1; of a constant map 0."""
    spread = np.ptp(values)
    return (values - values.min()) / spread if spread else np.zeros_like(values)
