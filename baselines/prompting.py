"""Methods that ask the LVLM itself where its evidence lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baselines.checks import require
from baselines.once import Once
from baselines.prompts import boxes_prompt, phrases_prompt
from baselines.replies import read_boxes, read_phrases, to_fractions
from medground_bench.attribution.method import Attribution, method
from medground_bench.imaging import mask_box

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["MedsamPromptingParameters", "PromptingParameters", "prompting", "prompting_medsam"]


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

    The reply is read by :func:`baselines.replies.read_boxes`, its scale taken from the family, the processor's
    resize undone. A reply without boxes names no evidence; it is kept in ``extras["reply"]``.
    """
    family = lvlm.adapter
    width, height = family.processed_size(lvlm.processor, *episode.frame.size)
    prompt = boxes_prompt(scale=family.box_scale, width=width, height=height)
    reply = ask(lvlm, episode, prompt, parameters.max_new_tokens)
    stated = read_boxes(reply)
    convention = "pixel" if family.box_scale == "pixels" else "thousand"
    fractions, scale = to_fractions(stated, convention=convention, width=width, height=height)
    w, h = episode.frame.size
    frame_boxes = [(x1 * w, y1 * h, x2 * w, y2 * h) for x1, y1, x2, y2 in fractions]
    boxes = episode.letterbox.to_native(frame_boxes)[: parameters.max_boxes]
    return Attribution(boxes=boxes, extras={"reply": reply, "stated": len(stated), "kept": len(boxes), "scale": scale})


def ask(lvlm: Lvlm, episode: Episode, prompt: str, max_new_tokens: int) -> str:
    """One greedy reply in the conversation of the episode's question, the response and this prompt."""
    turns = [episode.question, episode.response, prompt]
    (reply,) = lvlm.generate([episode.frame], [turns], max_new_tokens=max_new_tokens, side=None)
    return str(reply)


@dataclass(frozen=True)
class MedsamPromptingParameters:
    """Parameters of ``prompting_medsam``.

    Attributes
    ----------
    detector : str
        Folder or hub id of an OWL-ViT.
    segmenter : str
        ``"litemedsam"``, the path of a segment-anything checkpoint such as ``medsam_vit_b.pth``, or the folder or
        hub id of a transformers ``SamModel`` such as ``wanglab/medsam-vit-base``.
    threshold : float
        Least detection score.
    top : int
        At most so many detections, over all phrases.
    max_phrases : int
        At most so many phrases of the reply.
    max_new_tokens : int
        Length limit of the reply.
    """

    detector: str = "google/owlvit-base-patch32"
    segmenter: str = "litemedsam"
    threshold: float = 0.10
    top: int = 5
    max_phrases: int = 8
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        require(0 <= self.threshold <= 1, "prompting_medsam", "threshold must be a score, 0 to 1")
        require(
            min(self.top, self.max_phrases, self.max_new_tokens) >= 1, "prompting_medsam", "limits must be at least 1"
        )


@method(
    "prompting_medsam",
    family="prompting",
    parameters=MedsamPromptingParameters,
    needs=("generation", "detector", "segmenter"),
    cost="1 generation + 1 detector + 1 segmenter",
    reference="Minderer et al., ECCV 2022; Ma et al., MedSAM, Nat. Commun. 2024",
)
def prompting_medsam(lvlm: Lvlm, episode: Episode, parameters: MedsamPromptingParameters) -> Attribution:
    """Boxes around what a segmenter finds where a detector finds the phrases the LVLM names as its evidence.

    Detector and segmenter see the native image and are loaded once. A detection's box is the tight box of its
    mask, or the detector's own box where the mask is empty. Without phrases or detections no evidence is named.
    """
    from baselines.detection import load_detector

    detector = load_detector(parameters.detector)  # before the costly generation: they may be missing
    segmenter = _segmenter(parameters.segmenter)
    reply = ask(lvlm, episode, phrases_prompt(), parameters.max_new_tokens)
    phrases = read_phrases(reply, parameters.max_phrases)
    found = detector.find(episode.image, phrases, threshold=parameters.threshold, top=parameters.top)
    extras = {
        "reply": reply,
        "phrases": phrases,
        "detections": [{"phrase": d.phrase, "score": round(d.score, 4), "box": list(d.box)} for d in found],
    }
    if not found:
        return Attribution(boxes=[], extras=extras)
    masks = segmenter.segment(episode.image, [d.box for d in found])
    boxes = [mask_box(mask) or d.box for mask, d in zip(masks, found, strict=True)]
    return Attribution(boxes=boxes, extras=extras)


def _load_segmenter(spec: str) -> Any:
    from medground_bench.attribution.segmenters import load_segmenter

    return load_segmenter(spec)


_segmenter = Once(_load_segmenter)
