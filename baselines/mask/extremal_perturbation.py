"""Extremal perturbations: the smooth mask of a given area that keeps the score highest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.frames import float_frame
from baselines.shared.soft_masks import area_loss, perturbed, pyramid, smooth_mask
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["ExtremalParameters", "extremal_perturbation"]

_SHOWN = {"preserve": (1.0,), "delete": (-1.0,), "dual": (1.0, -1.0)}
"""Variant -> 1 for the image inside the mask, whose score is to rise; -1 for the image outside, whose score to fall."""


@dataclass(frozen=True)
class ExtremalParameters:
    """Parameters of ``extremal_perturbation``.

    Attributes
    ----------
    areas : tuple of float
        Shares of the frame, a mask each.
    iterations : int
        Steps of gradient ascent (the paper takes 800).
    step : int
        Pixels between the mask's control points.
    sigma : float
        Smoothness, in pixels.
    rate : float
        Step size.
    price : float
        Weight of the area constraint at the start; it grows by 0.35 % an iteration.
    gain : float
        What the change by blurring all counts: beside the constraint, a score of one nat alone would choose nothing.
    variant : {"preserve", "delete", "dual"}
        The image inside the mask is to keep the score; the image outside is to lose it; or both, at twice the cost. The
        search begins with the whole image shown.
    smooth : float
        Standard deviation of a Gaussian over the map, as a share of its side (0.09 for the paper's pointing game).
    """

    areas: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2)
    iterations: int = 200
    step: int = 7
    sigma: float = 21.0
    rate: float = 0.01
    price: float = 300.0
    gain: float = 5.0
    variant: str = "preserve"
    smooth: float = 0.0

    def __post_init__(self) -> None:
        name = "extremal_perturbation"
        require(bool(self.areas) and all(0 < a < 1 for a in self.areas), name, "areas must be shares, 0 to 1")
        require(self.iterations >= 1 and self.step >= 1, name, "iterations and step must be at least 1")
        require(self.variant in _SHOWN, name, f"variant must be one of {', '.join(_SHOWN)}")
        require(0 <= self.smooth < 1, name, "smooth must be a share of the side, 0 to 1")


@method(
    "extremal_perturbation",
    family="mask",
    parameters=ExtremalParameters,
    over="frame",
    needs=("white_box", "gradients"),
    cost="800 (F + B) + 2 F",
    reference="Fong, Patrick & Vedaldi, ICCV 2019",
)
def extremal_perturbation(lvlm: Lvlm, episode: Episode, parameters: ExtremalParameters) -> Attribution:
    """``sum_a argmax_m log p(x blurred where m is low) - lambda |sort(m) - r_a|^2``, over smooth masks, on the frame.

    log p is the mean over the response's tokens; r_a is 1 on a share a of the pixels. Unsigned, question-aware.
    ``extras["areas"]`` are the areas reached, none where blurring all changes nothing. The released code mirrors the
    image in every other step, which would swap the sides of a chest, and counts the margin into the area.
    """
    import torch
    from scipy.ndimage import gaussian_filter

    frame = torch.as_tensor(float_frame(episode), dtype=torch.float32)
    levels, signs = pyramid(frame), torch.tensor(_SHOWN[parameters.variant])
    with torch.no_grad():
        change = float(lvlm.soft_log_probs(episode, levels[[0, -1]]).mean(1).diff().abs())
    height, width = frame.shape[:2]
    grid = -(-height // parameters.step), -(-width // parameters.step)
    sums, areas = np.zeros((height, width)), []
    for area in parameters.areas if change > 1e-3 else ():
        control = torch.full((1, 1, *grid), float(parameters.variant != "delete"), requires_grad=True)
        descent = torch.optim.SGD([control], lr=parameters.rate, momentum=0.9, dampening=0.9)
        for iteration in range(parameters.iterations):
            with torch.enable_grad():
                mask = smooth_mask(control, (height, width), parameters.sigma / parameters.step)
                shown = [perturbed(levels, mask if sign > 0 else 1 - mask) for sign in signs]
                worth = (lvlm.soft_log_probs(episode, torch.cat(shown)).mean(1).to(mask) * signs).sum()
                price = parameters.price * 1.0035**iteration
                loss = price * area_loss(mask, area) - parameters.gain / change * worth
                descent.zero_grad()
                (control.grad,) = torch.autograd.grad(loss, control)
            descent.step()
            with torch.no_grad():
                control.clamp_(0, 1)
        mask = smooth_mask(control.detach(), (height, width), parameters.sigma / parameters.step)
        sums += mask[0, 0].double().numpy()
        areas.append(float(mask.mean()))
    heat = gaussian_filter(sums, parameters.smooth * np.array(sums.shape))
    return from_heatmap(heat, episode, extras={"areas": areas})
