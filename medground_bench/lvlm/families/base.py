"""What differs between families of LVLMs, behind one small class."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.images import to_rgb_images

if TYPE_CHECKING:
    from medground_bench.lvlm.grid import TokenBoxes

__all__ = ["Family"]

Tensors = dict[str, torch.Tensor]


class Family(ABC):
    """How one family of LVLMs wants its text and images, and where its parts are.

    A subclass says how frames become pixel values and how many tokens an image has; the rest has defaults that
    hold for decoder-only models of ``transformers`` with a language model at ``model.model.language_model``.
    """

    model_type: ClassVar[str]
    """``model_type`` of the configuration."""
    image_inputs: ClassVar[tuple[str, ...]] = ("pixel_values",)
    """Names of the inputs that come from the image processor."""
    box_scale: ClassVar[str] = "normalised"
    """How the family writes boxes in text: ``"pixels"`` of its resized image; ``"normalised"`` to 0-1000, as
    ``[y1, x1, y2, x2]`` (Gemma 3); ``"normalised_xyxy"``, to 0-1000 as ``[x1, y1, x2, y2]`` (Qwen3-VL)."""

    response_type: ClassVar[int] = 0
    """Type id of the response's tokens, where the processor gives type ids."""

    from_embeddings: ClassVar[bool] = False
    """The model can be run from merged embeddings alone, without its images."""

    whole: ClassVar[bool] = False
    """Variants of an image go through the model's processor together with the text."""

    # -- text ---------------------------------------------------------------------------------------------------

    def messages(self, turns: Sequence[str]) -> list[dict[str, Any]]:
        """Chat messages of a conversation about one image: turns alternate between user and assistant."""
        chat: list[dict[str, Any]] = []
        for i, text in enumerate(turns):
            content: list[dict[str, Any]] = [{"type": "image"}] if i == 0 else []
            content.append({"type": "text", "text": text})
            chat.append({"role": "user" if i % 2 == 0 else "assistant", "content": content})
        return chat

    # -- images -------------------------------------------------------------------------------------------------

    def configure(self, processor: Any) -> None:  # noqa: B027 - most families have nothing to fix
        """Set what the project fixes on a processor (nothing by default)."""

    def locate(
        self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]
    ) -> tuple[TokenBoxes | None, tuple[int, ...]]:
        """The grid of an image's tokens, None where it is not known, and their places in the sequence.

        Raises
        ------
        LvlmError
            If the two do not fit together.
        """
        grid = self.grid(config, inputs, frame_size)
        found = (inputs["input_ids"][0] == self.image_token_id(config)).nonzero()[:, 0].tolist()
        if len(found) != len(grid):
            raise LvlmError(
                f"the prompt has {len(found)} image tokens, the image {len(grid)}",
                expected="a processor and a model that belong together",
            )
        return grid, tuple(found)

    @abstractmethod
    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenBoxes:
        """The boxes of an image's tokens from the processor's tensors."""

    @abstractmethod
    def processed_size(self, processor: Any, width: int, height: int) -> tuple[int, int]:
        """``(width, height)`` to which the LVLM's processor resizes a frame."""

    @abstractmethod
    def fast_pixels(self, processor: Any, frames: torch.Tensor, device: torch.device) -> Tensors | None:
        """(N, C, H, W) uint8 frames, C = 1 or 3 -> the image inputs, as the processor makes them but batched.

        None where the processor's settings are not those the fast way knows.
        """

    def plain_pixels(self, processor: Any, frames: np.ndarray) -> Tensors:
        """(N, H, W[, 3]) uint8 frames -> the image inputs by the processor itself."""
        out = processor.image_processor(images=to_rgb_images(frames), return_tensors="pt")
        return {name: out[name] for name in self.image_inputs}

    @abstractmethod
    def to_image(self, config: Any, values: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Tensor in the layout of one image's ``pixel_values`` -> (copies, 3, H, W) in image order.

        ``copies`` is how often the family repeats the image in its pixel values (frames of a still video).
        """

    # -- model --------------------------------------------------------------------------------------------------

    def batch(self, model: Any, inputs: Mapping[str, torch.Tensor], images: Tensors, count: int) -> dict[str, Any]:
        """Arguments of the model's forward for ``count`` images under the same text."""
        text = {name: value.expand(count, *value.shape[1:]) for name, value in inputs.items() if value.shape[0] == 1}
        return {**{k: v for k, v in text.items() if k not in self.image_inputs}, **images}

    def positions(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """``position_ids`` of one sequence where the model would else make them of its mask: hiding moves no token."""
        return {}

    def image_token_id(self, config: Any) -> int:
        """Id of the placeholder that image features replace."""
        return int(config.image_token_id)

    def text_config(self, config: Any) -> Any:
        """Configuration of the language model."""
        return config.get_text_config()

    def decoder(self, model: Any) -> torch.nn.Module:
        """The language model without its head."""
        inner = getattr(model, "model", model)
        for name in ("language_model", "text_model"):
            if isinstance(found := getattr(inner, name, None), torch.nn.Module):
                return found
        decoder: torch.nn.Module = model.get_decoder()
        return decoder

    def layers(self, model: Any) -> torch.nn.ModuleList:
        """Its decoder layers; each has ``self_attn`` with ``q_proj``, ``k_proj``, ``v_proj``, ``o_proj``."""
        layers = getattr(self.decoder(model), "layers", None)
        if not isinstance(layers, torch.nn.ModuleList):
            raise LvlmError(f"{type(model).__name__} has no list of decoder layers")
        return layers

    def keys_of(self, layers: Any, number: int) -> int:
        """The decoder layer whose keys and values a layer reads: its own, but for families whose layers share them."""
        return number

    def attention_norm(self, layer: Any) -> Any:
        """The norm between a layer's attention and the residual stream (Gemma's sandwich), or None."""
        return layer.post_attention_layernorm if hasattr(layer, "pre_feedforward_layernorm") else None

    def mlp_norm(self, layer: Any) -> Any:
        """The norm through which a layer's MLP reads the residual stream."""
        found = getattr(layer, "pre_feedforward_layernorm", None) or getattr(layer, "post_attention_layernorm", None)
        if found is None:
            raise LvlmError(f"the MLP of a {type(layer).__name__} has no norm of a known name before it")
        return found

    def rotary_tables(self, attention: Any, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The rotary tables as (B, S, d), whatever form the layers receive them in."""
        return cos, sin

    @contextmanager
    def quartered(self, model: Any) -> Iterator[None]:
        """Inside it, the vision tower sees the four quarters of an image apart: none of it reaches another.

        Raises
        ------
        LvlmError
            If that is not known of the family, or the patches do not part at the middle.
        """
        raise LvlmError(
            f"how the vision tower of {self.model_type!r} is parted into quarters is not known",
            expected="gemma3, llava, paligemma, qwen2_vl, qwen2_5_vl or qwen3_vl",
        )
        yield

    def rotate(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        """Rotary position embedding of (heads, n, d) with tables (n, up to d): x cos + (-x2, x1) sin."""
        turned, kept = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
        return torch.cat((turned * cos + self.quarter_turn(turned) * sin, kept), dim=-1)

    def quarter_turn(self, x: torch.Tensor) -> torch.Tensor:
        """The pairs of a rotary embedding, turned by a right angle: halves, (-x2, x1)."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat((-second, first), dim=-1)

    @abstractmethod
    def vision_tokens(self, config: Any, images: Mapping[str, torch.Tensor], count: int) -> int:
        """Patches that one image makes the vision tower process (for the memory estimate)."""


@contextmanager
def patches_apart(layers: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Inside it, patches of a square attend to those of their own quarter alone, in every layer of a vision tower.

    Their position embeddings stay those of the whole. A class token in front, which would tell one quarter of another,
    attends to itself, and no patch attends to it.

    Raises
    ------
    LvlmError
        In a pass, if the patches are no square with an even side.
    """

    def apart(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden = args[0] if args else kwargs["hidden_states"]
        count = hidden.shape[1]
        side = math.isqrt(count)
        if count - side**2 > 1 or side % 2:
            raise LvlmError(f"{count} patches have no quarters", expected="an even square")
        half = torch.arange(side, device=hidden.device) >= side // 2
        quarter = torch.nn.functional.pad((2 * half[:, None].long() + half).reshape(-1), (count - side**2, 0), value=-1)
        mask = torch.zeros(1, 1, count, count, dtype=hidden.dtype, device=hidden.device)
        mask.masked_fill_(quarter[:, None] != quarter, torch.finfo(hidden.dtype).min)
        return (hidden,), {k: v for k, v in kwargs.items() if k != "hidden_states"} | {"attention_mask": mask}

    handles = [layer.register_forward_pre_hook(apart, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def vision_layers(model: Any) -> torch.nn.ModuleList:
    """The layers of a vision tower that has one list of them."""
    for module in model.model.vision_tower.modules():
        found = getattr(module, "layers", None)
        if isinstance(found, torch.nn.ModuleList):
            return found
    raise LvlmError(f"the vision tower of {type(model).__name__} has no list of layers")


def stack_to_tensor(frames: np.ndarray) -> torch.Tensor:
    """(N, H, W[, 3]) uint8 -> (N, 1 or 3, H, W) uint8 tensor."""
    tensor = torch.from_numpy(np.ascontiguousarray(frames))
    return tensor[:, None] if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()


def knows(image_processor: Any) -> bool:
    """Whether the fast way reproduces this image processor: torch based, resizing, rescaling, normalising."""
    flags = all(getattr(image_processor, flag, False) for flag in ("do_resize", "do_rescale", "do_normalize"))
    stats = getattr(image_processor, "image_mean", None) is not None and image_processor.image_std is not None
    backend = getattr(image_processor, "backend", "torchvision" if hasattr(image_processor, "device") else "pil")
    return bool(flags and stats and backend == "torchvision")


_INTERPOLATION = {2: "bilinear", 3: "bicubic"}
"""PIL's filters that torchvision's tensor resize has too, by PIL's number."""


def resized(frames: torch.Tensor, size: tuple[int, int], resample: int) -> torch.Tensor | None:
    """(N, C, H, W) uint8 -> (N, C, h, w) uint8 for ``size`` (w, h), antialiased; None for other filters."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as tv

    width, height = size
    if tuple(frames.shape[-2:]) == (height, width):
        return frames
    if int(resample) not in _INTERPOLATION:
        return None
    mode = InterpolationMode(_INTERPOLATION[int(resample)])
    out: torch.Tensor = tv.resize(frames, [height, width], interpolation=mode, antialias=True)
    return out


def normalisation(image_processor: Any, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel in units of 0-255, as the fused normalisation has them."""
    scale = 1.0 / image_processor.rescale_factor
    mean = torch.tensor(image_processor.image_mean, device=device) * scale
    std = torch.tensor(image_processor.image_std, device=device) * scale
    return mean.reshape(-1), std.reshape(-1)
