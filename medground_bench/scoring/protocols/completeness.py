"""Completeness: whether a signed map sums to what the whole image contributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import check_fill
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["CompletenessParameters", "completeness"]


@dataclass(frozen=True)
class CompletenessParameters:
    """Attributes: ``fill``, what the method's reference image is."""

    fill: str = "black"

    def __post_init__(self) -> None:
        check_fill(self.fill)


@protocol(
    "completeness",
    asks="Does a signed map sum to what the whole image contributes, as path methods, Shapley values and LRP promise?",
    measures=[
        Measure("residual", "|sum - (s(x) - s(reference))| / |s(x) - s(reference)|", "low", (0.0, float("inf"))),
    ],
    needs=("heatmaps", "signed", "lvlm"),
    parameters=CompletenessParameters,
    cost="2 F",
    reference="completeness (Sundararajan et al. 2017)",
)
def completeness(case: Case, parameters: CompletenessParameters) -> Mapping[str, float]:
    """The residual of the sum of the map's cells against the response's log-probability lost with the whole image."""
    probe = case.probe
    total = probe.scores(np.stack([probe.frame, probe.filled(parameters.fill)])).sum(axis=1)
    whole = total[0] - total[1]
    if abs(whole) < 1e-6:
        raise Skip("the image does not change the answer's log-probability")
    return {"residual": float(abs(case.heatmap.sum() - whole) / abs(whole))}
