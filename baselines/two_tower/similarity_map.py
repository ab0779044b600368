"""How similar each patch is to the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from baselines.two_tower.tower import need_two_towers
from medground_bench.attribution.method import NoParameters, method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["similarity_map"]


@method(
    "similarity_map",
    family="similarity",
    over="frame",
    parameters=NoParameters,
    signed=True,
    needs=("white_box", "two_towers"),
    cost="1 F",
    reference="Zhou, Loy & Dai, MaskCLIP, ECCV 2022; Huang et al., GLoRIA, ICCV 2021",
)
def similarity_map(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> np.ndarray:
    """``cos(patch, positive prompt) - cos(patch, negative prompt)``, patches brought into the joint space.

    Signed; question-aware: the finding is in the prompts.
    """
    import torch

    model = need_two_towers(lvlm, "similarity_map")
    with torch.no_grad():
        _, out = model.tower(episode.inputs["pixel_values"])
        patches = model.patch_embeddings(out["last_hidden_state"])[0]
        positive, negative = episode.inputs["texts"]
        return episode.grid.as_map((patches @ (positive - negative)).double().cpu().numpy())
