"""Random target: whether the map of the opposite answer is another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import alike
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["TargetParameters", "opposite", "random_target"]


@dataclass(frozen=True)
class TargetParameters:
    """Attributes: ``words``, responses of random words and as many tokens whose maps are made, too."""

    words: int = 0

    def __post_init__(self) -> None:
        if self.words < 0:
            raise ValueError("words must not be negative")


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
        Measure("similarity_words", "absolute rank correlation with the map of random words", "low", (0, 1)),
        Measure("correlation_words", "rank correlation with the map of random words", "", (-1, 1)),
    ],
    needs=("heatmaps", "lvlm", "method"),
    parameters=TargetParameters,
    cost="1 run of the method, and 1 for each response of random words",
    reference="random logit (Sixt et al. 2020)",
    note="yes and no exclude each other: signed maps of the two may be each other's negatives, which is right.",
)
def random_target(case: Case, parameters: TargetParameters) -> Mapping[str, float]:
    """The submission's map and the method's for the opposite answer, and for random words, to the same question."""
    other = case.again(case.probe.other(response=opposite(case)))
    found = alike(case.heatmap, other)
    out = {"similarity": abs(found["spearman"]), "correlation": found["spearman"], "top": found["top"]}
    if parameters.words and (words := _of_words(case, parameters.words)):
        out |= {"similarity_words": float(np.mean(np.abs(words))), "correlation_words": float(np.mean(words))}
    return out


def _of_words(case: Case, count: int) -> list[float]:
    """Rank correlations with maps of random words; none of an LVLM without a tokenizer, or of a constant map."""
    from medground_bench.lvlm.text import random_words

    tokenizer = getattr(getattr(case.probe.lvlm, "processor", None), "tokenizer", None)
    rng, out = case.rng("words"), []
    for _ in range(count if tokenizer is not None else 0):
        said = random_words(tokenizer, len(case.probe.episode.tokens), rng)
        try:
            if said is not None:
                out.append(alike(case.heatmap, case.again(case.probe.other(response=said)))["spearman"])
        except Skip:
            continue
    return out
