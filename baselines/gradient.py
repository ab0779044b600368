"""Methods built on the score's gradient: gradient-weighted attention, Grad-CAM(++), integrated gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.checks import require
from medground_bench.attribution.method import Attribution, NoParameters, from_heatmap, method
from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = [
    "CamParameters",
    "CamPlusPlusParameters",
    "IntegratedGradientsParameters",
    "cam_plus_plus_weights",
    "cam_weights",
    "grad_attention",
    "gradcam",
    "gradcam_plus_plus",
    "integrated_gradients",
]


@method(
    "grad_attention",
    family="gradient",
    parameters=NoParameters,
    needs=("white_box", "gradients"),
    cost="1 F + 1 B",
    reference="Chefer, Gur & Wolf, ICCV 2021",
)
def grad_attention(lvlm: Lvlm, episode: Episode, parameters: NoParameters) -> np.ndarray:
    """Gradient-weighted attention accumulated over the layers, from the predicting rows to the image tokens."""
    from baselines.rows import grad_attention_row, on_grid
    from medground_bench.lvlm.whitebox import trace_attention

    return on_grid(episode, grad_attention_row(trace_attention(lvlm, episode, gradients=True), episode.rows))


# -- Grad-CAM ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CamParameters:
    """Parameters of ``gradcam``.

    Attributes
    ----------
    layer : int or None
        Hidden state: 0 is what enters the first decoder layer, l what leaves layer l - 1, negative counts from the
        end. None follows the rule: the last hidden state whose image positions still reach the answer. What leaves
        the last layer never does (only the predicting rows are read there); what enters it does unless a sliding
        window hides the image from every predicting row, in which case the rule goes further down.
    """

    layer: int | None = None


@dataclass(frozen=True)
class CamPlusPlusParameters(CamParameters):
    """Parameters of ``gradcam++``.

    Attributes
    ----------
    layer : int or None
        As in :class:`CamParameters`.
    eps : float
        Added to the denominator of alpha.
    """

    eps: float = 1e-6

    def __post_init__(self) -> None:
        require(self.eps > 0, "gradcam++", "eps must be positive")


@method(
    "gradcam",
    family="gradient",
    parameters=CamParameters,
    needs=("white_box", "gradients"),
    cost="1 F + 1 B",
    reference="Selvaraju et al., ICCV 2017",
)
def gradcam(lvlm: Lvlm, episode: Episode, parameters: CamParameters) -> Attribution:
    """``ReLU(sum_d w_d H_d)`` over the image tokens, w the mean gradient of each channel."""
    layer, states, gradients = image_gradients(lvlm, episode, parameters.layer, "gradcam")
    return _cam(episode, states, cam_weights(gradients), layer)


@method(
    "gradcam++",
    family="gradient",
    parameters=CamPlusPlusParameters,
    needs=("white_box", "gradients"),
    cost="1 F + 1 B",
    reference="Chattopadhay et al., WACV 2018",
)
def gradcam_plus_plus(lvlm: Lvlm, episode: Episode, parameters: CamPlusPlusParameters) -> Attribution:
    """Grad-CAM with channel weights ``sum_P alpha ReLU(g)``."""
    layer, states, gradients = image_gradients(lvlm, episode, parameters.layer, "gradcam++")
    return _cam(episode, states, cam_plus_plus_weights(states, gradients, parameters.eps), layer)


def cam_weights(gradients: np.ndarray) -> np.ndarray:
    """Grad-CAM's channel weights: the mean over positions of (P, D) gradients, (D,)."""
    return gradients.mean(axis=0)


def cam_plus_plus_weights(states: np.ndarray, gradients: np.ndarray, eps: float) -> np.ndarray:
    """Grad-CAM++'s channel weights, (D,), from (P, D) hidden states and gradients.

    ``alpha = g^2 / (2 g^2 + g^3 sum_P H + eps)``, 0 where g = 0; ``w = sum_P alpha ReLU(g)`` (equations 13 and 19).
    """
    squared = gradients**2
    denominator = 2 * squared + states.sum(axis=0, keepdims=True) * squared * gradients + eps
    alpha = np.divide(squared, denominator, out=np.zeros_like(squared), where=(gradients != 0) & (denominator != 0))
    return (alpha * np.maximum(gradients, 0)).sum(axis=0)


def _cam(episode: Episode, states: np.ndarray, weights: np.ndarray, layer: int) -> Attribution:
    heat = np.maximum(states @ weights, 0).reshape(episode.grid.rows, episode.grid.cols)
    return from_heatmap(heat, episode, extras={"layer": layer})


def image_gradients(lvlm: Lvlm, episode: Episode, layer: int | None, name: str) -> tuple[int, np.ndarray, np.ndarray]:
    """Hidden states and gradients at the image positions, (P, D) float64 each, and the layer they are from.

    Raises
    ------
    MethodError
        If the gradient there is zero: the map would be too.
    """
    from medground_bench.lvlm.whitebox import hidden_gradients

    last = len(lvlm.layers)
    found = hidden_gradients(lvlm, episode, range(last) if layer is None else [layer])
    positions = list(episode.image_positions)
    for number in sorted(found, reverse=True):
        states, gradients = (t[positions].double().cpu().numpy() for t in found[number])
        if gradients.any():
            return number, states, gradients
    where = f"hidden state {layer}" if layer is not None else f"each of the hidden states 0 to {last - 1}"
    raise MethodError(
        f"method {name!r}: the gradient of the response at the image tokens of {where} is exactly zero",
        expected=f"a hidden state below {last} whose image positions reach the answer",
        remedy="leave the parameter 'layer' at its default, or choose a lower one",
    )


# -- integrated gradients ---------------------------------------------------------------------------------------


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
    relative to that change.
    """
    from medground_bench.imaging import resize_heatmap
    from medground_bench.lvlm.whitebox import pixel_map

    attributions, extras = pixel_attributions(lvlm, episode, parameters)
    heat = pixel_map(lvlm, episode, attributions).abs().sum(dim=0).cpu().numpy()
    width, height = episode.frame.size
    return from_heatmap(resize_heatmap(heat, (height, width)), episode, extras=extras)


def pixel_attributions(
    lvlm: Lvlm, episode: Episode, parameters: IntegratedGradientsParameters
) -> tuple[Any, dict[str, Any]]:
    """Signed integrated gradients in the layout of ``pixel_values`` (a float64 tensor), and how good they are."""
    import torch

    from baselines.gradient_integral import integrate_path
    from medground_bench.lvlm.whitebox import pixel_gradients

    image = episode.inputs["pixel_values"]
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
            inputs = lvlm.model_inputs(episode, {**_image_inputs(lvlm, episode), "pixel_values": at(place).to(image)})
            return float(lvlm.response_log_probs(episode, inputs).double().sum())

    result = integrate_path(
        weighted_gradient,
        score,
        difference.cpu().numpy(),
        steps=parameters.steps,
        tolerance=parameters.tolerance,
        max_steps=parameters.max_steps,
    )
    extras = {"completeness_error": result.error, "steps": result.evaluations, "pieces": result.pieces}
    return torch.from_numpy(result.gradient).to(difference) * difference, extras


_CHUNK = 8  # images interpolated at a time: 8 of 896 x 896 pixels are 77 MB


def _image_inputs(lvlm: Lvlm, episode: Episode) -> dict[str, Any]:
    return {name: episode.inputs[name] for name in lvlm.adapter.image_inputs}
