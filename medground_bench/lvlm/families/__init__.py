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
    from collections.abc import Mapping
    from typing import Any

    from medground_bench.lvlm.families.base import Family

__all__ = ["FAMILIES", "TWO_TOWERS", "family_of"]

FAMILIES: dict[str, tuple[str, str]] = {
    "qwen2_5_vl": ("medground_bench.lvlm.families.qwen2_5_vl", "Qwen25VL"),
    "gemma3": ("medground_bench.lvlm.families.gemma3", "Gemma3"),
    "qwen2_vl": ("medground_bench.lvlm.families.qwen2_vl", "Qwen2VL"),
    "qwen3_vl": ("medground_bench.lvlm.families.qwen3_vl", "Qwen3VL"),
    "internvl": ("medground_bench.lvlm.families.internvl", "InternVL"),
    "llava": ("medground_bench.lvlm.families.llava", "Llava"),
    "llava_next": ("medground_bench.lvlm.families.llava_next", "LlavaNext"),
    "llava_onevision": ("medground_bench.lvlm.families.llava_onevision", "LlavaOnevision"),
    "idefics3": ("medground_bench.lvlm.families.idefics3", "Idefics3"),
    "smolvlm": ("medground_bench.lvlm.families.idefics3", "SmolVLM"),
    "mistral3": ("medground_bench.lvlm.families.mistral3", "Mistral3"),
    "paligemma": ("medground_bench.lvlm.families.paligemma", "PaliGemma"),
    "gemma4": ("medground_bench.lvlm.families.gemma4", "Gemma4"),
    "glm4v": ("medground_bench.lvlm.families.glm4v", "Glm4V"),
}
"""``model_type`` of the configuration -> (module, class)."""


TWO_TOWERS = frozenset(["clip", "metaclip_2", "siglip"])
"""``model_type`` of the classes that are read as two towers: see :mod:`medground_bench.lvlm.two_tower`."""

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


def family_of(
    model_type: str | None,
    *,
    where: object = None,
    written_by: str | None = None,
    auto_map: Mapping[str, Any] | None = None,
) -> Family:
    """The family with this ``model_type``.

    ``written_by`` and ``auto_map``, what the configuration says of the release of ``transformers`` that wrote it and of
    code of its own, are for the message.

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
        if "auto_map" in (auto_map or {}):
            raise LvlmError(
                f"the family {model_type!r} brings Python code of its own, which is not run",
                where=where,
                expected="a class of transformers itself",
                remedy="use a conversion of the model to such a class (often called '...-hf'), or serve it with vLLM "
                "and give openai:MODEL@URL",
            )
        from transformers import __version__ as installed

        known_by = f" (configuration of transformers {written_by}, installed is {installed})" if written_by else ""
        raise LvlmError(
            f"LVLMs of the family {model_type!r} are not supported{known_by}",
            where=where,
            expected=f"one of the families {', '.join(FAMILIES)} (Gemma3 includes MedGemma), or another model behind "
            "AutoModelForImageTextToText of transformers",
            remedy="to add a family, subclass medground_bench.lvlm.families.base.Family",
        )
    module, name = FAMILIES[model_type]
    family: Family = getattr(import_module(module), name)()
    return family
