"""Images on their way to a model: modes, frames, stacks of variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image as pil
from PIL.Image import Image

from medground_bench.core.errors import LvlmError
from medground_bench.imaging.letterbox import Letterbox

__all__ = ["letterbox_image", "stack_variants", "to_display"]

_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def to_display(image: Any) -> Image:
    """The image in mode "L" or "RGB".

    Raises
    ------
    LvlmError
        If it is no PIL image, has no pixels, or has more than 8 bits per channel (reading such a file is a
        question of windowing, which :func:`medground_bench.imaging.read.read_image` answers).
    """
    if not isinstance(image, Image):
        raise LvlmError(f"an image is needed, not {type(image).__name__}", expected="a PIL image")
    if min(image.size) < 1:
        raise LvlmError(f"the image has no pixels: {image.size[0]}x{image.size[1]}")
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in _DEEP:
        raise LvlmError(
            f"the image has mode {image.mode!r}",
            expected="8 bits per channel",
            remedy="read the file with medground_bench.imaging.read.read_image",
        )
    return image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")


def letterbox_image(image: Any, side: int | None) -> tuple[Image, Image, Letterbox]:
    """Native image -> (native in mode L or RGB, frame in mode RGB, the letterbox between them).

    ``side=None`` leaves the image at its native size: the frame is the image.
    """
    native = to_display(image)
    box = Letterbox.fit(*native.size, side)
    return native, box.apply(native).convert("RGB"), box


def stack_variants(images: Any, box: Letterbox) -> np.ndarray:
    """Variants of a frame -> one uint8 array, (N, H, W) when all are grey, else (N, H, W, 3).

    Parameters
    ----------
    images : array or sequence
        (N, H, W) or (N, H, W, 3) uint8, a torch tensor of that kind, or a sequence of PIL images or single arrays.
        PIL images may be of the frame's size or of the native size, in which case they are letterboxed.
    box : Letterbox
        The episode's letterbox.

    Raises
    ------
    LvlmError
        If a variant is not 8-bit or has another size.
    """
    if isinstance(images, Image):
        images = [images]
    if hasattr(images, "detach"):
        images = images.detach().cpu().numpy()
    if isinstance(images, np.ndarray):
        stack = _check_array(images, box)
    elif isinstance(images, Sequence):
        if not images:
            return np.zeros((0, box.frame_height, box.frame_width), np.uint8)
        frames = [_one(image, box) for image in images]
        if any(f.ndim == 3 for f in frames):
            frames = [f if f.ndim == 3 else np.repeat(f[..., None], 3, axis=-1) for f in frames]
        stack = np.stack(frames)
    else:
        raise LvlmError(f"variants cannot be a {type(images).__name__}", expected=_EXPECTED)
    if stack.ndim == 4 and _is_grey(stack):
        stack = stack[..., 0]
    return np.ascontiguousarray(stack)


_EXPECTED = "PIL images, or a uint8 array of shape (N, H, W) or (N, H, W, 3) over the frame"


def _one(image: Any, box: Letterbox) -> np.ndarray:
    if isinstance(image, Image):
        image = to_display(image)
        frame = (box.frame_width, box.frame_height)
        if image.size != frame:
            if image.size != (box.width, box.height):
                raise LvlmError(
                    f"a variant is {image.size[0]}x{image.size[1]} pixels",
                    expected=f"the frame's {frame[0]}x{frame[1]} or the native {box.width}x{box.height}",
                )
            image = box.apply(image)
        return np.asarray(image)
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
    return np.asarray(_check_array(np.asarray(image)[None], box)[0])


def _check_array(array: np.ndarray, box: Letterbox) -> np.ndarray:
    frame = (box.frame_height, box.frame_width)
    if array.dtype != np.uint8:
        raise LvlmError(f"variants have dtype {array.dtype}", expected=_EXPECTED)
    if array.shape[1:] not in (frame, (*frame, 3)):
        raise LvlmError(f"variants have shape {array.shape}", expected=f"{_EXPECTED}, here H, W = {frame}")
    return array


def _is_grey(stack: np.ndarray) -> bool:
    first = stack[..., 0]
    return bool(np.array_equal(first, stack[..., 1]) and np.array_equal(first, stack[..., 2]))


def to_rgb_images(stack: np.ndarray) -> list[Image]:
    """(N, H, W[, 3]) uint8 -> PIL images in mode RGB: what a plain processor is given."""
    return [pil.fromarray(frame).convert("RGB") for frame in stack]
