"""The merged embeddings that enter the decoder, and the score from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.batching import run_in_batches

if TYPE_CHECKING:
    from medground_bench.lvlm.episode import Episode
    from medground_bench.lvlm.model import Lvlm

__all__ = [
    "check_finite",
    "embedding_log_probs",
    "image_features",
    "layer_numbers",
    "leaf_embeddings",
    "merged_embeddings",
    "score_embeddings",
]


def image_features(lvlm: Lvlm, images: Mapping[str, torch.Tensor], count: int) -> torch.Tensor:
    """What the vision tower and projector make of images: (N, P, D), as it replaces the image tokens.

    Parameters
    ----------
    lvlm : Lvlm
        The model.
    images : mapping of str to tensor
        From :meth:`Lvlm.pixel_inputs`.
    count : int
        N.
    """
    out = lvlm.model.model.get_image_features(**images)
    features = getattr(out, "pooler_output", out)
    if isinstance(features, tuple | list):
        features = torch.cat(list(features))
    return features.reshape(count, -1, features.shape[-1])


def merged_embeddings(
    lvlm: Lvlm, episode: Episode, images: Mapping[str, torch.Tensor] | None = None, count: int = 1
) -> torch.Tensor:
    """Hidden state 0, (N, S, D): text embeddings with the image's features at the image positions.

    Parameters
    ----------
    lvlm, episode
        The model and the text.
    images : mapping of str to tensor, optional
        Image inputs of ``count`` variants, from :meth:`Lvlm.pixel_inputs`; by default the episode's own image.
    count : int
        N.
    """
    if images is None:
        images = lvlm.image_inputs(episode)
    positions = torch.tensor(episode.image_positions, device=lvlm.device)
    ids = episode.inputs["input_ids"].clone()
    ids[:, positions] = 0  # the placeholder may lie beyond the embedding table
    text = lvlm.model.get_input_embeddings()(ids).expand(count, -1, -1)
    features = image_features(lvlm, images, count).to(text)
    return text.index_copy(1, positions, features)


def score_embeddings(
    lvlm: Lvlm, episode: Episode, embeddings: torch.Tensor, hidden: torch.Tensor | None = None
) -> torch.Tensor:
    """Log-probabilities of the response's tokens, (N, T) float32, from merged embeddings (N, S, D); differentiable.

    ``hidden``, (N, S) bool, takes positions out of everybody's attention; the places of the others stay.
    """
    inputs = lvlm.adapter.batch(lvlm.model, episode.inputs, {}, embeddings.shape[0])
    inputs.pop("input_ids")
    if hidden is not None:
        inputs["attention_mask"] = inputs["attention_mask"].masked_fill(hidden, 0)
    return lvlm.response_log_probs(episode, {**inputs, "inputs_embeds": embeddings})


def embedding_log_probs(
    lvlm: Lvlm,
    episode: Episode,
    count: int,
    variants: Callable[[int, int], torch.Tensor],
    hidden: torch.Tensor | None = None,
) -> np.ndarray:
    """Log-probabilities of the response's tokens for variants of the merged embeddings, (N, T) float64.

    Parameters
    ----------
    lvlm, episode
        The model and the text; the vision tower is not run.
    count : int
        N.
    variants : callable
        ``(start, stop)`` -> merged embeddings (stop - start, S, D): only a batch of them is held at a time.
    hidden : tensor, (N, S) bool, optional
        As in :func:`score_embeddings`.
    """

    def step(start: int, stop: int) -> np.ndarray:
        with torch.no_grad():
            part = None if hidden is None else hidden[start:stop]
            scores = score_embeddings(lvlm, episode, variants(start, stop), part)
        check_finite(scores, "the score", lvlm)
        return scores.double().cpu().numpy()

    parts, _ = run_in_batches(count, lvlm.fitting_batch(episode), step)
    return np.concatenate(parts)


def leaf_embeddings(lvlm: Lvlm, episode: Episode, image: Any = None) -> torch.Tensor:
    """Hidden state 0, (1, S, D), of the episode's image or of a variant of the frame, a leaf without history."""
    with torch.no_grad():
        images = None if image is None else lvlm.pixel_inputs(episode, [image])
        return merged_embeddings(lvlm, episode, images)


def layer_numbers(wanted: Iterable[int] | None, count: int, what: str) -> list[int]:
    """Layer numbers 0 ... count - 1, sorted, from numbers that may be negative; None is all of them.

    Raises
    ------
    LvlmError
        If there is no such layer.
    """
    chosen = list(range(count)) if wanted is None else [int(i) for i in wanted]
    for i in chosen:
        if not -count <= i < count:
            raise LvlmError(f"there is no layer {i}: the model has {count} {what}", expected=f"0 to {count - 1}")
    return sorted({i % count for i in chosen})


def check_finite(values: torch.Tensor, what: str, lvlm: Lvlm) -> None:
    """Raise :class:`LvlmError` if ``values`` holds NaN or infinity."""
    if not bool(torch.isfinite(values).all()):
        raise LvlmError(
            f"{what} is not finite",
            where=lvlm.key,
            remedy="load the model with dtype='float32' or 'bfloat16'; if they stay, its weights are broken",
        )
