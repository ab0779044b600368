"""Where image tokens lie in the frame, measured instead of believed.

Stripes of the frame are filled with noise, rows first, then columns, and for each it is seen which of the image
embeddings that enter the decoder move. With the vision tower's self-attention live every token would see the whole
image, so its outputs are silenced by hooks for the time: what is left carries each patch only to its own token. Tiles,
thumbnails, tokens that see nothing (the ends of rows) and the order of tokens come out as they are.

The cost is ``2 * side / step`` passes of the vision tower, once per model and frame size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import Box
from medground_bench.lvlm.embeddings import decoder_entry
from medground_bench.lvlm.grid import TokenBoxes, TokenGrid

if TYPE_CHECKING:
    from medground_bench.lvlm.model import Lvlm

__all__ = ["measure_tokens"]

_STEP = 4
_BATCH = 8
_DEAD = 1e-6
"""Below this share of the largest movement a token counts as one that sees nothing."""
_EVERYWHERE = 0.9
"""Tokens that more than this share of the stripes move have no place of their own."""
_SEEN = 0.2
"""A stripe belongs to a token if it moves it by this share of what the token's strongest stripe does."""


def measure_tokens(lvlm: Lvlm, frame_size: tuple[int, int], *, step: int = _STEP, seed: int = 0) -> TokenBoxes | None:
    """Boxes of the image tokens of a frame of this size.

    Parameters
    ----------
    lvlm : Lvlm
        Any model; the result is kept with it.
    frame_size : tuple of int
        ``(width, height)`` of the frame.
    step : int
        Thickness of a stripe in pixels; halved until a token spans four.
    seed : int
        Of the noise.

    Returns
    -------
    TokenBoxes or None
        A :class:`TokenGrid` where the tokens are one grid over the whole frame (to a quarter of a pixel). None where
        there is no geometry: every token sees the whole image (resamplers, Q-Formers), or the image enters the decoder
        by cross-attention.

    Raises
    ------
    LvlmError
        If the number of image embeddings is not that of the processor's image tokens.
    """
    key = (*frame_size, step, seed)
    if key not in lvlm.measured:
        lvlm.measured[key] = _measure(lvlm, frame_size, step, seed)
    return lvlm.measured[key]


@torch.no_grad()
def _measure(lvlm: Lvlm, frame_size: tuple[int, int], step: int, seed: int) -> TokenBoxes | None:
    width, height = frame_size
    grey = np.full((height, width), 128, np.uint8)
    episode = lvlm.prepare(Image.fromarray(grey), "?", "Yes", side=None)
    if not episode.image_positions:
        return None
    noise = np.where(np.random.default_rng(seed).random((height, width)) < 0.5, 0, 255).astype(np.uint8)
    stripes = []
    for axis, size in ((0, height), (1, width)):
        for start in range(0, size, step):
            frame = grey.copy()
            part = (slice(start, start + step), slice(None)) if axis == 0 else (slice(None), slice(start, start + step))
            frame[part] = noise[part]
            stripes.append(frame)
    positions = torch.tensor(episode.image_positions, device=lvlm.device)
    with _silenced(lvlm.model, lvlm.adapter.decoder(lvlm.model)):
        base = _embeddings(lvlm, episode, grey[None])[:, positions]
        moved = [
            (_embeddings(lvlm, episode, np.stack(stripes[i : i + _BATCH]))[:, positions] - base).float().norm(dim=-1)
            for i in range(0, len(stripes), _BATCH)
        ]
    response = torch.cat(moved).cpu().numpy().T  # (tokens, stripes)
    count = len(range(0, height, step))
    rows, columns = response[:, :count], response[:, count:]
    live = (rows.max(1) > _DEAD * response.max()) & (columns.max(1) > _DEAD * response.max()) & (response.max() > 0)
    if not live.any():
        return None
    if live.sum() > 1 and min(_share(rows[live]), _share(columns[live])) > _EVERYWHERE:
        return None
    y, x = _extent(rows[live], step, height), _extent(columns[live], step, width)
    if step > 1 and min(np.median(y[:, 1] - y[:, 0]), np.median(x[:, 1] - x[:, 0])) < 4 * step:
        return _measure(lvlm, frame_size, step // 2, seed)  # the stripes are too thick for cells this small
    return _regular(x, y, live, frame_size, step)


def _share(response: np.ndarray) -> float:
    """Share of the stripes that move the median token at all."""
    return float(np.median((response > 1e-3 * response.max(1, keepdims=True)).mean(1)))


def _extent(response: np.ndarray, step: int, size: int) -> np.ndarray:
    """(tokens, 3): where a token begins and ends along one axis, and the centre of what it sees, weighted."""
    starts = np.arange(response.shape[1]) * step
    ends = np.minimum(starts + step, size)
    seen = response > _SEEN * response.max(1, keepdims=True)
    first, last = seen.argmax(1), response.shape[1] - 1 - seen[:, ::-1].argmax(1)
    weight = response**2  # of independent noise the squares add up: a stripe counts by how much of it the token sees
    centre = weight @ ((starts + ends) / 2) / weight.sum(1)
    return np.stack([starts[first], ends[last], centre], axis=1)


def _regular(x: np.ndarray, y: np.ndarray, live: np.ndarray, frame_size: tuple[int, int], step: int) -> TokenBoxes:
    """Token boxes from measured extents: a regular grid per tile, where resizing has blurred the edges."""
    tile = _tiles(y)
    boxes: list[Box | None] = [None] * len(live)
    tiles = np.full(len(live), -1)
    places = np.flatnonzero(live)
    for number in range(tile.max() + 1):
        members = np.flatnonzero(tile == number)
        across, down = _edges(x[members], frame_size[0], step), _edges(y[members], frame_size[1], step)
        for member, (x1, x2), (y1, y2) in zip(members, across, down, strict=True):
            boxes[places[member]] = (x1, y1, x2, y2)
            tiles[places[member]] = number
    found = TokenBoxes(tuple(boxes), tuple(int(t) for t in tiles), frame_size)
    if live.all() and tile.max() == 0 and found.lattice is not None and np.prod(found.lattice) == len(found):
        return TokenGrid(*found.lattice, frame_size)
    return found


def _tiles(y: np.ndarray) -> np.ndarray:
    """Number of the tile of each token: tokens run row by row within one, and a step back up begins the next."""
    up = y[1:, 2] < y[:-1, 2] - 0.5 * np.minimum(y[1:, 1] - y[1:, 0], y[:-1, 1] - y[:-1, 0])
    return np.concatenate([[0], np.cumsum(up)])


def _edges(extent: np.ndarray, size: int, step: int) -> list[tuple[float, float]]:
    """Edges along one axis of the tokens of a tile: equal cells, from a line through the weighted centres."""
    centres = extent[:, 2]
    length = float(np.median(extent[:, 1] - extent[:, 0]))
    order = np.argsort(centres)
    gaps = np.diff(centres[order]) > 0.3 * length
    index = np.empty(len(centres), int)
    index[order] = np.concatenate([[0], np.cumsum(gaps)])
    cells = int(index.max()) + 1
    if cells == 1:
        low, high = float(extent[:, 0].min()), float(extent[:, 1].max())
    else:
        pitch, first = np.polyfit(index, centres, 1)
        low, high = first - pitch / 2, first + (cells - 0.5) * pitch
    low = 0.0 if abs(low) < step else low
    high = float(size) if abs(high - size) < step else high
    pitch = (high - low) / cells
    whole = size / max(1, round(size / pitch))  # cells of a grid over the whole frame, of which the tile is a part
    if abs(whole - pitch) < 0.04 * pitch and abs(low / whole - round(low / whole)) < 0.15:
        low, pitch = whole * round(low / whole), whole
    edges = np.clip(low + pitch * np.arange(cells + 1), 0, size)
    return [(float(edges[i]), float(edges[i + 1])) for i in index]


class _Reached(Exception):
    """The embeddings are there; the decoder need not run."""


def _embeddings(lvlm: Lvlm, episode: Any, stack: np.ndarray) -> torch.Tensor:
    """(N, S, D): what enters the decoder for variants of the frame."""
    caught: list[torch.Tensor] = []

    def entering(arguments: dict[str, Any]) -> dict[str, Any]:
        caught.append(arguments["inputs_embeds"])
        raise _Reached

    with suppress(_Reached), decoder_entry(lvlm, entering):
        lvlm.model(**lvlm.variant_inputs(episode, stack), use_cache=False)
    if not caught or caught[0].shape[1] != episode.length:
        raise LvlmError("the embeddings that enter the decoder do not fit the processor's tokens", where=lvlm.key)
    return caught[0]


@contextmanager
def _silenced(model: Any, decoder: torch.nn.Module) -> Iterator[None]:
    """Self-attention outside the language model puts out zeros."""
    inside = set(decoder.modules())
    names = {"q_proj", "qkv", "query", "qkv_proj", "wq", "q", "query_key_value", "qkv_linear"}

    def silence(module: Any, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (torch.zeros_like(output[0]), *output[1:])
        return torch.zeros_like(output)

    with ExitStack() as stack:
        for module in model.modules():
            if module not in inside and any(name in names for name, _ in module.named_children()):
                stack.callback(module.register_forward_hook(silence).remove)
        yield
