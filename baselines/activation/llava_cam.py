"""LLaVA-CAM: a CAM on what a late layer's MLP reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.shared.checks import require
from medground_bench.attribution.method import Attribution, from_heatmap, method

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["LlavaCamParameters", "cam", "llava_cam", "mlp_inputs"]


@dataclass(frozen=True)
class LlavaCamParameters:
    """Parameters of ``llava_cam``.

    Attributes
    ----------
    layer : int or None
        Decoder layer below the last; None: at 0.89 of the depth.
    samples : int
        Noisy frames to average over (SmoothCAM: 50); 1 is the frame itself.
    noise : float
        Standard deviation of their noise, as a share of the range of grey levels.
    seed : int
        Of the noise.
    """

    layer: int | None = None
    samples: int = 1
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.samples >= 1, "llava_cam", "samples must be at least 1")
        require(self.noise >= 0, "llava_cam", "noise cannot be negative")


@method(
    "llava_cam",
    family="activation",
    over="frame",
    parameters=LlavaCamParameters,
    needs=("white_box", "geometry", "gradients"),
    cost="1 F + 1 B",
    reference="Zhang et al., From redundancy to relevance, NAACL 2025; a baseline of EAGLE, CVPR 2026",
)
def llava_cam(lvlm: Lvlm, episode: Episode, parameters: LlavaCamParameters) -> Attribution:
    """``ReLU(mean_d alpha_d Z_pd)``, ``alpha_d = mean_p ReLU(dy/dZ_pd)``, on the token grid.

    Z is the normed state that enters the MLP of a late layer (in Gemma the norm before the feed-forward, not the one
    after attention), y the sum of the tokens' logits. Unsigned, question-aware through the gradient, which is the MLP
    branch's alone. Grad-CAM clips after the sum over channels, this one the gradients before it.
    """
    depth = len(lvlm.layers)
    layer = min(round(0.89 * depth), depth - 2) if parameters.layer is None else parameters.layer
    require(-depth <= layer < depth and layer % depth < depth - 1, "llava_cam", f"layer must lie below {depth - 1}")
    rng, total = np.random.default_rng(parameters.seed), np.zeros(len(episode.grid))
    for _ in range(parameters.samples):
        image = None
        if parameters.samples > 1:
            noise = rng.normal(0, 255 * parameters.noise, episode.frame_array.shape)
            image = np.clip(np.rint(episode.frame_array + noise), 0, 255).astype(np.uint8)
        total += cam(*mlp_inputs(lvlm, episode, layer, image)) / parameters.samples
    heat = episode.grid.as_map(total)
    return from_heatmap(heat, episode, extras={"layer": layer % depth})


def cam(states: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """``ReLU(mean_d alpha_d Z_pd)``, (P,), from (P, D) states and gradients."""
    out: np.ndarray = np.maximum((states * np.maximum(gradients, 0).mean(0)).mean(1), 0)
    return out


def mlp_inputs(lvlm: Lvlm, episode: Episode, layer: int, image: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """What enters a layer's MLP at the image tokens and the gradient of the tokens' logits there, (P, D) float64."""
    import torch

    from medground_bench.lvlm.embeddings import check_finite, leaf_embeddings, score_embeddings

    seen: dict[str, torch.Tensor] = {}
    head = lvlm.model.get_output_embeddings()
    hooks = [
        lvlm.adapter.mlp_norm(lvlm.layers[layer]).register_forward_hook(lambda m, a, out: seen.update(state=out)),
        head.register_forward_hook(lambda m, a, out: seen.update(logits=out)),
    ]
    try:
        with torch.enable_grad():
            leaf = leaf_embeddings(lvlm, episode, image).requires_grad_(True)
            score_embeddings(lvlm, episode, leaf)
            logits = seen["logits"][0]
            rows = logits if len(logits) == len(episode.rows) else logits[list(episode.rows)]
            target = rows.float()[range(len(rows)), list(episode.token_ids)].sum()
            (gradient,) = torch.autograd.grad(target, seen["state"])
    finally:
        for hook in hooks:
            hook.remove()
    check_finite(gradient, f"the gradient at layer {layer}", lvlm)
    positions = list(episode.image_positions)
    state, slope = (t[0].detach()[positions].double().cpu().numpy() for t in (seen["state"], gradient))
    return state, slope
