"""Phrases of the LVLM, found by a detector and outlined by a segmenter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.checks import require
from baselines.shared.detection import load_detector
from baselines.shared.once import once
from baselines.shared.prompts import ask, phrases_prompt
from baselines.shared.replies import read_phrases
from medground_bench.attribution.method import Attribution, method
from medground_bench.attribution.segmenters import load_segmenter, resolve_segmenter
from medground_bench.imaging import mask_box

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["MedsamPromptingParameters", "prompting_medsam"]

_segmenter = once(load_segmenter)


@dataclass(frozen=True)
class MedsamPromptingParameters:
    """Parameters of ``prompting_medsam``.

    Attributes
    ----------
    detector : str
        Folder or hub id of an OWL-ViT. ``python -m builder_scripts.toy_detector --out FOLDER`` makes a small one that
        knows the findings of phantoms, in minutes on one core and offline.
    segmenter : str
        ``"litemedsam"`` (recorded with its version), the path of a segment-anything checkpoint such as
        ``medsam_vit_b.pth``, or the folder or hub id of a transformers ``SamModel`` such as
        ``wanglab/medsam-vit-base``.
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
        object.__setattr__(self, "segmenter", resolve_segmenter(self.segmenter))
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
