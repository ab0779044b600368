"""Boxes that the LVLM states when asked for its evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.checks import require
from baselines.shared.prompts import ask, boxes_prompt
from baselines.shared.replies import read_boxes, to_fractions
from medground_bench.attribution.method import Attribution, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["PromptingParameters", "prompting"]


@dataclass(frozen=True)
class PromptingParameters:
    """Parameters of ``prompting``.

    Attributes
    ----------
    max_new_tokens : int
        Length limit of the reply. A reply that is cut off keeps its complete boxes.
    max_boxes : int
        At most so many boxes, the first ones.
    """

    max_new_tokens: int = 512
    max_boxes: int = 10

    def __post_init__(self) -> None:
        require(self.max_new_tokens >= 1 and self.max_boxes >= 1, "prompting", "limits must be at least 1")


@method(
    "prompting",
    family="prompting",
    parameters=PromptingParameters,
    needs=("generation",),
    cost="1 generation",
    reference="instruction, in the box format of Bai et al., Qwen2.5-VL, 2025",
)
def prompting(lvlm: Lvlm, episode: Episode, parameters: PromptingParameters) -> Attribution:
    """Boxes the LVLM states when it is shown its own answer and asked for the evidence.

    The reply is read by :func:`baselines.shared.replies.read_boxes`, its scale taken from the family, the processor's
    resize undone. A reply without boxes names no evidence; it is kept in ``extras["reply"]``. Of the toy LVLMs only
    ``toy_prompted`` was taught to reply.
    """
    family = lvlm.adapter
    width, height = family.processed_size(lvlm.processor, *episode.frame.size)
    prompt = boxes_prompt(scale=family.box_scale, width=width, height=height)
    reply = ask(lvlm, episode, prompt, parameters.max_new_tokens)
    stated = read_boxes(reply, rows_first=family.box_scale == "normalised")
    convention = "pixel" if family.box_scale == "pixels" else "thousand"
    fractions, scale = to_fractions(stated, convention=convention, width=width, height=height)
    w, h = episode.frame.size
    frame_boxes = [(x1 * w, y1 * h, x2 * w, y2 * h) for x1, y1, x2, y2 in fractions]
    boxes = episode.letterbox.to_native(frame_boxes)[: parameters.max_boxes]
    return Attribution(boxes=boxes, extras={"reply": reply, "stated": len(stated), "kept": len(boxes), "scale": scale})
