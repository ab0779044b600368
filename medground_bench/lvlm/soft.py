"""Frames in float, half-transparent masks and noise among them, on a differentiable way to the score.

The processor's own way ends in bytes: what it rounds has no gradient. Here a frame is resized and normalised in float,
and put into the layout of the family's ``pixel_values`` by the inverse of ``Family.to_image``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.batching import batch_size, bytes_per_image, default_budget, run_in_batches
from medground_bench.lvlm.embeddings import check_finite
from medground_bench.lvlm.families.base import knows, normalisation

if TYPE_CHECKING:
    from medground_bench.lvlm.episode import Episode
    from medground_bench.lvlm.model import Lvlm

__all__ = ["frame_gradients", "gradient_batch", "soft_log_probs", "soft_pixel_values"]

_FILTERS = {2: "bilinear", 3: "bicubic"}  # PIL's numbers


def soft_pixel_values(lvlm: Lvlm, episode: Episode, frames: torch.Tensor) -> torch.Tensor:
    """``pixel_values`` of N frames one after the other, differentiable.

    Parameters
    ----------
    lvlm, episode
        The model and the episode whose frame they vary.
    frames : tensor, (N, 1 or 3, H, W)
        Grey levels 0 to 255, float.

    Raises
    ------
    LvlmError
        If the family's image processor or pixel layout is not one that can be followed.
    """
    processor = lvlm.processor.image_processor
    own = lvlm.image_inputs(episode)["pixel_values"]
    height, width = frames.shape[-2:]
    size = lvlm.adapter.processed_size(lvlm.processor, width, height)
    mode = _FILTERS.get(int(getattr(processor, "resample", 3)))
    if not knows(processor) or mode is None:
        raise LvlmError("this image processor cannot be followed in float", where=lvlm.key)
    if (width, height) != tuple(size):
        frames = torch.nn.functional.interpolate(frames, (size[1], size[0]), mode=mode, antialias=True)
    mean, std = (v.view(1, -1, 1, 1).to(frames) for v in normalisation(processor, frames.device))
    normed = (frames - mean) / std  # (N, 3, h, w)

    numbers = torch.arange(own.numel(), dtype=torch.float64).reshape(own.shape)
    place = lvlm.adapter.to_image(lvlm.config, numbers, episode.inputs).long()  # (copies, 3, h, w)
    if place.shape[1:] != normed.shape[1:] or not torch.equal(place.flatten().sort().values, numbers.flatten().long()):
        raise LvlmError("the layout of these pixel values cannot be followed in float", where=lvlm.key)
    source = torch.argsort(place.flatten()).to(frames.device) % normed[0].numel()
    return normed.flatten(1)[:, source].reshape(len(frames) * own.shape[0], *own.shape[1:])


def soft_log_probs(lvlm: Lvlm, episode: Episode, frames: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the response's tokens, (N, T), of float frames (N, 1 or 3, H, W); differentiable."""
    values = soft_pixel_values(lvlm, episode, frames.to(lvlm.device))
    own = lvlm.image_inputs(episode)
    images = {k: v.repeat(len(frames), *[1] * (v.ndim - 1)) for k, v in own.items() if k != "pixel_values"}
    images["pixel_values"] = values.to(own["pixel_values"].dtype)
    return lvlm.response_log_probs(episode, lvlm.model_inputs(episode, images, len(frames)))


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
    images = lvlm.image_inputs(episode)
    patches = lvlm.adapter.vision_tokens(lvlm.config, images, 1)
    element = torch.finfo(lvlm.dtype).bits // 8
    one = bytes_per_image(lvlm.config, episode.length, len(episode.rows), patches, element)
    vision = lvlm.config.vision_config
    depth = len(lvlm.layers) + int(getattr(vision, "num_hidden_layers", 0) or getattr(vision, "depth", 1))
    budget = lvlm.memory_budget if lvlm.memory_budget is not None else default_budget(lvlm.device)
    return batch_size(budget, one * depth)
