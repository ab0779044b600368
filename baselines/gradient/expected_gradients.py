"""Expected gradients: integrated gradients whose baselines are normal radiographs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.frames import float_frame, on_frame, reference_frames
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["ExpectedGradientsParameters", "expected_gradients"]


@dataclass(frozen=True)
class ExpectedGradientsParameters:
    """Parameters of ``expected_gradients``.

    Attributes
    ----------
    references : str
        As for :func:`~baselines.shared.frames.reference_frames`: a folder of normal radiographs of other patients.
    samples : int
        Gradients, spread evenly over the way and over the references.
    pool : int
        Most references.
    seed : int
        Chooses references and places.
    """

    references: str = "phantom"
    samples: int = 100
    pool: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.samples >= 1 and self.pool >= 1, "expected_gradients", "samples and pool must be at least 1")


@method(
    "expected_gradients",
    family="gradient",
    parameters=ExpectedGradientsParameters,
    signed=True,
    over="frame",
    needs=("white_box", "gradients", "references"),
    cost="101 (F + B) + 16 (F + B)",
    reference="Erion et al., Nature Machine Intelligence 2021",
)
def expected_gradients(lvlm: Lvlm, episode: Episode, parameters: ExpectedGradientsParameters) -> Attribution:
    """``E[(x - x') ds/dx(x' + a (x - x'))]`` over references x' and places a, summed over channels, on the frame.

    ``a_k = (k + u_k) / K``, u uniform. Signed, question-aware. References are not registered with the image: edges of
    their anatomy leave ghosts. ``extras["residual"]`` is ``sum EG - (s(x) - mean s(x'))``, 0 in expectation.
    """
    frame, rng = float_frame(episode), np.random.default_rng(parameters.seed)
    pool = reference_frames(parameters.references, episode, parameters.pool, parameters.seed)
    count = parameters.samples
    places = (np.arange(count) + rng.random(count)) / count
    which = rng.permutation(np.arange(count) % len(pool))
    total = np.zeros_like(frame)
    for k, place in zip(which, places, strict=True):
        _, (gradient,) = lvlm.frame_gradients(episode, (pool[k] + place * (frame - pool[k]))[None])
        total += (frame - pool[k]) * gradient / count
    scores, _ = lvlm.frame_gradients(episode, np.concatenate([frame[None], pool]))
    residual = float(total.sum() - (scores[0] - scores[1:].mean()))
    extras = {"residual": residual, "change": float(scores[0] - scores[1:].mean()), "references": len(pool)}
    return from_heatmap(on_frame(total), episode, signed=True, extras=extras)
