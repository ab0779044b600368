"""Input times gradient of the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from baselines.shared.checks import require
from baselines.shared.frames import float_frame, on_frame
from medground_bench.attribution.fills import FILLS, fill_frame
from medground_bench.attribution.method import method

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["InputXGradientParameters", "input_x_gradient"]


@dataclass(frozen=True)
class InputXGradientParameters:
    """Parameters of ``input_x_gradient``.

    Attributes
    ----------
    baseline : str
        The frame that counts as no input: ``black``, ``mean`` or ``blur``.
    """

    baseline: str = "black"

    def __post_init__(self) -> None:
        require(self.baseline in FILLS, "input_x_gradient", f"baseline must be one of {', '.join(FILLS)}")


@method(
    "input_x_gradient",
    family="gradient",
    parameters=InputXGradientParameters,
    signed=True,
    over="frame",
    needs=("white_box", "gradients"),
    cost="1 F + 1 B",
    reference="Shrikumar et al., arXiv 1605.01713",
)
def input_x_gradient(lvlm: Lvlm, episode: Episode, parameters: InputXGradientParameters) -> np.ndarray:
    """``sum_c (x - b)_pc ds/dx_pc`` at every pixel of the frame.

    Signed, question-aware. b is a frame of grey levels: in the model's normalised space black is not 0, so that the
    usual product with the normalised pixels has a grey baseline that nobody named.
    """
    frame = float_frame(episode)
    _, (gradient,) = lvlm.frame_gradients(episode, frame[None])
    return on_frame((frame - fill_frame(parameters.baseline, episode)) * gradient)
