"""What ``toy_prompted`` is taught beside its answers: the requests of the prompting methods, and how it replies.

A request is the third turn of a conversation: a question, its answer, and one of the prompts of
``baselines.shared.prompts``. Boxes are stated in thousandths, as the Gemma family is asked for them, on a grid of half
an image token: each number is one token of the vocabulary. Marks are those that ``som_prompting`` draws on the parts of
the chest. Phrases are the end of the description that the reason mode gives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.shared.prompts import boxes_prompt, marks_prompt, phrases_prompt
from medground_bench.attribution.regions import PARTS, REST, named_regions
from medground_bench.core.files import atomic_write

from .data import CELLS, GROUP, SIDE, Pool
from .text import WORDINGS, response, responses

__all__ = [
    "LEVELS",
    "MIRRORED_PARTS",
    "boxes_reply",
    "chest_parts",
    "evidence_boxes",
    "marks_reply",
    "phrases_reply",
    "request_corpus",
    "request_prompt",
]

LEVELS = tuple(round(1000 * cell / CELLS) for cell in range(CELLS + 1))
"""The numbers of which boxes are made: the edges of the cells, in thousandths of the frame."""
_MARKED = [name for name in PARTS if name != REST]
_NOTHING = "[]"
_LEAST = 0.2  # of the evidence lies in a part that is named
_OTHER = {"left": "right", "right": "left"}
MIRRORED_PARTS = [
    _MARKED.index(name.replace(name.split()[0], _OTHER.get(name.split()[0], name.split()[0]), 1)) for name in _MARKED
]
"""Index of the part that each part of the chest becomes in the mirror."""


def request_prompt(kind: str, marks: int = len(_MARKED)) -> str:
    """The prompt of a request, ``"boxes"``, ``"marks"`` or ``"phrases"``, as a model of the Gemma family gets it."""
    if kind == "boxes":
        return boxes_prompt(scale="normalised", width=SIDE, height=SIDE)
    return marks_prompt(marks) if kind == "marks" else phrases_prompt()


def request_corpus() -> list[str]:
    """Texts for the tokenizer: the prompts and every number that a reply may hold, so that each is one token."""
    prompts = [request_prompt("boxes"), request_prompt("phrases"), *(request_prompt("marks", n) for n in range(1, 8))]
    numbers = [*LEVELS, *range(1, len(_MARKED) + 1)]
    return [*prompts, *(f"[[{n}, {n}], [{n}]]" for n in numbers), '["nodule", "nodule"]', _NOTHING]


# Replies -----------------------------------------------------------------------------------------------------------


def evidence_boxes(shares: NDArray[np.uint8], attribute: str, case: int) -> NDArray[np.int64]:
    """Boxes (N, 4) of a finding in cells, half-open: one, or one a side where the case says that it is on both.

    Parameters
    ----------
    shares : uint8 array (CELLS, CELLS)
        How much of each cell it covers, of 255; not all zero.
    """
    cells = shares >= 0.4 * shares.max()
    columns = np.flatnonzero(cells.any(0))
    parts = [cells]
    if WORDINGS[attribute].both and responses(attribute, "reason")[case] == response(attribute, "reason", True, "both"):
        middle = (columns[0] + columns[-1] + 1) // 2
        parts = [cells & (np.arange(CELLS) < middle), cells & (np.arange(CELLS) >= middle)]
    edges = [(np.flatnonzero(part.any(0)), np.flatnonzero(part.any(1))) for part in parts if part.any()]
    return np.array([(x[0], y[0], x[-1] + 1, y[-1] + 1) for x, y in edges])


def boxes_reply(boxes: NDArray[np.int64]) -> str:
    """The list of :func:`evidence_boxes` in thousandths."""
    return json.dumps([[LEVELS[edge] for edge in box] for box in boxes.tolist()])


def marks_reply(shares: NDArray[np.uint8], numbers: NDArray[np.uint8]) -> str:
    """Numbers of the marked regions that hold a fifth of the evidence, or else the most of it, that first.

    Parameters
    ----------
    shares : uint8 array (CELLS, CELLS)
    numbers : uint8 array (SIDE, SIDE)
        Number of the mark on each pixel, 0 where there is none.
    """
    size = SIDE // CELLS
    held = np.bincount(numbers.reshape(-1), shares.repeat(size, 0).repeat(size, 1).reshape(-1).astype(float))
    inside = held[1:] / held.sum()
    order = [int(n) for n in np.argsort(-inside, kind="stable") if inside[n] > 0]
    return json.dumps([n + 1 for n in order if n == order[0] or inside[n] >= _LEAST])


def phrases_reply(attribute: str, case: int) -> str:
    """What the description calls the finding, with its place: "a nodule in the left lung"."""
    return json.dumps([responses(attribute, "reason")[case].split("This is ")[1].split(".")[0]])


# Parts of the chests of the pool -------------------------------------------------------------------------------------


def chest_parts(folder: str | Path, pool: Pool, lvlm: Any) -> NDArray[np.uint8]:
    """Part of the chest at each pixel of each chest of the pool, (groups, SIDE, SIDE), 255 where there is none.

    The images of a group are of one chest, so that the first is looked at. What was found is kept beside the pool.
    """
    path = Path(folder) / "parts.npy"
    groups = len(pool) // GROUP
    known = np.load(path) if path.exists() else np.zeros((0, SIDE, SIDE), np.uint8)
    if len(known) < groups:
        more = [_parts(np.array(pool.frames[GROUP * group]), lvlm) for group in range(len(known), groups)]
        known = np.concatenate([known, np.stack(more)])
        with atomic_write(path, "wb") as file:
            np.save(file, known)
    return known[:groups]


def _parts(frame: NDArray[np.uint8], lvlm: Any) -> NDArray[np.uint8]:
    from PIL import Image

    rows, cols = np.flatnonzero(frame.any(1)), np.flatnonzero(frame.any(0))  # the bars are black
    content = frame[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    episode = lvlm.prepare(Image.fromarray(content).convert("RGB"), "?", "Yes")
    labels, names = named_regions("anatomy", episode)
    out = np.full((SIDE, SIDE), 255, np.uint8)
    for label, name in enumerate(names):
        if name in _MARKED:
            out[labels == label] = _MARKED.index(name)
    return out


def numbered(parts: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Number of the mark at each pixel as ``som_prompting`` counts the parts that are there, and how many there are."""
    there = [part for part in range(len(_MARKED)) if (parts == part).any()]
    numbers = np.zeros(parts.shape, np.uint8)
    for number, part in enumerate(there, start=1):
        numbers[parts == part] = number
    return numbers, len(there)


def soft_targets(tokenizer: Any, size: int) -> Any:
    """(size, size) targets for each token: itself, but of a box's number also the two on either side.

    A coordinate that is off by one cell is nearly right; the loss says so.
    """
    import torch

    table = torch.eye(size)
    for space in ("", " "):
        ids = [_single(tokenizer, f"{space}{level}") for level in LEVELS]
        distance = (torch.arange(len(ids))[:, None] - torch.arange(len(ids))[None, :]).abs().float()
        near = torch.where(distance <= 2, torch.exp(-(distance**2)), torch.zeros(()))
        rows = torch.zeros(len(ids), size)
        rows[:, ids] = near / near.sum(1, keepdim=True)
        table[ids] = rows
    return table


def _single(tokenizer: Any, text: str) -> int:
    (token,) = tokenizer(text, add_special_tokens=False)["input_ids"]
    return int(token)


def numbers_in(tokenizer: Any, ids: Sequence[int]) -> Iterator[int]:
    """Places of the tokens that are numbers."""
    for place, token in enumerate(ids):
        if tokenizer.decode([token]).strip().isdigit():
            yield place
