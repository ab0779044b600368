"""Shifts: whether the map moves with the picture, by a whole image token and by half of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import alike, image_tokens, in_pixels
from medground_bench.scoring.protocols.protocol import Measure, NoParameters, Skip, protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medground_bench.scoring.protocols.case import Case

__all__ = ["shift", "shifted"]


def shifted(values: np.ndarray, by: int) -> np.ndarray:
    """An image moved right and down by whole pixels; its border is repeated where nothing comes in."""
    edges = ((by, 0), (by, 0), *((0, 0),) * (values.ndim - 2))
    return np.pad(values, edges, mode="edge")[: values.shape[0], : values.shape[1]]


@protocol(
    "shift",
    asks="Does the map move with the picture?",
    measures=[
        Measure("token", "rank correlation after a shift by one image token, moved back", bounds=(-1, 1)),
        Measure("half", "the same after a shift by half a token", bounds=(-1, 1)),
        Measure("grid_artefact", "what the half shift loses against the whole one", "low", (-2, 2), chance=0.0),
        Measure("model_inconsistent", "answers that change by a shift: of the LVLM, not of the map", "", (0, 1)),
    ],
    needs=("heatmaps", "lvlm", "method"),
    cost="2 runs of the method, 2 answers",
    reference="translation equivariance; half a patch shows what is the grid's and not the picture's",
)
def shift(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """Over the part of the frame that both maps see; only where the answer stays."""
    heat, probe = in_pixels(case, case.heatmap), case.probe
    token = probe.frame.shape[1] // image_tokens(case)[1]
    out = {}
    for name, by in (("token", token), ("half", token // 2)):
        frame = shifted(probe.frame, by)
        if by < 1 or probe.kept(frame[None])[0] == 0:
            continue
        try:
            other = in_pixels(case, case.again(probe.reframed(frame)))
        except Skip:
            continue
        out[name] = alike(heat[:-by, :-by], other[by:, by:])["spearman"]
    if len(out) == 2:
        out["grid_artefact"] = out["token"] - out["half"]
    return {**out, "model_inconsistent": float("token" not in out)}
