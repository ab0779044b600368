"""Hallucination: how much has to be removed, along the map, until the answer turns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import check_fill, order, prefix_masks, ranked_units, units
from medground_bench.scoring.protocols.protocol import Measure, protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medground_bench.scoring.protocols.case import Case

__all__ = ["HallucinationParameters", "hallucination"]

_WITHIN = 0.1


@dataclass(frozen=True)
class HallucinationParameters:
    """Options.

    Attributes
    ----------
    fill, regions : str
        What removed units become, and the units.
    steps : int
        Points at which the LVLM is asked.
    """

    fill: str = "blur"
    regions: str = "tiles:8x8"
    steps: int = 32

    def __post_init__(self) -> None:
        check_fill(self.fill)
        if self.steps < 1:
            raise ValueError("steps must be at least 1")


@protocol(
    "hallucination",
    asks="How much of the map's hottest parts must go until the answer turns, or a wrong one is corrected?",
    measures=[
        Measure(
            "share",
            "least share of the image whose removal turns the answer; 1 where none does",
            "low",
            (0, 1),
            "share_random",
        ),
        Measure("within_10", "answers turned within a tenth of the image", "high", (0, 1)),
        Measure("share_random", "the same along a random order", "", (0, 1)),
        Measure("corrected", "the same share, of wrong answers alone", "low", (0, 1)),
        Measure("corrected_10", "wrong answers corrected within a tenth of the image", "high", (0, 1)),
    ],
    needs=("heatmaps", "lvlm"),
    parameters=HallucinationParameters,
    cost="2 x steps answers",
    reference="EAGLE (2025): average minimal correction region, correction success within 10 %",
    note="the benchmark's records are answered right: there the share says how small a region the answer hangs on.",
)
def hallucination(case: Case, parameters: HallucinationParameters) -> Mapping[str, float]:
    """Units are removed by mean heat until the answer is the opposite of the response's."""
    probe = case.probe
    masks, areas = units(case, parameters.regions)
    mine = ranked_units(case, masks, areas, case.heatmap)
    rng = case.rng("hallucination")
    found = []
    for ranked in (mine, order(rng.random(len(areas)), rng)):
        removed, counts = prefix_masks(masks, ranked, parameters.steps)
        turned = np.flatnonzero(probe.flipped(probe.without(removed[1:], parameters.fill)))
        reached = np.cumsum(areas[ranked])
        found.append(float(reached[counts[1 + turned[0]] - 1]) if len(turned) else 1.0)
    out = {"share": found[0], "share_random": found[1], "within_10": float(found[0] <= _WITHIN + 1e-9)}
    if probe.answer != case.record.answer.lower():
        out |= {"corrected": found[0], "corrected_10": out["within_10"]}
    return out
