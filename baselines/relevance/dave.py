"""DAVE: the operator part of the gradient, averaged over small shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.relevance.relp import RelpParameters, relp
from baselines.shared.checks import require
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["DaveParameters", "dave", "shifted"]


@dataclass(frozen=True)
class DaveParameters:
    """Parameters of ``dave``.

    Attributes
    ----------
    shifts : int
        Shifts to each side along both axes; 1 averages over 3 x 3 places, 0 over the image alone.
    reach : float
        Furthest shift, in token cells.
    reference : str
        As in ``relp``.
    """

    shifts: int = 1
    reach: float = 0.5
    reference: str = "token_mean"

    def __post_init__(self) -> None:
        require(self.shifts >= 0, "dave", "shifts cannot be negative")
        require(0 < self.reach <= 1, "dave", "reach must be within one cell")


@method(
    "dave",
    family="relevance",
    over="frame",
    parameters=DaveParameters,
    signed=True,
    needs=("white_box", "geometry", "gradients"),
    cost="9 (F + B)",
    reference="DAVE, arXiv 2602.06613",
)
def dave(lvlm: Lvlm, episode: Episode, parameters: DaveParameters) -> np.ndarray:
    """Mean of ``relp`` (norms and attention held fixed) over shifted images, each map moved back, on the frame.

    Signed, question-aware. The paper takes a vision transformer's gradient apart into the linear operator that it
    applies and that operator's own variation, and keeps the first. Decided here: the operator is the decoder's, the
    transformations are shifts of up to half a token cell (no mirror and no rotation of a chest), and there is no
    further low-pass.
    """
    from dataclasses import replace

    from PIL import Image

    frame = episode.frame_array
    rows, cols = episode.grid.map_shape
    width, height = frame.shape[1] / cols, frame.shape[0] / rows
    total = np.zeros(frame.shape[:2])
    steps = np.linspace(-1, 1, 2 * parameters.shifts + 1) if parameters.shifts else np.zeros(1)
    inner = RelpParameters(reference=parameters.reference)
    for y in np.rint(steps * parameters.reach * height).astype(int):
        for x in np.rint(steps * parameters.reach * width).astype(int):
            moved = shifted(frame, y, x)
            changed = lvlm.variant_inputs(episode, moved[None])
            inputs = {name: changed[name] for name in episode.inputs}
            picture = Image.fromarray(moved).convert("RGB")
            heat = episode.grid.to_frame(relp.function(lvlm, replace(episode, frame=picture, inputs=inputs), inner))
            total += shifted(heat.astype(np.float64), -y, -x)
    return total / len(steps) ** 2


def shifted(values: np.ndarray, down: int, right: int) -> np.ndarray:
    """The array moved, its border repeated."""
    rows = np.clip(np.arange(values.shape[0]) - down, 0, values.shape[0] - 1)
    cols = np.clip(np.arange(values.shape[1]) - right, 0, values.shape[1] - 1)
    out: np.ndarray = values[rows][:, cols]
    return out
