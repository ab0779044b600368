"""Families whose image tokens lie where their processor's own rules put them: what their adapters share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medground_bench.lvlm.families.base import Family
from medground_bench.lvlm.families.generic import Generic
from medground_bench.lvlm.grid import TokenBoxes, TokenGrid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from medground_bench.core.schema import Box

__all__ = ["Explicit", "Part", "token_boxes"]

Part = tuple["Box", int, int]
"""A regular grid of tokens: its box in the frame, rows, columns."""


class Explicit(Generic):
    """As :class:`Generic`, with the places of the image tokens computed, not measured: a subclass gives ``grid``.

    Variants of an image go through the model's own processor, in bytes or, with gradients, in float.
    """

    box_scale = "normalised_xyxy"

    def __init__(self) -> None:
        self.image_processor: Any = None

    def configure(self, processor: Any) -> None:
        self.image_processor = processor.image_processor

    def locate(
        self, config: Any, inputs: Mapping[str, torch.Tensor], frame_size: tuple[int, int]
    ) -> tuple[TokenBoxes | None, tuple[int, ...]]:
        return Family.locate(self, config, inputs, frame_size)

    def image_token_id(self, config: Any) -> int:
        token = getattr(config, "image_token_id", None)
        return int(config.image_token_index if token is None else token)


def token_boxes(frame_size: tuple[int, int], parts: Sequence[Part], newlines: Sequence[int] = ()) -> TokenBoxes:
    """Token boxes of several grids, one after the other.

    Parameters
    ----------
    frame_size : (width, height)
        Of the frame; boxes are cut to it.
    parts : sequence of Part
        The grids, in the order of the sequence.
    newlines : sequence of int
        Numbers of the parts that have a token without a place after each row.
    """
    width, height = frame_size
    whole = (0.0, 0.0, float(width), float(height))
    if len(parts) == 1 and parts[0][0] == whole and not newlines:
        return TokenGrid(parts[0][1], parts[0][2], frame_size)
    boxes: list[Box | None] = []
    tiles: list[int] = []
    for number, ((x1, y1, x2, y2), rows, cols) in enumerate(parts):
        w, h = (x2 - x1) / cols, (y2 - y1) / rows
        for r in range(rows):
            for c in range(cols):
                left, right = max(0.0, x1 + c * w), min(float(width), x1 + (c + 1) * w)
                upper, lower = max(0.0, y1 + r * h), min(float(height), y1 + (r + 1) * h)
                seen = right > left and lower > upper  # a token of padding alone sees nothing of the image
                boxes.append((left, upper, right, lower) if seen else None)
                tiles.append(number if seen else -1)
            if number in newlines:
                boxes.append(None)
                tiles.append(-1)
    return TokenBoxes(tuple(boxes), tuple(tiles), frame_size)
