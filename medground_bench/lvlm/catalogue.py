"""Families by name: how deep each is read, and medical checkpoints known to be of it."""

from __future__ import annotations

from dataclasses import dataclass

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.families import FAMILIES, TWO_TOWERS, family_of

__all__ = ["MEDICAL", "OUTSIDE", "Entry", "catalogue"]

MEDICAL: dict[str, tuple[str, ...]] = {
    "gemma3": ("google/medgemma-4b-it", "google/medgemma-1.5-4b-it", "google/medgemma-27b-it"),
    "qwen2_5_vl": ("lingshu-medical-mllm/Lingshu-7B", "lingshu-medical-mllm/Lingshu-32B"),
    "qwen2_vl": ("JZPeterPan/MedVLM-R1",),
    "llava": ("chaoyinshe/llava-med-v1.5-mistral-7b-hf",),
    "siglip": ("google/medsiglip-448", "StanfordAIMI/XraySigLIP__vit-l-16-siglip-384__webli"),
}
"""Family -> hub ids of models for medical images. None was loaded: where this is tested there are no weights."""

OUTSIDE: dict[str, str] = {
    "StanfordAIMI/CheXagent-8b": "needs Python code of its own repository",
    "microsoft/llava-med-v1.5-mistral-7b": "of a class that transformers has not; take the '-hf' conversion",
    "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224": "in open_clip's format, not in that of transformers",
}
"""Known models that are not read, and why."""


@dataclass(frozen=True)
class Entry:
    """A family.

    Attributes
    ----------
    family : str
        ``model_type`` of the configuration.
    level : str
        ``explicit``: geometry known; ``measured``: geometry measured where it exists; ``two towers``.
    checkpoints : tuple of str
        Medical ones.
    """

    family: str
    level: str
    checkpoints: tuple[str, ...] = ()


def catalogue() -> list[Entry]:
    """Every family that is read: explicit adapters, two towers, then all others that ``transformers`` knows."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as known

    entries = [Entry(name, "explicit", MEDICAL.get(name, ())) for name in FAMILIES]
    entries += [Entry(name, "two towers", MEDICAL.get(name, ())) for name in sorted(TWO_TOWERS)]
    others = []
    for name in sorted(set(known) - set(FAMILIES)):
        try:
            family_of(name)
        except LvlmError:  # encoder-decoders and captioners
            continue
        others.append(Entry(name, "measured", MEDICAL.get(name, ())))
    return entries + others
