"""Randomisation: whether a map changes when the model forgets what it has learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import alike
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["RandomisationParameters", "randomisation"]

_PARTS = ("head", "decoder", "projector", "vision")
_INDEPENDENT = 0.9


@dataclass(frozen=True)
class RandomisationParameters:
    """Attributes: ``seed``, of the order that the weights get."""

    seed: int = 0


def entropy(heat: np.ndarray, bins: int = 100) -> float:
    """Entropy in nats of a map's histogram (Hedstroem et al. 2024)."""
    counts, _ = np.histogram(heat, bins)
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


@protocol(
    "randomisation",
    asks="Does the map change when the model's weights are shuffled?",
    measures=[
        Measure("model_independent", "maps with a similarity above 0.9 under the wholly random model", "low", (0, 1)),
        Measure("similarity", "rank correlation with the map of the wholly random model", "", (-1, 1)),
        Measure("similarity_absolute", "the same of the maps' absolute values", "", (-1, 1)),
        *(Measure(f"only_{part}", f"with the {part} alone shuffled", "", (-1, 1)) for part in _PARTS),
        Measure("bottom_up_vision_projector", "with everything below the decoder shuffled", "", (-1, 1)),
        Measure("bottom_up_decoder", "with everything but the head shuffled", "", (-1, 1)),
        Measure("entropy_gain", "relative gain of the map's entropy by randomising", ""),
        Measure("degenerate", "maps of the random model that name nothing", "", (0, 1)),
    ],
    needs=("heatmaps", "lvlm", "weights", "method"),
    parameters=RandomisationParameters,
    cost="7 runs of the method",
    reference="model parameter randomisation (Adebayo et al. 2018); entropy: eMPRT (Hedstroem et al. 2024)",
    note="a check to pass or to fail, never a ranking: methods that multiply with activations stay similar though "
    "faithful, and noisy maps change most (Binder et al. 2023). Read it beside the controls sobel and random_map.",
)
def randomisation(case: Case, parameters: RandomisationParameters) -> Mapping[str, float]:
    """Weights are shuffled part by part: all of them, each part alone, and from the image up."""
    from medground_bench.lvlm.randomise import shuffled

    heat, probe = case.heatmap, case.probe
    orders = {
        "similarity": _PARTS,
        **{f"only_{part}": (part,) for part in _PARTS},
        "bottom_up_vision_projector": ("vision", "projector"),
        "bottom_up_decoder": ("vision", "projector", "decoder"),
    }
    out = {}
    for name, parts in orders.items():
        try:
            with shuffled(probe.lvlm, parts, parameters.seed):
                changed = case.again(probe)
        except Skip:
            if name == "similarity":
                out["degenerate"] = 1.0
            continue
        out[name] = alike(heat, changed)["spearman"]
        if name == "similarity":
            out["degenerate"] = 0.0
            out["similarity_absolute"] = alike(np.abs(heat), np.abs(changed))["spearman"]
            out["model_independent"] = float(out["similarity"] > _INDEPENDENT)
            before = entropy(heat)
            if before > 0:
                out["entropy_gain"] = (entropy(changed) - before) / before
    return out
