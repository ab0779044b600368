"""Extremal perturbations: the smooth mask of a given area that keeps the score highest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.shared.checks import require
from baselines.shared.frames import float_frame
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["ExtremalParameters", "area_loss", "extremal_perturbation", "perturbed", "smooth_mask"]

_BLUR, _LEVELS, _SHARPNESS = 20.0, 8, 20.0


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
    """

    areas: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2)
    iterations: int = 200
    step: int = 7
    sigma: float = 21.0
    rate: float = 0.01
    price: float = 300.0
    gain: float = 5.0

    def __post_init__(self) -> None:
        name = "extremal_perturbation"
        require(bool(self.areas) and all(0 < a < 1 for a in self.areas), name, "areas must be shares, 0 to 1")
        require(self.iterations >= 1 and self.step >= 1, name, "iterations and step must be at least 1")


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

    frame = torch.as_tensor(float_frame(episode), dtype=torch.float32)
    levels = _pyramid(frame)
    with torch.no_grad():
        change = float(lvlm.soft_log_probs(episode, levels[[0, -1]]).mean(1).diff().abs())
    height, width = frame.shape[:2]
    grid = -(-height // parameters.step), -(-width // parameters.step)
    sums, areas = np.zeros((height, width)), []
    for area in parameters.areas if change > 1e-3 else ():
        control = torch.ones(1, 1, *grid, requires_grad=True)
        descent = torch.optim.SGD([control], lr=parameters.rate, momentum=0.9, dampening=0.9)
        for iteration in range(parameters.iterations):
            with torch.enable_grad():
                mask = smooth_mask(control, (height, width), parameters.sigma / parameters.step)
                kept = lvlm.soft_log_probs(episode, perturbed(levels, mask)).mean()
                price = parameters.price * 1.0035**iteration
                loss = price * area_loss(mask, area) - parameters.gain / change * kept.to(mask)
                descent.zero_grad()
                (control.grad,) = torch.autograd.grad(loss, control)
            descent.step()
            with torch.no_grad():
                control.clamp_(0, 1)
        mask = smooth_mask(control.detach(), (height, width), parameters.sigma / parameters.step)
        sums += mask[0, 0].double().numpy()
        areas.append(float(mask.mean()))
    return from_heatmap(sums, episode, extras={"areas": areas})


def smooth_mask(control: torch.Tensor, size: tuple[int, int], sigma: float) -> torch.Tensor:
    """Smooth maximum of control points (1, 1, g, g) around each place, enlarged to (1, 1, H, W).

    ``m = sum_k softmax_k(20 c_k) c_k`` with ``c_k = exp(-2 max(z_k - 1/2, 0)^2) p_k``, z the distance over sigma (in
    control points), computed at the control points.
    """
    import torch

    reach = int(np.ceil(2 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=control.dtype)
    distance = (offsets[:, None] ** 2 + offsets**2).sqrt() / sigma
    kernel = torch.exp(-2 * (distance - 0.5).clamp(min=0) ** 2).flatten()
    padded = torch.nn.functional.pad(control, (reach,) * 4, mode="replicate")
    near = torch.nn.functional.unfold(padded, 2 * reach + 1)[0]  # (window, g * g)
    shares = kernel[:, None] * near
    smooth = (torch.softmax(_SHARPNESS * shares, dim=0) * shares).sum(0).reshape(control.shape)
    return torch.nn.functional.interpolate(smooth, size, mode="bilinear", align_corners=False)


def area_loss(mask: torch.Tensor, area: float) -> torch.Tensor:
    """Mean squared distance of the sorted mask from one that is 1 on a share ``area`` and 0 elsewhere."""
    import torch

    flat = mask.flatten().sort().values
    goal = torch.zeros_like(flat)
    goal[len(flat) - round(area * len(flat)) :] = 1
    return ((flat - goal) ** 2).mean()


def perturbed(levels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Frames (1, C, H, W): at each pixel the level of (L, C, H, W) that the mask asks for, 1 the sharpest, mixed."""
    import torch

    place = (1 - mask[0]) * (len(levels) - 1)  # (1, H, W)
    number = torch.arange(len(levels), dtype=mask.dtype)[:, None, None, None]
    return ((1 - (place - number).abs()).clamp(min=0) * levels).sum(0, keepdim=True)


def _pyramid(frame: torch.Tensor) -> torch.Tensor:
    """The frame in ever stronger blur, (L, C, H, W)."""
    import torch
    from scipy.ndimage import gaussian_filter

    image = frame.numpy()
    levels = [
        gaussian_filter(image, (_BLUR * k / (_LEVELS - 1),) * 2 + (0.0,) * (image.ndim - 2)) for k in range(_LEVELS)
    ]
    stack = torch.as_tensor(np.stack(levels))
    return stack[:, None] if stack.ndim == 3 else stack.permute(0, 3, 1, 2)
