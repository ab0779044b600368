"""The six LVLMs of the paper at full size, from their published configurations: shapes, no weights.

The facts are those of the models' ``config.json``; that they are right is told by the number of parameters, which is
the total that the hub states for each model's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PUBLISHED", "Published"]

_QWEN_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN_ROPE = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1e6}
_GEMMA_VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 896,
    "patch_size": 14,
    "vision_use_head": False,
}
_GEMMA_4B = {
    "vocab_size": 262208,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 1024,
}


@dataclass(frozen=True)
class Published:
    """Facts of a published configuration.

    Attributes
    ----------
    family : str
        ``qwen2_5_vl`` or ``gemma3``.
    text : dict
        Of the language model.
    parameters : int
        What the hub counts in the published weights.
    tied : bool
        Whether embedding and head are one matrix.
    """

    family: str
    text: dict[str, Any]
    parameters: int
    tied: bool = True

    @property
    def vision(self) -> dict[str, Any]:
        """Of the vision tower."""
        if self.family == "qwen2_5_vl":
            return {**_QWEN_VISION, "out_hidden_size": self.text["hidden_size"]}
        return dict(_GEMMA_VISION)

    def config(self, layers: int | None = None) -> Any:
        """The configuration of ``transformers``, with the published depth or only so many decoder and vision layers."""
        from transformers import Gemma3Config, Qwen2_5_VLConfig

        text, vision = dict(self.text), self.vision
        if layers is not None:
            text["num_hidden_layers"] = layers
            vision["depth" if self.family == "qwen2_5_vl" else "num_hidden_layers"] = layers
            if self.family == "qwen2_5_vl":
                vision["fullatt_block_indexes"] = [layers - 1]
        if self.family == "qwen2_5_vl":
            text |= {"rope_parameters": _QWEN_ROPE, "max_position_embeddings": 128000}
            return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=self.tied)
        return Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=256)

    def build(self, device: str = "meta", dtype: Any = None, *, layers: int | None = None, seed: int = 0) -> Any:
        """A model of the real class: without memory on ``"meta"``, with random weights elsewhere.

        Parameters
        ----------
        device, dtype
            Where, and of what type (default float32).
        layers : int, optional
            As for :meth:`config`.
        seed : int
            Of the weights, normal with standard deviation 0.02.
        """
        import torch
        from transformers import Gemma3ForConditionalGeneration, Qwen2_5_VLForConditionalGeneration
        from transformers.initialization import no_init_weights

        kind = Qwen2_5_VLForConditionalGeneration if self.family == "qwen2_5_vl" else Gemma3ForConditionalGeneration
        config = self.config(layers)
        config._attn_implementation = "sdpa"
        usual = torch.get_default_dtype()
        torch.set_default_dtype(dtype or usual)
        try:
            with torch.device(device), no_init_weights():
                model = kind(config).eval()
        finally:
            torch.set_default_dtype(usual)
        model.requires_grad_(False)
        if device == "meta":
            return model
        generator = torch.Generator(device).manual_seed(seed)
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.02, generator=generator)
            else:  # norms keep the size of what goes through (Gemma stores w - 1), biases add nothing
                scale = "norm" in name and name.endswith("weight") and not (self.family == "gemma3" and "_norm" in name)
                weight.fill_(1.0 if scale else 0.0)
        if self.tied:
            model.tie_weights()
        return model

    def count(self, model: Any) -> int:
        """Parameters of a model made by :meth:`build`: a tied matrix counts once."""
        names = (n for n, _ in model.named_parameters() if not (self.tied and n == "lm_head.weight"))
        return sum(model.get_parameter(name).numel() for name in names)


PUBLISHED: dict[str, Published] = {
    "qwen2_5_vl_3b": Published(
        "qwen2_5_vl",
        {
            "vocab_size": 151936,
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
        },
        3_754_622_976,
    ),
    "qwen2_5_vl_7b": Published(
        "qwen2_5_vl",
        {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        8_292_166_656,
        tied=False,
    ),
    "gemma3_4b": Published("gemma3", _GEMMA_4B, 4_300_079_472),
    "gemma3_12b": Published(
        "gemma3",
        {
            **_GEMMA_4B,
            "hidden_size": 3840,
            "intermediate_size": 15360,
            "num_hidden_layers": 48,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
        },
        12_187_325_040,
    ),
    "medgemma_4b": Published("gemma3", _GEMMA_4B, 4_300_079_472),
    "medgemma1_5_4b": Published("gemma3", _GEMMA_4B, 4_300_079_472),
}
"""Key of the benchmark -> its published facts."""
