"""One image, question and response, bound to one LVLM: what every method reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medground_bench.core.errors import LvlmError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from medground_bench.imaging.letterbox import Letterbox
    from medground_bench.lvlm.grid import TokenGrid

__all__ = ["Episode", "Generated", "ResponseToken"]


class Generated(NamedTuple):
    """What an LVLM wrote: see :meth:`Lvlm.generate`.

    Attributes
    ----------
    text : str
        Without control tokens, exactly as decoded.
    ended : bool
        The model ended it itself; False where it was cut at the limit of tokens.
    """

    text: str
    ended: bool = True


@dataclass(frozen=True, slots=True)
class ResponseToken:
    """A token of the response: its id and the piece of text it adds.

    The texts of an episode joined give the response again. A token that holds only a part of a character
    has an empty text; the token that completes the character carries it.
    """

    id: int
    text: str


@dataclass(frozen=True, eq=False)
class Episode:
    """What :meth:`Lvlm.prepare` returns; do not change it or the tensors in it.

    Attributes
    ----------
    image : PIL image
        The native image, mode "L" or "RGB".
    frame : PIL image
        The letterboxed image in mode "RGB": what the LVLM's processor is given and what perturbations act on.
    letterbox : Letterbox
        Native pixels <-> frame.
    question, response : str
        As given.
    inputs : mapping of str to tensor
        The processor's tensors for prompt and response, batch of one, on the LVLM's device: ``input_ids`` (1, S),
        ``attention_mask`` (1, S), ``pixel_values`` and what else the family needs.
    tokens : tuple of ResponseToken
        The T tokens of the response, without the template's end of turn.
    rows : tuple of int
        The T positions of the sequence whose logits predict the response's tokens (each is one before its token).
    image_positions : tuple of int
        Positions of the image tokens in the sequence, in the grid's row-major order.
    token_grid : TokenGrid or None
        Frame pixels <-> image tokens; None where the LVLM's geometry is not known. ``grid`` is the same, never None.
    family : str
        Family of the LVLM that prepared it: only LVLMs of that family can read it.
    """

    image: Image
    frame: Image
    letterbox: Letterbox
    question: str
    response: str
    inputs: Mapping[str, torch.Tensor]
    tokens: tuple[ResponseToken, ...]
    rows: tuple[int, ...]
    image_positions: tuple[int, ...]
    token_grid: TokenGrid | None
    family: str = ""

    @property
    def grid(self) -> TokenGrid:
        """Frame pixels <-> image tokens.

        Raises
        ------
        LvlmError
            If the LVLM's geometry is not known.
        """
        if self.token_grid is None:
            raise LvlmError(
                f"where the image tokens of {self.family!r} lie is not known",
                expected="a black-box method (occlusion, rise, medfocus), or an LVLM whose geometry is known",
            )
        return self.token_grid

    @property
    def length(self) -> int:
        """S: tokens of prompt and response."""
        return int(self.inputs["input_ids"].shape[1])

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Ids of the response's tokens."""
        return tuple(token.id for token in self.tokens)

    @property
    def frame_array(self) -> np.ndarray:
        """The frame as uint8: (H, W) when its channels are equal, else (H, W, 3). A fresh copy each time."""
        rgb = np.array(self.frame)
        grey = np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2])
        return rgb[..., 0].copy() if grey else rgb
