"""Inside an LVLM: hidden states, attention and gradients of the sequence score, one layer at a time.

Every function takes an LVLM and one of its episodes and runs the model's own kernel; nothing here needs eager
attention or keeps the attention of more than one layer. Hooks are removed on exit, whatever happens. Shapes:
S tokens in the sequence, T in the response, P image tokens, D hidden size, H heads, L decoder layers.

The score that gradients refer to is the benchmark's target: the sum over the response's tokens of their
log-probabilities.

Layers are counted as Python counts, negative numbers from the end: attention layers 0 ... L-1, hidden states
0 ... L, where hidden state 0 is the merged embeddings (text and image) that enter the first layer and hidden
state l what leaves layer l-1. (``output_hidden_states`` of transformers differs in its last entry, to which it
applies the final norm.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.batching import run_in_batches
from medground_bench.lvlm.embeddings import (
    check_finite,
    embedding_log_probs,
    image_features,
    layer_numbers,
    merged_embeddings,
    score_embeddings,
    score_from_entry,
)
from medground_bench.lvlm.soft import gradient_batch
from medground_bench.lvlm.trace import AttentionTrace, trace_attention

if TYPE_CHECKING:
    from medground_bench.lvlm.episode import Episode
    from medground_bench.lvlm.model import Lvlm

__all__ = [
    "AttentionTrace",
    "embedding_gradients",
    "embedding_log_probs",
    "embedding_relevance",
    "hidden_gradients",
    "hidden_states",
    "image_features",
    "merged_embeddings",
    "pixel_gradients",
    "pixel_map",
    "score_embeddings",
    "trace_attention",
]


# -- hidden states --------------------------------------------------------------------------------------------------


def hidden_states(
    lvlm: Lvlm, episode: Episode, layers: Iterable[int] | None = None, image: Any = None
) -> dict[int, torch.Tensor]:
    """Hidden states of chosen layers, {layer: (S, D)}, without gradients.

    Parameters
    ----------
    lvlm, episode
        The model and what it reads.
    layers : iterable of int, optional
        0 ... L or negative; default all. Keys of the result are the numbers 0 ... L.
    image : PIL image or array, optional
        A variant of the frame to read in place of the episode's image.
    """
    wanted = layer_numbers(layers, len(lvlm.layers) + 1, "hidden states")
    with torch.no_grad(), ExitStack() as stack:
        seen = _watch_hidden(lvlm, wanted, stack)
        score_from_entry(lvlm, episode, image)
    return {layer: seen[layer][0] for layer in wanted}


def hidden_gradients(
    lvlm: Lvlm, episode: Episode, layers: Iterable[int] | None = None, image: Any = None, *, read: bool = False
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Hidden states of chosen layers and the score's gradients there: {layer: (states, gradients)}, each (S, D).

    One forward and one backward pass. The gradient at the image positions of the last hidden state is zero: only
    the predicting rows of that layer reach the score. With ``read`` hidden state l is taken as the attention of layer l
    reads it, after the norm, and gradients are those that go through that attention; nothing reads the last.

    Raises
    ------
    LvlmError
        If a gradient is not finite, or nothing reads a state.
    """
    wanted = layer_numbers(layers, len(lvlm.layers) + (not read), "hidden states")
    with torch.enable_grad(), ExitStack() as stack:
        seen = (_watch_read if read else _watch_hidden)(lvlm, wanted, stack)
        scores, _ = score_from_entry(lvlm, episode, image, leaves=True)
        states = [seen[layer] for layer in wanted]
        gradients = torch.autograd.grad(scores.sum(), states)
    out = {}
    for layer, state, gradient in zip(wanted, states, gradients, strict=True):
        check_finite(gradient, f"the gradient at hidden state {layer}", lvlm)
        out[layer] = (state[0].detach(), gradient[0])
    return out


def embedding_gradients(lvlm: Lvlm, episode: Episode, image: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Merged image embeddings and the score's gradients there, both (P, D), in the order of the image tokens.

    Where a family also adds image features to later layers (DeepStack), those and their gradients stand beside them:
    (P, D * (1 + injections)).

    Raises
    ------
    LvlmError
        If a gradient is not finite.
    """
    entering, gradients = _entry_gradients(lvlm, episode, image)
    positions = torch.tensor(episode.image_positions, device=entering[0].device)

    def at_image(merged: torch.Tensor, *injected: torch.Tensor) -> torch.Tensor:
        return torch.cat([merged[0, positions], *injected], dim=-1).detach()

    return at_image(*entering), at_image(*gradients)


def embedding_relevance(lvlm: Lvlm, episode: Episode) -> torch.Tensor:
    """Embedding times gradient at every position of the sequence, (S,) float64.

    Where a family also adds image features to later layers (DeepStack), theirs count at their image tokens.

    Raises
    ------
    LvlmError
        If a gradient is not finite.
    """
    entering, gradients = _entry_gradients(lvlm, episode)
    merged, *injected = ((e.double() * g.double()).sum(-1) for e, g in zip(entering, gradients, strict=True))
    total: torch.Tensor = merged[0].detach()
    for features in injected:
        total[list(episode.image_positions)] += features.detach()
    return total


def _entry_gradients(
    lvlm: Lvlm, episode: Episode, image: Any = None
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    """What enters the decoder, and the score's gradients there."""
    with torch.enable_grad():
        scores, entering = score_from_entry(lvlm, episode, image, leaves=True)
        gradients = torch.autograd.grad(scores.sum(), entering)
    for gradient in gradients:
        check_finite(gradient, "the gradient at the image embeddings", lvlm)
    return entering, gradients


def _watch_hidden(lvlm: Lvlm, wanted: Sequence[int], stack: ExitStack) -> dict[int, torch.Tensor]:
    """Record hidden states as the model runs; ``seen`` fills with tensors (1, S, D) that are part of the graph."""
    seen: dict[int, torch.Tensor] = {}

    def before_first(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen[0] = args[0] if args else kwargs["hidden_states"]

    def after(layer: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            seen[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    layers = lvlm.layers
    for number in wanted:
        if number == 0:
            handle = layers[0].register_forward_pre_hook(before_first, with_kwargs=True)
        else:
            handle = layers[number - 1].register_forward_hook(after(number))
        stack.callback(handle.remove)
    return seen


def _watch_read(lvlm: Lvlm, wanted: Sequence[int], stack: ExitStack) -> dict[int, torch.Tensor]:
    """As :func:`_watch_hidden`, of what enters the attention of each layer."""
    seen: dict[int, torch.Tensor] = {}

    def before(layer: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen[layer] = args[0] if args else kwargs["hidden_states"]

        return hook

    for number in wanted:
        attention = getattr(lvlm.layers[number], "self_attn", None)
        if attention is None:
            raise LvlmError(f"layer {number} has no attention that could be watched", where=lvlm.key)
        stack.callback(attention.register_forward_pre_hook(before(number), with_kwargs=True).remove)
    return seen


# -- pixels ---------------------------------------------------------------------------------------------------------


def pixel_gradients(
    lvlm: Lvlm,
    episode: Episode,
    pixel_values: torch.Tensor | None = None,
    *,
    batch_size: int | None = None,
) -> tuple[np.ndarray, torch.Tensor]:
    """Scores and their gradients with respect to the model's pixel values, for one or several images.

    Parameters
    ----------
    lvlm, episode
        The model and the text.
    pixel_values : tensor, optional
        N images in the layout of the family's ``pixel_values``, one after the other along the first axis (Gemma3
        (N, 3, h, w); Qwen2.5-VL (N * patches, values)); by default the episode's. Points between images, as
        integrated gradients need, are fine.
    batch_size : int, optional
        Images per pass; by default what the memory budget allows. Halved when memory runs out.

    Returns
    -------
    log_probs : ndarray
        (N, T) float32.
    gradients : tensor
        Like ``pixel_values``, float32: d(sum of log-probabilities of image n) / d(its pixel values).
        :func:`pixel_map` puts them in image order.
    """
    own = lvlm.image_inputs(episode)
    base = own["pixel_values"]
    values = base if pixel_values is None else pixel_values.to(base)
    if values.shape[1:] != base.shape[1:] or values.shape[0] % base.shape[0]:
        raise LvlmError(f"pixel values of shape {tuple(values.shape)}", expected=f"{tuple(base.shape)} per image")
    each = base.shape[0]
    count = values.shape[0] // each
    size = batch_size if batch_size is not None else gradient_batch(lvlm, episode)
    others = {name: value for name, value in own.items() if name != "pixel_values"}

    def step(start: int, stop: int) -> tuple[np.ndarray, torch.Tensor]:
        n = stop - start
        with torch.enable_grad():
            leaf = values[start * each : stop * each].detach().clone().requires_grad_(True)
            images = {**{k: v.expand(n * v.shape[0], *v.shape[1:]) for k, v in others.items()}, "pixel_values": leaf}
            scores = lvlm.response_log_probs(episode, lvlm.model_inputs(episode, images, n))
            (gradient,) = torch.autograd.grad(scores.sum(), leaf)
        check_finite(scores, "the score", lvlm)
        check_finite(gradient, "the gradient at the pixels", lvlm)
        return scores.detach().cpu().numpy(), gradient.float()

    parts, _ = run_in_batches(count, size, step)
    return np.concatenate([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def pixel_map(lvlm: Lvlm, episode: Episode, values: torch.Tensor) -> torch.Tensor:
    """Values of one image in the layout of ``pixel_values`` -> (3, h, w) in image order.

    (h, w) is the size to which the LVLM's processor resizes the frame. Where the family feeds the image several
    times (Qwen2.5-VL: two identical video frames) the copies are added up, which is right for gradients and for
    attributions of single inputs: a pixel's share is the sum over the inputs it feeds.
    """
    return lvlm.adapter.to_image(lvlm.config, values, episode.inputs).sum(dim=0)
