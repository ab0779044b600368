"""What the methods of two-tower models share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode

__all__ = ["hidden_with_gradient", "need_two_towers"]


def need_two_towers(lvlm: Any, name: str) -> Any:
    """The model, if it has two towers.

    Raises
    ------
    MethodError
        If it is an LVLM.
    """
    from medground_bench.lvlm.two_tower import TwoTower

    if not isinstance(lvlm, TwoTower):
        raise MethodError(
            f"method {name!r} looks into an image tower that is compared with a prompt",
            expected="a two-tower model (CLIP, SigLIP)",
            remedy="for an LVLM take attention, gradcam or occlusion",
        )
    return lvlm


def hidden_with_gradient(model: Any, episode: Episode, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A hidden state of the image tower at the patches and the gradient of ``log p(finding)`` there, (P, D) each.

    Raises
    ------
    MethodError
        If there is no such layer, or the gradient is zero: the patches of that layer do not reach the score.
    """
    import torch

    with torch.enable_grad():
        pixels = episode.inputs["pixel_values"].clone().requires_grad_(True)
        image, out = model.tower(pixels)
        states = out["hidden_states"]
        if not -len(states) <= layer < len(states):
            raise MethodError(f"there is no hidden state {layer}: the image tower has {len(states)}")
        (gradient,) = torch.autograd.grad(model.scores(image, episode.inputs["texts"]).sum(), states[layer])
    patches = slice(states[layer].shape[1] - len(episode.grid), None)  # CLIP has a class token before them
    gradient = gradient[0, patches].float()
    if not bool(gradient.any()):
        raise MethodError(f"the gradient at hidden state {layer} is exactly zero", remedy="choose a lower layer")
    return states[layer][0, patches].detach().float(), gradient
