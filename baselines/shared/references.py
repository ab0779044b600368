"""What stands in for an image token: its reference embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medground_bench.attribution.fills import FILLS, fill_frame
from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["EMBEDDING_REFERENCES", "reference_embeddings"]

EMBEDDING_REFERENCES = ("token_mean", "zero", *FILLS)
"""``token_mean``: the mean of the image's own tokens, which stays within what the decoder knows; ``zero``; or the
tower's embeddings of a frame of which nothing is left."""


def reference_embeddings(lvlm: Lvlm, episode: Episode, merged: torch.Tensor, name: str, layer: int = 0) -> torch.Tensor:
    """A hidden state (S, D), by default the merged embeddings, with every image token replaced by its reference.

    Parameters
    ----------
    lvlm, episode
        The model and what it reads.
    merged : tensor, (S, D)
        The episode's own.
    name : str
        One of :data:`EMBEDDING_REFERENCES`.
    layer : int
        Which hidden state it is; 0 is what enters the decoder.

    Raises
    ------
    MethodError
        If the reference is unknown.
    """
    if name not in EMBEDDING_REFERENCES:
        raise MethodError(f"unknown reference {name!r}", expected=", ".join(EMBEDDING_REFERENCES))
    positions = list(episode.image_positions)
    out = merged.clone()
    if name in FILLS:
        import torch

        from medground_bench.lvlm.whitebox import hidden_states, merged_embeddings

        with torch.no_grad():
            if layer:
                filled = hidden_states(lvlm, episode, [layer], image=fill_frame(name, episode))[layer]
            else:
                (filled,) = merged_embeddings(lvlm, episode, lvlm.pixel_inputs(episode, [fill_frame(name, episode)]))
        out[positions] = filled[positions].to(out)
    else:
        out[positions] = merged[positions].mean(0) if name == "token_mean" else 0
    return out
