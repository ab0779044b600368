"""Frames in float, half-transparent masks and noise among them, on a differentiable way to the score.

What the processor is given in bytes it rounds to bytes after its resize, which has no gradient. Given floats, the same
operations of torch carry gradients: every family's own processor is that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.batching import batch_size, bytes_per_image, default_budget, run_in_batches
from medground_bench.lvlm.embeddings import check_finite

if TYPE_CHECKING:
    from medground_bench.lvlm.episode import Episode
    from medground_bench.lvlm.model import Lvlm

__all__ = ["frame_gradients", "gradient_batch", "soft_log_probs", "soft_pixel_values"]

_ROUNDING = 1.5 / 255
"""Twice rounded to bytes (after each direction of a resize), in units of the pixels' range; the median is below it."""


def soft_pixel_values(lvlm: Lvlm, episode: Episode, frames: torch.Tensor) -> torch.Tensor:
    """``pixel_values`` of N frames as the model takes a batch of them, differentiable.

    Parameters
    ----------
    lvlm, episode
        The model and the episode whose frame they vary.
    frames : tensor, (N, 1 or 3, H, W)
        Grey levels 0 to 255, float.

    Raises
    ------
    LvlmError
        If gradients do not pass the image processor, or it makes something else of floats than of bytes.
    """
    return _soft_inputs(lvlm, episode, frames)["pixel_values"]


def _soft_inputs(lvlm: Lvlm, episode: Episode, frames: torch.Tensor) -> dict[str, Any]:
    """What the processor makes of float frames: everything the model takes where the family is read whole."""
    lvlm.check_episode(episode)
    own = episode.inputs["pixel_values"]
    if not lvlm.followed:
        whole = torch.from_numpy(episode.frame_array.astype(np.float32)).to(lvlm.device)
        leaf = (whole[None] if whole.ndim == 2 else whole.permute(2, 0, 1))[None].requires_grad_(True)
        with torch.enable_grad():
            mine = _processed(lvlm, episode, leaf)["pixel_values"]
        fits = mine.requires_grad and mine.shape == own.shape
        if not fits or float((mine.detach() - own).abs().median()) > _ROUNDING * float(own.max() - own.min()):
            raise LvlmError("this image processor cannot be followed in float", where=lvlm.key)
        lvlm.followed = True
    out = _processed(lvlm, episode, frames)
    return {**out, "pixel_values": out["pixel_values"].to(own.dtype)}


def _processed(lvlm: Lvlm, episode: Episode, frames: torch.Tensor) -> dict[str, Any]:
    processor = lvlm.processor.image_processor
    if getattr(processor, "backend", "torchvision" if hasattr(processor, "device") else "pil") != "torchvision":
        raise LvlmError("this image processor cannot be followed in float: it works on PIL images", where=lvlm.key)
    frames = frames.expand(-1, 3, -1, -1)
    if lvlm.adapter.whole:
        return lvlm.variant_inputs(episode, frames)
    return dict(processor(images=list(frames), return_tensors="pt"))


def soft_log_probs(lvlm: Lvlm, episode: Episode, frames: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the response's tokens, (N, T), of float frames (N, 1 or 3, H, W); differentiable."""
    inputs = _soft_inputs(lvlm, episode, frames.to(lvlm.device))
    if not lvlm.adapter.whole:
        images = {name: inputs[name].to(lvlm.device) for name in lvlm.adapter.image_inputs}
        inputs = lvlm.model_inputs(episode, images, len(frames))
    return lvlm.response_log_probs(episode, inputs)


def frame_gradients(
    lvlm: Lvlm, episode: Episode, frames: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and their gradients with respect to the frame's grey levels.

    Parameters
    ----------
    lvlm, episode
        The model and the text.
    frames : ndarray, (N, H, W) or (N, H, W, 3)
        Grey levels 0 to 255, float.
    weights : ndarray, (T,), optional
        Of the response's tokens in the score; default 1 each.

    Returns
    -------
    scores : ndarray, (N,) float64
        Weighted sums of log-probabilities.
    gradients : ndarray, float64
        Like ``frames``: per grey level; of a grey frame the sum over the model's three channels.
    """
    size = gradient_batch(lvlm, episode)

    def step(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        part = torch.as_tensor(np.asarray(frames[start:stop], np.float32), device=lvlm.device)
        leaf = (part[:, None] if part.ndim == 3 else part.permute(0, 3, 1, 2)).requires_grad_(True)
        with torch.enable_grad():
            tokens = soft_log_probs(lvlm, episode, leaf)
            scores = tokens.sum(1) if weights is None else tokens @ torch.as_tensor(weights).to(tokens)
            (gradient,) = torch.autograd.grad(scores.sum(), leaf)
        check_finite(gradient, "the gradient at the frame", lvlm)
        shaped = gradient[:, 0] if part.ndim == 3 else gradient.permute(0, 2, 3, 1)
        return scores.detach().double().cpu().numpy(), shaped.double().cpu().numpy()

    parts, _ = run_in_batches(len(frames), size, step)
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def gradient_batch(lvlm: Lvlm, episode: Episode) -> int:
    """Images per backward pass that memory allows: every layer's activations stay, not one layer's."""
    images = episode.inputs if lvlm.adapter.whole else lvlm.image_inputs(episode)
    patches = lvlm.adapter.vision_tokens(lvlm.config, images, 1)
    element = torch.finfo(lvlm.dtype).bits // 8
    one = bytes_per_image(lvlm.config, episode.length, len(episode.rows), patches, element)
    vision = lvlm.config.vision_config
    depth = len(lvlm.layers) + int(getattr(vision, "num_hidden_layers", 0) or getattr(vision, "depth", 1))
    budget = lvlm.memory_budget if lvlm.memory_budget is not None else default_budget(lvlm.device)
    return batch_size(budget, one * depth)
