"""Smooth masks over the frame, the blur that they ask for, and how far they are from an area."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["area_loss", "perturbed", "pyramid", "smooth_mask"]

_BLUR, _LEVELS, _SHARPNESS = 20.0, 8, 20.0


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


def pyramid(frame: torch.Tensor) -> torch.Tensor:
    """The frame in ever stronger blur, (L, C, H, W)."""
    import torch
    from scipy.ndimage import gaussian_filter

    image = frame.numpy()
    levels = [
        gaussian_filter(image, (_BLUR * k / (_LEVELS - 1),) * 2 + (0.0,) * (image.ndim - 2)) for k in range(_LEVELS)
    ]
    stack = torch.as_tensor(np.stack(levels))
    return stack[:, None] if stack.ndim == 3 else stack.permute(0, 3, 1, 2)
