"""One image, question and response, bound to one LVLM: what every method reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medground_bench.core.errors import LvlmError

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from medground_bench.imaging.letterbox import Letterbox
    from medground_bench.lvlm.grid import TokenBoxes


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
        Positions of the image tokens in the sequence, in their order there.
    geometry : TokenBoxes, callable or None
        Frame pixels <-> image tokens; a function without arguments where that is measured when it is asked for. Read
        it as ``grid``, or as ``token_grid`` where it may be unknown.
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
    geometry: TokenBoxes | Callable[[], TokenBoxes | None] | None
    family: str = ""

    @property
    def token_grid(self) -> TokenBoxes | None:
        """Frame pixels <-> image tokens; None where the LVLM has no such map, or it is not known."""
        return self.geometry() if callable(self.geometry) else self.geometry

    @property
    def grid(self) -> TokenBoxes:
        """Frame pixels <-> image tokens: a :class:`TokenGrid` where they are one regular grid.

        Raises
        ------
        LvlmError
            If the LVLM's geometry is not known.
        """
        found = self.token_grid
        if found is None:
            raise LvlmError(
                f"the image tokens of {self.family or 'this LVLM'!r} have no known places in the image",
                expected="a black-box method (occlusion, rise, medfocus), or an LVLM whose image tokens have places",
            )
        return found

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
