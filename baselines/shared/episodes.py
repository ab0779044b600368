"""Another question or response about an episode's image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medground_bench.imaging import Letterbox

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["prepare_like"]


def prepare_like(lvlm: Lvlm, episode: Episode, *, question: str | None = None, response: str | None = None) -> Episode:
    """The episode with another question or response: the same image in the same frame."""
    box = episode.letterbox
    fitted = Letterbox.fit(box.width, box.height, box.frame_width) == box
    return lvlm.prepare(
        episode.image,
        episode.question if question is None else question,
        episode.response if response is None else response,
        side=box.frame_width if fitted else None,
    )
