"""Layers (ML-Att): a method that reads one layer, at the first, the middle and the last."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from medground_bench.core.errors import MethodError
from medground_bench.scoring.protocols.protocol import Measure, NoParameters, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["layers"]

_PLACES = ("first", "middle", "last")


@protocol(
    "layers",
    asks="How much of a method's score is the layer that it reads?",
    measures=[
        Measure("spread", "best layer minus worst", "", (0, 1)),
        *(
            Measure(f"auprc_{place}", f"area under the precision-recall curve at the {place} layer", "high", (0, 1))
            for place in _PLACES
        ),
        Measure("auprc", "the submission's own", "high", (0, 1)),
        Measure("auprc_chance", "of a constant map", "", (0, 1)),
        Measure("degenerate", "maps of them that name nothing", "low", (0, 1)),
    ],
    needs=("heatmaps", "lvlm", "weights", "method"),
    cost="3 runs of the method",
    reference="ML-Att (Rao, Boehle & Schiele 2022)",
    note="compare methods within one layer. Only methods with a parameter 'layer' have one to choose.",
)
def layers(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """Layers 0, L / 2 and L - 1 of the L decoder layers; a map that names nothing has chance's score.

    A layer that the method refuses, as one past which the image reaches no answer, has none.
    """
    if not any(field.name == "layer" for field in dataclasses.fields(case.trial.method[1])):
        raise Skip("the method reads no single layer")
    mine = case.judged(case.heatmap)
    depth = len(case.probe.lvlm.layers)
    found: dict[str, float] = {}
    empty, refused = 0, ""
    for place, layer in zip(_PLACES, (0, depth // 2, depth - 1), strict=True):
        try:
            heat = case.again(case.probe, layer=layer)
            found[f"auprc_{place}"] = case.judged(heat).auprc
        except Skip:
            found[f"auprc_{place}"] = mine.auprc_chance
            empty += 1
        except MethodError as error:
            refused = error.message
    if len(found) < 2:
        raise Skip(f"the method reads fewer than two of the layers: {refused}")
    return {
        "spread": max(found.values()) - min(found.values()),
        **found,
        "auprc": mine.auprc,
        "auprc_chance": mine.auprc_chance,
        "degenerate": empty / len(found),
    }
