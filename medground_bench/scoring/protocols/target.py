"""Random target: whether the map of the opposite answer is another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medground_bench.scoring.protocols.maps import alike
from medground_bench.scoring.protocols.protocol import Measure, NoParameters, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["opposite", "random_target"]


def opposite(case: Case) -> str:
    """The opposite answer in the form of the response: its case and its full stop, where the response is one word."""
    said = case.probe.response
    word = "No" if case.probe.answer == "yes" else "Yes"
    bare = said.strip().rstrip(".!")
    if bare.lower() not in ("yes", "no"):
        return word
    shaped = word.upper() if bare.isupper() and len(bare) > 1 else word.lower() if bare.islower() else word
    return said.replace(bare, shaped, 1)


@protocol(
    "random_target",
    asks="Is the map of the opposite answer another map?",
    measures=[
        Measure("similarity", "absolute rank correlation of the two maps", "", (0, 1)),
        Measure("correlation", "rank correlation of the two maps", "low", (-1, 1)),
        Measure("top", "IoU of the hottest tenths", "low", (0, 1)),
    ],
    needs=("heatmaps", "lvlm", "method"),
    cost="1 run of the method",
    reference="random logit (Sixt et al. 2020)",
    note="yes and no exclude each other: signed maps of the two may be each other's negatives, which is right.",
)
def random_target(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """The submission's map and the method's map for the opposite answer to the same question."""
    other = case.again(case.probe.other(response=opposite(case)))
    found = alike(case.heatmap, other)
    return {"similarity": abs(found["spearman"]), "correlation": found["spearman"], "top": found["top"]}
