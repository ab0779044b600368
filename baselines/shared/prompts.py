"""What the prompting methods ask an LVLM, as the turn that follows its question and its own answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["ask", "boxes_prompt", "marks_prompt", "phrases_prompt"]

_EVIDENCE = "Identify the local evidence in the image that supports your answer. "
_SCALES = {
    "pixels": "in pixels of the image, which is {width} pixels wide and {height} pixels high",
    "normalised": "normalised to 0-1000 over the width and the height of the image",
}
_SCALES["normalised_xyxy"] = _SCALES["normalised"]


def boxes_prompt(*, scale: str, width: int, height: int) -> str:
    """Ask for the boxes of the answer's evidence.

    Parameters
    ----------
    scale : {"pixels", "normalised", "normalised_xyxy"}
        How the family was taught to write boxes.
    width, height : int
        Size of the image as the model sees it, in pixels.
    """
    return (
        _EVIDENCE
        + "Give one bounding box per region as a JSON list [[x1, y1, x2, y2], ...], with (x1, y1) the top left and "
        + f"(x2, y2) the bottom right corner, {_SCALES[scale].format(width=width, height=height)}. "
        + "Give [] if no region supports it. Write nothing but the list."
    )


def phrases_prompt() -> str:
    """Ask for short descriptions of the answer's evidence, for a detector to find."""
    return (
        _EVIDENCE
        + "Describe each region in a short phrase of at most six words that names what is visible and where. "
        + 'Answer with a JSON list of strings, ["...", ...], or [] if no region supports it. '
        + "Write nothing but the list."
    )


def marks_prompt(count: int) -> str:
    """Ask which of the numbered outlines on the image the answer rests on."""
    return (
        _EVIDENCE
        + f"The image shows regions with outlines and numbers from 1 to {count}. Give the numbers of the regions that "
        + "support your answer as a JSON list, the most important first, or [] if none does. "
        + "Write nothing but the list."
    )


def ask(lvlm: Lvlm, episode: Episode, prompt: str, max_new_tokens: int, image: Image | None = None) -> str:
    """One greedy reply in the conversation of the episode's question, the response and this prompt.

    ``image`` is shown in place of the frame: the frame with something drawn on it.
    """
    turns = [episode.question, episode.response, prompt]
    shown = episode.frame if image is None else image
    (reply,) = lvlm.generate([shown], [turns], max_new_tokens=max_new_tokens, side=None)
    return reply.text
