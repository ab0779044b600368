"""The merged embeddings that enter the decoder, and the score from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.batching import run_in_batches
from medground_bench.lvlm.images import stack_variants

if TYPE_CHECKING:
    from medground_bench.lvlm.episode import Episode
    from medground_bench.lvlm.model import Lvlm

__all__ = [
    "check_finite",
    "decoder_entry",
    "embedding_log_probs",
    "image_features",
    "layer_numbers",
    "leaf_embeddings",
    "merged_embeddings",
    "score_embeddings",
    "score_from_entry",
]

_INJECTED = "deepstack_visual_embeds"
"""What Qwen3-VL adds to the image positions after some of its layers: (P, D) tensors, a list of them."""


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
    if images is None and lvlm.adapter.whole:
        return leaf_embeddings(lvlm, episode).expand(count, -1, -1)
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

    ``hidden``, (N, S) bool, takes positions out of everybody's attention; the places of the others stay. Where a family
    also adds image features to later layers (DeepStack), those are the episode's own image's.
    """
    if not lvlm.adapter.from_embeddings:
        return torch.cat([_replayed(lvlm, episode, embeddings, hidden, n) for n in range(len(embeddings))])
    inputs = lvlm.adapter.batch(lvlm.model, episode.inputs, {}, embeddings.shape[0])
    inputs.pop("input_ids")
    if hidden is not None:
        inputs["attention_mask"] = inputs["attention_mask"].masked_fill(hidden, 0)
    return lvlm.response_log_probs(episode, {**inputs, "inputs_embeds": embeddings})


def _replayed(
    lvlm: Lvlm, episode: Episode, embeddings: torch.Tensor, hidden: torch.Tensor | None, n: int
) -> torch.Tensor:
    """One pass of the whole model in which other embeddings enter the decoder: right for every family, but slower."""
    inputs = lvlm.model_inputs(episode)
    if hidden is not None:
        inputs["attention_mask"] = inputs["attention_mask"].masked_fill(hidden[n : n + 1], 0)
    with decoder_entry(lvlm, lambda arguments: {**arguments, "inputs_embeds": embeddings[n : n + 1]}):
        return lvlm.response_log_probs(episode, inputs)


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
        The model and the text; where the family allows it the vision tower is not run.
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
        if lvlm.adapter.whole:
            return score_from_entry(lvlm, episode, image)[1][0]
        images = None if image is None else lvlm.pixel_inputs(episode, [image])
        return merged_embeddings(lvlm, episode, images)


def score_from_entry(
    lvlm: Lvlm, episode: Episode, image: Any = None, *, leaves: bool = False
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """One pass of the whole model of any family, cut where the decoder begins.

    Parameters
    ----------
    lvlm, episode
        The model and what it reads.
    image : PIL image or array, optional
        A variant of the frame to read in place of the episode's image.
    leaves : bool
        Whether gradients are taken at the cut.

    Returns
    -------
    scores : tensor
        (1, T) float32 log-probabilities of the response's tokens.
    entering : list of tensor
        What enters the decoder, without history: the merged embeddings (1, S, D) and, where the family adds image
        features to later layers too (DeepStack), those, (P, D) each.
    """
    inputs = lvlm.model_inputs(episode)
    if image is not None:
        inputs = lvlm.variant_inputs(episode, stack_variants([image], episode.letterbox))
    entering: list[torch.Tensor] = []

    def cut(arguments: dict[str, Any]) -> dict[str, Any]:
        def leaf(value: torch.Tensor) -> torch.Tensor:
            entering.append(value.detach().requires_grad_(leaves))
            return entering[-1]

        changed: dict[str, Any] = {"inputs_embeds": leaf(arguments["inputs_embeds"])}
        if arguments.get(_INJECTED):
            changed[_INJECTED] = [leaf(features) for features in arguments[_INJECTED]]
        return {**arguments, **changed}

    with decoder_entry(lvlm, cut):
        scores = lvlm.response_log_probs(episode, inputs)
    if not entering or entering[0].shape[1] != episode.length:
        raise LvlmError("the embeddings that enter the decoder do not fit the processor's tokens", where=lvlm.key)
    return scores, entering


@contextmanager
def decoder_entry(lvlm: Lvlm, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    """Within it, what the decoder is called with goes through ``change`` first."""

    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if kwargs.get("inputs_embeds") is None:
            raise LvlmError(f"the decoder of {lvlm.family!r} is not given embeddings", where=lvlm.key)
        return args, change(kwargs)

    handle = lvlm.adapter.decoder(lvlm.model).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


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
