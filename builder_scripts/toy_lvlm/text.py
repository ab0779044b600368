"""What the toy LVLMs are taught to say: one canonical wording per finding and side.

A very small language model can only reason in sentences it knows, so that each finding has one description when it is
there (with its side, where it has one) and one when it is not. In both modes the last statement is the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from medground_bench.core.anatomy import COMPOSITES, CONCEPTS
from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import MODES, question

__all__ = ["WORDINGS", "Wording", "corpus", "place_case", "response", "responses"]

_SIDES = ("left", "right")
_ZONES = ("upper", "mid", "lower")


@dataclass(frozen=True, slots=True)
class Wording:
    """How one finding is described.

    Attributes
    ----------
    present : str
        Anatomy and finding; ``{side}`` and ``{zone}`` stand for where it is.
    absent : str
        The anatomy without the finding.
    both : str
        As ``present`` for a finding on both sides; empty for a finding that is never on both.
    zones : bool
        Whether the description names a third of the lung.
    """

    present: str
    absent: str
    both: str = ""
    zones: bool = False


WORDINGS: dict[str, Wording] = {
    "cardiomegaly": Wording(
        "The cardiac silhouette is wider than half of the chest. This is cardiomegaly.",
        "The cardiac silhouette has a normal width. There is no cardiomegaly.",
    ),
    "aortic enlargement": Wording(
        "The aortic knob is large and bulges into the lung. This is aortic enlargement.",
        "The aortic knob has a normal size. There is no aortic enlargement.",
    ),
    "hilar enlargement": Wording(
        "The {side} hilar structures are large and dense. This is hilar enlargement on the {side}.",
        "Both hilar structures have a normal size. There is no hilar enlargement.",
        both="Both hilar structures are large and dense. This is hilar enlargement on both sides.",
    ),
    "consolidation": Wording(
        "A cloudy opacity fills the {side} {zone} lung zone. This is a consolidation in the {side} lung.",
        "No cloudy opacity fills the lungs. There is no consolidation.",
        zones=True,
    ),
    "atelectasis": Wording(
        "A few dense bands cross the {side} {zone} lung zone. This is atelectasis in the {side} lung.",
        "No dense bands cross the lungs. There is no atelectasis.",
        zones=True,
    ),
    "lung mass": Wording(
        "A large round opacity lies in the {side} {zone} lung zone. This is a lung mass in the {side} lung.",
        "No large round opacity lies in the lungs. There is no lung mass.",
        zones=True,
    ),
    "nodule": Wording(
        "A small round opacity lies in the {side} {zone} lung zone. This is a nodule in the {side} lung.",
        "No small round opacity lies in the lungs. There is no nodule.",
        zones=True,
    ),
    "pneumothorax": Wording(
        "A dark rim without vessels surrounds the {side} lung. This is a pneumothorax on the {side}.",
        "Both lungs reach the chest wall. There is no pneumothorax.",
    ),
    "pleural effusion": Wording(
        "The {side} costophrenic angle is blunted by a meniscus of fluid. This is a pleural effusion on the {side}.",
        "Both costophrenic angles are sharp. There is no pleural effusion.",
        both="Both costophrenic angles are blunted by a meniscus of fluid. This is a pleural effusion on both sides.",
    ),
    "interstitial pattern": Wording(
        "A fine net of lines covers the base of the {side} lung. This is an interstitial pattern on the {side}.",
        "No net of lines covers the lungs. There is no interstitial pattern.",
        both="A fine net of lines covers the bases of both lungs. This is an interstitial pattern on both sides.",
    ),
    "clavicle fracture": Wording(
        "The {side} clavicle is broken and its ends are displaced. This is a clavicle fracture on the {side}.",
        "Both clavicles are intact. There is no clavicle fracture.",
    ),
    "rib fracture": Wording(
        "A {side} rib is broken and its ends are displaced. This is a rib fracture on the {side}.",
        "All ribs are intact. There is no rib fracture.",
    ),
}


def response(attribute: str, mode: str, present: bool, side: str | None = None, zone: str | None = None) -> str:
    """The canonical answer to the question about ``attribute``.

    Parameters
    ----------
    attribute : str
        The finding asked for, one of :data:`WORDINGS`.
    mode : {"direct", "reason"}
        "Yes"/"No", or the description followed by ``Answer: Yes``/``Answer: No``.
    present : bool
        Whether the image has the finding.
    side : {"left", "right", "both"}, optional
    zone : {"upper", "mid", "lower"}, optional
        Where it is.

    Raises
    ------
    LvlmError
        If the attribute has no wording, or the mode is unknown.
    """
    if mode not in MODES:
        raise LvlmError(f"unknown mode {mode!r}", expected=" or ".join(MODES))
    if attribute not in WORDINGS:
        raise LvlmError(f"the toy LVLMs have no words for {attribute!r}", expected=f"one of {', '.join(WORDINGS)}")
    answer = "Yes" if present else "No"
    if mode == "direct":
        return answer
    wording = WORDINGS[attribute]
    text = wording.absent if not present else wording.both if side == "both" else wording.present
    return f"{text.format(side=side, zone=zone)} Answer: {answer}"


def responses(attribute: str, mode: str) -> list[str]:
    """Every canonical answer to the question about ``attribute``: the "No" first, then each place it can be."""
    wording = WORDINGS[attribute]
    places: list[tuple[str, str | None]] = [("both", None)] if wording.both else []
    for side in _SIDES:
        places += [(side, zone) for zone in _ZONES] if wording.zones else [(side, None)]
    answers = [response(attribute, mode, True, side, zone) for side, zone in places]
    return list(dict.fromkeys([response(attribute, mode, False), *answers]))


def place_case(attribute: str, side: str | None, zone: str | None) -> int:
    """Index among ``responses(attribute, "reason")`` of the answer about a finding that is there."""
    return responses(attribute, "reason").index(response(attribute, "reason", True, side, zone))


_PROMPT_WORDS = (
    "Identify the local evidence in the image that supports the answer. Give the boxes of the regions as JSON: "
    '[[x1, y1, x2, y2], ...]. {"bbox_2d": [0, 10, 224, 1000], "label": "finding"} Your answer was Yes. Describe each '
    "region with a short phrase. Question: Answer: Return only a list. Use pixel coordinates of the chest radiograph."
)


def corpus(default_system: str = "") -> list[str]:
    """Texts the tokenizer is trained on: questions, answers, the anatomy, and the usual words of a prompt."""
    texts = [default_system, _PROMPT_WORDS, *CONCEPTS, *COMPOSITES]
    for attribute in WORDINGS:
        for mode in MODES:
            texts += [question(attribute, mode), *responses(attribute, mode)]
    return texts
