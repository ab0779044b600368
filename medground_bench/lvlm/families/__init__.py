"""The families of LVLMs this project can read: one class per file, found by ``config.model_type``.

Any other model behind ``AutoModelForImageTextToText`` is read by
:class:`~medground_bench.lvlm.families.generic.Generic`: it generates and scores, and black-box methods run on it.

To add a family, subclass :class:`~medground_bench.lvlm.families.base.Family`, give it its ``model_type`` and
name it in :data:`FAMILIES`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from medground_bench.core.errors import LvlmError

if TYPE_CHECKING:
    from medground_bench.lvlm.families.base import Family

__all__ = ["FAMILIES", "family_of"]

FAMILIES: dict[str, tuple[str, str]] = {
    "qwen2_5_vl": ("medground_bench.lvlm.families.qwen2_5_vl", "Qwen25VL"),
    "gemma3": ("medground_bench.lvlm.families.gemma3", "Gemma3"),
}
"""``model_type`` of the configuration -> (module, class)."""


_NO_DECODER = frozenset(
    [
        "blip",
        "blip-2",
        "florence2",
        "git",
        "instructblip",
        "instructblipvideo",
        "kosmos-2",
        "pi0",
        "pix2struct",
        "pp_formulanet",
        "t5gemma2",
        "udop",
        "vision-encoder-decoder",
    ]
)
"""Encoder-decoders and captioners: they have no chat, or another place for the answer than after the prompt."""


def family_of(model_type: str | None, *, where: object = None) -> Family:
    """The family with this ``model_type``.

    Raises
    ------
    LvlmError
        If the family is not supported; the message names it and those that are.
    """
    if model_type not in FAMILIES:
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as known

        if model_type in known and model_type not in _NO_DECODER:
            generic: Family = import_module("medground_bench.lvlm.families.generic").Generic(model_type)
            return generic
        raise LvlmError(
            f"LVLMs of the family {model_type!r} are not supported",
            where=where,
            expected=f"one of the families {', '.join(FAMILIES)} (Gemma3 includes MedGemma), or another model behind "
            "AutoModelForImageTextToText of transformers",
            remedy="to add a family, subclass medground_bench.lvlm.families.base.Family",
        )
    module, name = FAMILIES[model_type]
    family: Family = getattr(import_module(module), name)()
    return family
