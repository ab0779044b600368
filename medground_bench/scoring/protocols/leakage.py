"""Label leakage: whether the shape of a map gives its answer away, whatever is in the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.attribution.fills import FILLS, compose
from medground_bench.scoring.protocols.maps import order, unit_sums, units
from medground_bench.scoring.protocols.protocol import Measure, protocol
from medground_bench.scoring.protocols.target import opposite

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["LeakageParameters", "leakage"]


@dataclass(frozen=True)
class LeakageParameters:
    """Attributes: ``fill``; ``regions`` that are shown whole; ``shares`` of the image that are shown."""

    fill: str = "blur"
    regions: str = "tiles:8x8"
    shares: tuple[float, ...] = (0.05, 0.1, 0.2)

    def __post_init__(self) -> None:
        if self.fill not in FILLS or not all(0 < share < 1 for share in self.shares):
            raise ValueError(f"fill must be one of {', '.join(FILLS)}, shares between 0 and 1")


@protocol(
    "leakage",
    asks="Do the maps of yes and of no each make the model say so, whichever is right?",
    measures=[
        Measure("leak", "pairs that both drive the model to their own label, mean over the shares", "low", (0, 1)),
        Measure("leak_random", "pairs of random maps that do", "", (0, 1)),
        Measure("divergence", "KL divergence of the answers' probabilities, the map's parts alone", "low", (0, np.inf)),
    ],
    needs=("heatmaps", "lvlm", "method"),
    parameters=LeakageParameters,
    cost="1 run of the method, 8 x shares F",
    reference="Jethani, Saporta & Ranganath 2023; the swap test",
)
def leakage(case: Case, parameters: LeakageParameters) -> Mapping[str, float]:
    """Insert the hottest share of the map of the response and of the map of its opposite into an empty frame.

    A pair leaks if each is answered by its own label, by the probabilities of the two answers scaled to sum 1.
    """
    said, other = case.probe, case.probe.other(response=opposite(case))
    masks, areas = units(case, parameters.regions)
    rng = case.rng("leakage")
    maps = [unit_sums(case, masks, heat) / areas for heat in (case.heatmap, case.again(other))]
    ranked = [order(values, case.rng("ties")) for values in maps]
    ranked += [order(rng.random(len(areas)), rng) for _ in range(2)]
    shown = []
    for first in ranked:
        reached = np.cumsum(areas[first])
        for share in parameters.shares:
            count = max(1, int(np.searchsorted(reached, share + 1e-9)))
            shown.append(np.logical_or.reduce(masks[first[:count]], axis=0))
    frames = compose(said.filled(parameters.fill), np.stack(shown), said.frame)
    frames = np.concatenate([frames, said.frame[None]])
    a, b = said.confidence(frames), other.confidence(frames)
    mine = a / (a + b)
    p, full = mine[:-1].reshape(4, -1), np.clip(mine[-1], 1e-9, 1 - 1e-9)
    shown_p = np.clip(p[0], 1e-9, 1 - 1e-9)
    divergence = full * np.log(full / shown_p) + (1 - full) * np.log((1 - full) / (1 - shown_p))
    return {
        "leak": float(((p[0] > 0.5) & (p[1] < 0.5)).mean()),
        "leak_random": float(((p[2] > 0.5) & (p[3] < 0.5)).mean()),
        "divergence": float(divergence.mean()),
    }
