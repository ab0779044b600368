"""An open-vocabulary detector (OWL-ViT) that finds short phrases in an image; loaded once, kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from baselines.shared.once import once
from medground_bench.core.errors import MethodError, MissingDependencyError
from medground_bench.core.hub import local_only
from medground_bench.core.schema import Box

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Detection", "Detector", "load_detector"]


@dataclass(frozen=True, slots=True)
class Detection:
    """A found phrase: its box in pixels of the image given, its confidence."""

    box: Box
    score: float
    phrase: str


class Detector:
    """OWL-ViT (Minderer et al., Simple Open-Vocabulary Object Detection with Vision Transformers, ECCV 2022).

    Parameters
    ----------
    model, processor
        ``OwlViTForObjectDetection`` and ``OwlViTProcessor``, or objects with their interface.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model.eval(), processor

    def find(self, image: Image, phrases: Sequence[str], *, threshold: float = 0.1, top: int = 5) -> list[Detection]:
        """The ``top`` best detections of any phrase with a score above ``threshold``, best first.

        Boxes are cut to the image; what is empty after that is left out.
        """
        import torch

        if not phrases:
            return []
        device = next(self.model.parameters()).device
        inputs = self.processor(
            text=[list(phrases)],
            images=image.convert("RGB"),
            return_tensors="pt",
            padding="max_length",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,  # 16 tokens
        ).to(device)
        with torch.no_grad():
            outputs = self.model(**inputs)
        (found,) = self.processor.post_process_grounded_object_detection(
            outputs, threshold=threshold, target_sizes=[(image.height, image.width)], text_labels=[list(phrases)]
        )
        detections = []
        for score, box, label in zip(
            found["scores"].tolist(), found["boxes"].tolist(), found["labels"].tolist(), strict=True
        ):
            x1, y1 = max(box[0], 0.0), max(box[1], 0.0)
            x2, y2 = min(box[2], float(image.width)), min(box[3], float(image.height))
            if x2 > x1 and y2 > y1:
                detections.append(Detection((x1, y1, x2, y2), score, phrases[label]))
        return sorted(detections, key=lambda d: -d.score)[:top]


@once
def load_detector(folder_or_id: str) -> Detector:
    """The detector of a folder or hub id, on a GPU if there is one; the same object on every later call.

    Raises
    ------
    MissingDependencyError
        If torch or transformers is not installed.
    MedGroundError
        If it is a hub id that is neither on this machine nor to be had (told within seconds).
    MethodError
        If the folder or hub id holds no OWL-ViT that can be loaded.
    """
    try:
        import torch
        from transformers import OwlViTForObjectDetection, OwlViTProcessor
    except ImportError as error:
        raise MissingDependencyError(
            f"the detector needs {error.name}", remedy='pip install "medground-bench[lvlm]"'
        ) from error
    local = local_only(folder_or_id, "the method's parameter 'detector' (--set prompting_medsam.detector=FOLDER)")
    try:
        processor = OwlViTProcessor.from_pretrained(folder_or_id, local_files_only=local)
        model = OwlViTForObjectDetection.from_pretrained(folder_or_id, use_safetensors=True, local_files_only=local)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise MethodError(
            f"no OWL-ViT detector can be loaded: {_first_sentence(error)}",
            where=folder_or_id,
            expected="a hub id (google/owlvit-base-patch32) or a folder saved by transformers",
            remedy="download it on a machine with network access and give its folder as the parameter 'detector'",
        ) from error
    return Detector(model.to("cuda" if torch.cuda.is_available() else "cpu"), processor)


def _first_sentence(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
