"""Sensitivity-n: whether the heat of a random set of n cells ranks what the response loses without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import correlation, unit_sums, units
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol
from medground_bench.scoring.protocols.sets import SetParameters, drops, random_sets

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["sensitivity_n"]


@protocol(
    "sensitivity_n",
    asks="Does the heat of a random set of cells rank what the response loses without the set?",
    measures=[
        Measure("correlation", "mean over the sizes", bounds=(-1, 1), chance=0.0),
        *(Measure(f"correlation_{n}", f"sets of {n} cells", bounds=(-1, 1), chance=0.0) for n in (1, 4, 16, 32)),
    ],
    needs=("heatmaps", "lvlm"),
    parameters=SetParameters,
    cost="sizes x sets F, shared by all methods",
    reference="sensitivity-n (Ancona et al. 2018), by Spearman's correlation",
)
def sensitivity_n(case: Case, parameters: SetParameters) -> Mapping[str, float]:
    """Spearman's correlation, over random sets of n cells, of the map's sum and the drop of confidence."""
    masks, _ = units(case, parameters.regions)
    sums = unit_sums(case, masks, case.heatmap)
    out = {}
    for size in parameters.sizes:
        if size >= len(masks):
            continue
        chosen = random_sets(case.rng(f"sets of {size}"), parameters.sets, size, len(masks))
        out[f"correlation_{size}"] = correlation(chosen @ sums, drops(case, masks, chosen, parameters.fill))
    if not out:
        raise Skip("fewer cells than a set has")
    return {"correlation": float(np.mean(list(out.values()))), **out}
