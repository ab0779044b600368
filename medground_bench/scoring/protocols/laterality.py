"""Laterality: whether the map goes to the other side with the picture, and to the side that the words name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from PIL import ImageOps

from medground_bench.scoring.protocols.maps import alike, hottest
from medground_bench.scoring.protocols.protocol import Measure, NoParameters, Skip, protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medground_bench.scoring.protocols.case import Case

__all__ = ["flip", "named_side", "side", "swap_sides"]

_PAIRS = {"left": "right", "right": "left", "sinister": "dexter", "dexter": "sinister"}
_WORD = re.compile(r"\b(left|right|sinister|dexter)(?=\b|-)", re.IGNORECASE)
_BOTH = re.compile(r"\b(bilateral|bilaterally|both)\b", re.IGNORECASE)


def swap_sides(text: str) -> str:
    """A text with its words for left and right exchanged, in their own case."""

    def other(match: re.Match[str]) -> str:
        word = match[0]
        swapped = _PAIRS[word.lower()]
        return swapped.upper() if word.isupper() else swapped.capitalize() if word[0].isupper() else swapped

    return _WORD.sub(other, text)


def named_side(text: str) -> str | None:
    """The one side of the patient that a text names; None where it names both or none."""
    found = {"left" if word.lower() in ("left", "sinister") else "right" for word in _WORD.findall(text)}
    return found.pop() if len(found) == 1 and not _BOTH.search(text) else None


@protocol(
    "flip",
    asks="In the mirrored radiograph, is the map mirrored too?",
    measures=[
        Measure("equivariance", "rank correlation with the map of the mirrored image, mirrored back", bounds=(-1, 1)),
        Measure("top", "IoU of the hottest tenths", bounds=(0, 1)),
        Measure("prior_pull", "maps that stay where they were rather than follow the picture", "low", (0, 1), 0.5),
        Measure("model_inconsistent", "answers that change in the mirror: of the LVLM, not of the map", "", (0, 1)),
    ],
    needs=("heatmaps", "lvlm", "method"),
    cost="1 run of the method, 1 answer",
    reference="flip equivariance; left and right as in MIRP ('Your other left', 2025)",
    note="a mirrored radiograph is rare (dextrocardia, mirrored markers), and a map that is the same on both sides, as "
    "the control centre_prior, is equivariant without looking: equivariance alone is no merit.",
)
def flip(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """Image mirrored, left and right exchanged in question and response; only where the answer stays."""
    heat, probe = case.heatmap, case.probe
    mirrored = probe.other(
        image=ImageOps.mirror(probe.image), question=swap_sides(probe.question), response=swap_sides(probe.response)
    )
    if mirrored.kept(mirrored.frame[None])[0] == 0:
        return {"model_inconsistent": 1.0}
    other = case.again(mirrored)
    followed, stayed = alike(heat, other[:, ::-1]), alike(heat, other)
    return {
        "equivariance": followed["spearman"],
        "top": followed["top"],
        "prior_pull": 0.5
        if followed["spearman"] == stayed["spearman"]
        else float(stayed["spearman"] > followed["spearman"]),
        "model_inconsistent": 0.0,
    }


@protocol(
    "side",
    asks="Is the hottest point on the side of the patient that the answer, or the question, names?",
    measures=[Measure("hit", "hottest points on the named side", bounds=(0, 1), chance=0.5)],
    needs=("heatmaps",),
    reference="the convention of radiographs: the image's left is the patient's right",
)
def side(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """Texts that name both sides or none are left out; a point on the midline is half a hit."""
    record = case.record
    named = named_side(record.response or "") or named_side(record.attribute)
    if named is None:
        raise Skip("neither response nor finding names one side")
    x, _ = hottest(case, case.heatmap)
    middle = record.width / 2
    right = 0.5 if x == middle else float(x < middle)
    return {"hit": right if named == "right" else 1 - right}
