"""Smoothing: what a method's score owes to noise that a box filter takes away, at one resolution for all methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import averaged, image_tokens
from medground_bench.scoring.protocols.protocol import Measure, NoParameters, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["smoothed", "smoothing"]

WIDTHS = (1, 3, 5)


def smoothed(heat: np.ndarray, width: int) -> np.ndarray:
    """Every cell the mean of the ``width`` x ``width`` cells around it, as far as they lie in the map."""
    from scipy.ndimage import uniform_filter

    there = uniform_filter(np.ones(heat.shape), width, mode="constant")
    return np.asarray(uniform_filter(np.asarray(heat, np.float64), width, mode="constant") / there)


@protocol(
    "smoothing",
    asks="Is a map that misses the evidence only noisy: does it find the evidence when it is smoothed?",
    measures=[
        Measure("gain", "area under the precision-recall curve won by smoothing over 5 tokens", "", (-1, 1)),
        *(
            Measure(f"auprc_{k}", f"that area, smoothed over {k} image tokens", bounds=(0, 1), chance="auprc_chance")
            for k in WIDTHS
        ),
        *(Measure(f"energy_{k}", f"heat in the evidence, smoothed over {k}", bounds=(0, 1)) for k in WIDTHS),
        Measure("auprc_chance", "of a constant map", "", (0, 1)),
    ],
    needs=("heatmaps", "lvlm"),
    cost="0 F",
    reference="the smoothing of Rao, Boehle & Schiele 2022, who find that it closes most gaps between methods",
    note="smoothed over 1 token, a map is averaged over the LVLM's image tokens: maps of pixels and of tokens are at "
    "one resolution there.",
)
def smoothing(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """The submitted map on the grid of the LVLM's image tokens, then under box filters of 1, 3 and 5 tokens."""
    heat = averaged(case.heatmap, image_tokens(case))
    if not np.ptp(heat):
        raise Skip("a map that is constant over the image tokens")
    out: dict[str, float] = {}
    for width in WIDTHS:
        scores = case.judged(smoothed(heat, width))
        out |= {f"auprc_{width}": scores.auprc, f"energy_{width}": scores.energy, "auprc_chance": scores.auprc_chance}
    return {"gain": out[f"auprc_{WIDTHS[-1]}"] - out["auprc_1"], **out}
