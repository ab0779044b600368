"""Batches that fit a memory budget and get smaller when they do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from medground_bench.core.errors import LvlmError

__all__ = ["batch_size", "bytes_per_image", "default_budget", "run_in_batches"]

T = TypeVar("T")

_CPU_BUDGET = 1 << 30
_GPU_SHARE = 0.5
_LARGEST = 64


def default_budget(device: torch.device) -> int:
    """Bytes that a batch may use beyond the weights: half of the free GPU memory, 1 GiB on a CPU."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * _GPU_SHARE)
    return _CPU_BUDGET


def bytes_per_image(config: Any, length: int, rows: int, patches: int, element_size: int) -> int:
    """Rough upper estimate of what one image needs in a forward pass without gradients.

    Only one layer's activations live at a time: a handful of hidden-sized and two MLP-sized tensors per token,
    in the vision tower and in the decoder; the logits of the response rows, twice in float32.
    """
    text = config.get_text_config()
    vision = getattr(config, "vision_config", None)
    width = getattr(vision, "hidden_size", None) or text.hidden_size
    inner = getattr(vision, "intermediate_size", None) or 4 * width
    decoder = length * (8 * text.hidden_size + 3 * (getattr(text, "intermediate_size", None) or 4 * text.hidden_size))
    tower = patches * (8 * width + 3 * inner)
    side = getattr(vision, "patch_size", None)
    patch = side if isinstance(side, int) else 14
    logits = rows * text.vocab_size * (element_size + 8)
    pixels = 8 * patches * 3 * patch**2
    return max(decoder, tower) * element_size + logits + pixels


def batch_size(budget: int, per_image: int) -> int:
    """Images per batch within the budget, at least one."""
    return max(1, min(_LARGEST, budget // max(per_image, 1)))


def run_in_batches(count: int, size: int, step: Callable[[int, int], T]) -> tuple[list[T], int]:
    """``step(start, stop)`` over all of ``range(count)``, halving the batch when memory runs out.

    Returns
    -------
    tuple
        The results in order, and the batch size that worked.

    Raises
    ------
    LvlmError
        If not even one image fits.
    """
    results: list[T] = []
    start = 0
    while start < count:
        stop = min(count, start + size)
        out, failure = _attempt(step, start, stop)
        if failure is None:
            results.append(out)  # type: ignore[arg-type]
            start = stop
            continue
        if stop - start == 1:
            raise LvlmError(
                f"one image does not fit into memory: {failure}",
                remedy="use a smaller LVLM, a lower precision (dtype='bfloat16') or a device with more memory",
            )
        size = (stop - start) // 2
        clear_device_cache(garbage_collection=True)
    return results, size


def _attempt(step: Callable[[int, int], T], start: int, stop: int) -> tuple[T | None, str | None]:
    # A function of its own, so that the failed pass's tensors are freed before the next try.
    try:
        return step(start, stop), None
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or should_reduce_batch_size(error):
            return None, str(error).splitlines()[0] if str(error) else type(error).__name__
        raise
