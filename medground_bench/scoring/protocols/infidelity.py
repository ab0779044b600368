"""Infidelity: how much of what random squares cost the map fails to explain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import unit_sums, units
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol
from medground_bench.scoring.protocols.sets import SetParameters, drops

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["infidelity"]


@protocol(
    "infidelity",
    asks="How much of the drop that random squares cause does the map fail to explain?",
    measures=[Measure("infidelity", "share of the mean squared drop left unexplained", "low", (0.0, 1.0), chance=1.0)],
    needs=("heatmaps", "lvlm"),
    parameters=SetParameters,
    cost="sets F, shared by all methods",
    reference="infidelity (Yeh et al. 2019) with the optimal scale, relative to the map that is 0",
)
def infidelity(case: Case, parameters: SetParameters) -> Mapping[str, float]:
    """``E[(b I.A - d)^2] / E[d^2]`` over random squares I, d the drop of confidence and b the scale that fits best.

    A map that is right up to its scale has 0, one that knows nothing about 1 (as the map that is 0 everywhere).
    """
    masks, _ = units(case, parameters.regions)
    sums = unit_sums(case, masks, case.heatmap)
    rng = case.rng("squares")
    centres = np.array([np.argwhere(mask).mean(axis=0) for mask in masks])
    extent = np.array(case.probe.frame.shape[:2])
    reach = rng.uniform(1 / 16, 1 / 4, (parameters.sets, 1, 1)) * extent
    away = np.abs(centres - rng.random((parameters.sets, 1, 2)) * extent)
    chosen = (away <= reach).all(axis=2)
    chosen = chosen[chosen.any(axis=1)]
    drop = drops(case, masks, chosen, parameters.fill)
    told = chosen @ sums
    power = float((drop**2).mean())
    if power < 1e-10:
        raise Skip("no random square changes the answer's confidence")
    peak = np.abs(told).max()
    if peak == 0:
        return {"infidelity": 1.0}
    told = told / peak
    scale = (told @ drop) / (told @ told)
    return {"infidelity": float(((scale * told - drop) ** 2).mean() / power)}
