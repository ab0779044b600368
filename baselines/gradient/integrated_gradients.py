"""Integrated gradients of the pixel values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.shared.checks import require
from baselines.shared.frames import float_frame, on_frame
from baselines.shared.gradient_integral import integrate_path
from medground_bench.attribution.method import Attribution, from_heatmap, method
from medground_bench.imaging import resize_heatmap

if TYPE_CHECKING:
    from collections.abc import Callable

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["IntegratedGradientsParameters", "integrated_gradients", "pixel_attributions"]

_CHUNK = 8  # images interpolated at a time: 8 of 896 x 896 pixels are 77 MB


@dataclass(frozen=True)
class IntegratedGradientsParameters:
    """Parameters of ``integrated_gradients``.

    Attributes
    ----------
    steps : int
        Gauss-Legendre nodes over the whole path. While the completeness error exceeds the tolerance, the piece of
        the path with the greatest error is halved, with a quarter as many nodes in each half.
    tolerance : float
        Completeness error, relative to the change of the score, that is good enough.
    max_steps : int
        Most gradients to take; with ``max_steps`` equal to ``steps`` the path is never refined.
    """

    steps: int = 32
    tolerance: float = 0.04
    max_steps: int = 256

    def __post_init__(self) -> None:
        require(self.steps >= 1, "integrated_gradients", "steps must be at least 1")
        require(self.max_steps >= self.steps, "integrated_gradients", "max_steps must be at least steps")
        require(self.tolerance > 0, "integrated_gradients", "tolerance must be positive")


@method(
    "integrated_gradients",
    family="gradient",
    parameters=IntegratedGradientsParameters,
    needs=("white_box", "gradients"),
    cost="32 (F + B) + 2 F; up to 256 where the path bends",
    reference="Sundararajan, Taly & Yan, ICML 2017",
)
def integrated_gradients(lvlm: Lvlm, episode: Episode, parameters: IntegratedGradientsParameters) -> Attribution:
    """Integrated gradients of the pixel values, from a black frame to the image, absolute values summed over channels.

    The baseline is a black frame through the LVLM's own processor, that is black in the model's normalised
    space. Attributions are brought into image order (Qwen2.5-VL stores patches in merge-block order), the copies
    of the image that a family feeds are added up, and the map is averaged down to the frame.
    ``extras["completeness_error"]`` is the difference between the attributions' sum and the change of the score,
    relative to that change, ``extras["at_start"]`` the geometric mean probability of the response's tokens for the
    black frame. Unsigned, question-aware. Of families that cut the image into tiles of their own the same integral is
    taken at the frame's grey levels: their processor is linear in them, but a pixel of the frame feeds several values.
    """
    from medground_bench.lvlm.whitebox import pixel_map

    if lvlm.adapter.whole:
        values, extras = frame_attributions(lvlm, episode, parameters)
        return from_heatmap(on_frame(np.abs(values)), episode, extras=extras)
    attributions, extras = pixel_attributions(lvlm, episode, parameters)
    heat = pixel_map(lvlm, episode, attributions).abs().sum(dim=0).cpu().numpy()
    width, height = episode.frame.size
    return from_heatmap(resize_heatmap(heat, (height, width)), episode, extras=extras)


def pixel_attributions(
    lvlm: Lvlm, episode: Episode, parameters: IntegratedGradientsParameters
) -> tuple[Any, dict[str, Any]]:
    """Signed integrated gradients in the layout of ``pixel_values`` (a float64 tensor), and how good they are."""
    import torch

    from medground_bench.lvlm.whitebox import pixel_gradients

    image = lvlm.image_inputs(episode)["pixel_values"]
    black = lvlm.pixel_inputs(episode, [np.zeros_like(episode.frame_array)])["pixel_values"].to(image)
    difference = (image - black).double()

    def at(place: float) -> Any:
        return torch.lerp(black.float(), image.float(), float(place))

    def weighted_gradient(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
        total = torch.zeros_like(difference)
        for start in range(0, len(places), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            _, gradients = pixel_gradients(lvlm, episode, torch.cat([at(p) for p in places[chunk]]))
            shaped = gradients.double().reshape(-1, *difference.shape)
            total += torch.einsum("n,n...->...", torch.as_tensor(weights[chunk]).to(shaped), shaped)
        return total.cpu().numpy()

    def score(place: float) -> float:
        with torch.no_grad():
            own = {name: episode.inputs[name] for name in lvlm.adapter.image_inputs}
            inputs = lvlm.model_inputs(episode, {**own, "pixel_values": at(place).to(image)})
            return float(lvlm.response_log_probs(episode, inputs).double().sum())

    values, extras = _integral(weighted_gradient, score, difference.cpu().numpy(), episode, parameters)
    return torch.from_numpy(values).to(difference), extras


def frame_attributions(
    lvlm: Lvlm, episode: Episode, parameters: IntegratedGradientsParameters
) -> tuple[np.ndarray, dict[str, Any]]:
    """Signed integrated gradients of the frame's grey levels, like the frame, and how good they are."""
    frame = float_frame(episode)

    def weighted_gradient(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
        total = np.zeros_like(frame)
        for start in range(0, len(places), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            _, gradients = lvlm.frame_gradients(episode, np.stack([place * frame for place in places[chunk]]))
            total += np.einsum("n,n...->...", weights[chunk], gradients)
        return total

    def score(place: float) -> float:
        return float(lvlm.frame_gradients(episode, place * frame[None])[0][0])

    return _integral(weighted_gradient, score, frame, episode, parameters)


def _integral(
    weighted_gradient: Callable[[np.ndarray, np.ndarray], np.ndarray],
    score: Callable[[float], float],
    difference: np.ndarray,
    episode: Episode,
    parameters: IntegratedGradientsParameters,
) -> tuple[np.ndarray, dict[str, Any]]:
    result = integrate_path(weighted_gradient, score, difference, **asdict(parameters))
    extras = {"completeness_error": result.error, "steps": result.evaluations, "pieces": result.pieces}
    extras["at_start"] = float(np.exp(result.start / len(episode.rows)))
    return result.gradient * difference, extras
