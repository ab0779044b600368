"""Any other class behind ``AutoModelForImageTextToText``: what its own processor and chat template can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.families.base import Family, Tensors

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm.grid import TokenBoxes

__all__ = ["Generic"]


class Generic(Family):
    """A family without an adapter of its own: it generates and scores, and where its image tokens lie is measured.

    Every variant of an image goes through the model's own processor together with the text, which is right for tiles,
    thumbnails, masks and whatever else a family makes of an image, and slower than an adapter. White-box methods work
    on hidden states, attention and embeddings where the decoder's layers are of the usual form, and on gradients at the
    frame where the processor works in torch; gradients in the layout of its pixel values are not on offer.
    """

    whole = True

    def __init__(self, model_type: str) -> None:
        self.model_type = model_type  # type: ignore[misc]

    def _no(self, what: str) -> NoReturn:
        raise LvlmError(
            f"the inside of {self.model_type!r} is not known: {what}",
            expected="a method that does not need them, or a family with an adapter of its own",
            remedy="to add one, subclass medground_bench.lvlm.families.base.Family",
        )

    def locate(
        self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]
    ) -> tuple[TokenBoxes | None, tuple[int, ...]]:
        token = getattr(config, "image_token_id", None)
        token = getattr(config, "image_token_index", None) if token is None else token
        if token is None:
            return None, ()
        return None, tuple((inputs["input_ids"][0] == int(token)).nonzero()[:, 0].tolist())

    def grid(self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]) -> TokenBoxes:
        self._no("where its image tokens lie")

    def processed_size(self, processor: Any, width: int, height: int) -> tuple[int, int]:
        return width, height  # boxes it writes are taken to be in the frame it was given

    def fast_pixels(self, processor: Any, frames: torch.Tensor, device: torch.device) -> Tensors | None:
        self._no("its pixel values")

    def plain_pixels(self, processor: Any, frames: np.ndarray) -> Tensors:
        self._no("its pixel values")

    def to_image(self, config: Any, values: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        self._no("its pixel values")

    def vision_tokens(self, config: Any, images: Mapping[str, torch.Tensor], count: int) -> int:
        """From the size of the pixel values: patches of 14 pixels unless the configuration says otherwise."""
        vision = getattr(config, "vision_config", None)
        patch = getattr(vision, "patch_size", None)
        side = patch if isinstance(patch, int) else 14
        values = images.get("pixel_values")
        return 1024 if values is None else max(1, values.numel() // (3 * side * side * max(count, 1)))
