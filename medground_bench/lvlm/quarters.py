"""An LVLM of which two quarters of the image are provably disconnected, for a while (Rao, Boehle & Schiele 2022).

The decoder attends to none of the image tokens of the hidden quarters; with ``tower`` the vision tower moreover sees
every quarter as a picture of its own, so that nothing of a hidden quarter can reach the answer by way of the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import LvlmError

if TYPE_CHECKING:
    from medground_bench.lvlm.episode import Episode
    from medground_bench.lvlm.model import Lvlm

__all__ = ["disconnected", "quarter_tokens", "settled_size"]


def settled_size(lvlm: Lvlm, width: int, height: int) -> tuple[int, int]:
    """``(width, height)`` that the LVLM's processor makes of a frame: a frame of that size is not resized any more.

    Resizing would smear pixels over the edges of the quarters.
    """
    return lvlm.adapter.processed_size(lvlm.processor, width, height)


def quarter_tokens(episode: Episode) -> tuple[tuple[int, ...], ...]:
    """Numbers of the image tokens of the frame's four quarters, in reading order.

    Raises
    ------
    LvlmError
        If a token lies over the frame's middle.
    """
    width, height = episode.frame.size
    out: tuple[list[int], ...] = ([], [], [], [])
    for token, box in enumerate(episode.grid.boxes):
        if box is None:
            continue
        sides = []
        for low, high, middle in ((box[1], box[3], height / 2), (box[0], box[2], width / 2)):
            if low < middle - _SAME and high > middle + _SAME:
                raise LvlmError(
                    f"image token {token} lies over the middle of the frame",
                    expected="an even number of rows and columns of image tokens",
                )
            sides.append(int(low + high > 2 * middle))
        out[2 * sides[0] + sides[1]].append(token)
    return tuple(map(tuple, out))


_SAME = 0.25  # pixels


@contextmanager
def disconnected(lvlm: Lvlm, episode: Episode, hidden: Collection[int], *, tower: bool) -> Iterator[None]:
    """Inside it, the answer to the episode's text cannot depend on the hidden quarters.

    Parameters
    ----------
    lvlm : Lvlm
        Changed in place: use it for nothing else meanwhile.
    episode : Episode
        Whose image tokens; passes over a text of another length are refused.
    hidden : collection of int
        Quarters in reading order, 0 to 3.
    tower : bool
        Whether the vision tower is parted, too. Without it, what it tells of a hidden quarter in the tokens of the
        others stays.

    Raises
    ------
    LvlmError
        If a token lies over the middle, or the tower of the family cannot be parted.
    """
    quarters = quarter_tokens(episode)
    positions = [episode.image_positions[token] for quarter in hidden for token in quarters[quarter]]

    def hide(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = kwargs.get("attention_mask")
        if mask is None or mask.ndim != 2 or mask.shape[1] != episode.length:
            raise LvlmError(
                "a pass over another text than the record's, or with a mask of its own",
                where=lvlm.key,
                expected="a method that reads the record's question and response",
            )
        mask = mask.clone()
        mask[:, positions] = 0
        places = {} if "position_ids" in kwargs else lvlm.adapter.positions(lvlm.model, kwargs)
        return args, {**kwargs, **places, "attention_mask": mask}

    with ExitStack() as stack:
        stack.callback(lvlm.model.register_forward_pre_hook(hide, with_kwargs=True).remove)
        if tower:
            stack.enter_context(lvlm.adapter.quartered(lvlm.model))
        yield
