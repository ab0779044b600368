"""The oracle kit: games whose attribution is known, played by LVLMs that can do nothing but score.

A game is played on a white frame cut into four quadrants, numbered in reading order; ``z`` is how much of each is left,
1 for white and 0 for black. Every method runs through every game that applies to it, by the table in ``test_kit.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from medground_bench.imaging import Letterbox
from medground_bench.lvlm.grid import TokenGrid
from tests.baselines.doubles import plain_episode

SIDE = 56
WEIGHTS = (4 / 8, 2 / 8, 1 / 8, 1 / 8)

Score = Callable[[np.ndarray], float]


class Player:
    """An LVLM with ``log_probs`` alone: two response tokens share the score of a game."""

    key = "player"

    def __init__(self, score: Score) -> None:
        self._score, self.images = score, 0

    def log_probs(self, episode: Any, images: Any, **_: Any) -> np.ndarray:
        self.images += len(images)
        s = np.array([self._score(np.asarray(image, float)) for image in images])
        return np.stack([0.25 * s, 0.75 * s], axis=1)


def quadrants(values: np.ndarray) -> np.ndarray:
    """Means of a map's four quadrants."""
    h, w = values.shape[0] // 2, values.shape[1] // 2
    return np.array([part.mean() for part in (values[:h, :w], values[:h, w:], values[h:, :w], values[h:, w:])])


def _of_quadrants(game: Callable[[np.ndarray], float]) -> Score:
    return lambda image: float(game(quadrants(image) / 255))


ADDITIVE = _of_quadrants(lambda z: z @ WEIGHTS)
"""``(4 z1 + 2 z2 + z3 + z4) / 8``: occlusion, Shapley values and path integrals from black are the weights."""

AND = _of_quadrants(lambda z: z[0] * z[1])
"""``z1 z2``: occlusion is 1 at either, Shapley values 1/2."""

OR = _of_quadrants(lambda z: max(z[0], z[1]))
"""``max(z1, z2)``: no single removal does anything; Shapley values are 1/2."""


def dead(image: np.ndarray) -> float:
    """A score that nothing changes: whatever a method marks, it made up."""
    return -1.25


def left_only(image: np.ndarray) -> float:
    """Depends on the left half of the frame, not linearly, and on no pixel of the right."""
    left = image[:, : image.shape[1] // 2] / 255
    return float(4 * left.mean() + left[::2, ::3].mean() ** 2)


def white_episode() -> Any:
    """The board of the quadrant games."""
    return of_image(np.full((SIDE, SIDE), 255, np.uint8))


def of_image(pixels: np.ndarray) -> Any:
    """An episode without tensors whose frame is the image itself."""
    height, width = pixels.shape
    image = Image.fromarray(pixels)
    return replace(
        plain_episode(),
        image=image,
        frame=image.convert("RGB"),
        letterbox=Letterbox.identity(width, height),
        geometry=TokenGrid(8, 8, (width, height)),
    )


class SoftPlayer(Player):
    """The player of a game for methods that read gradients at the frame: its score is a function of tensors (H, W)."""

    def __init__(self, score: Callable[[Any], Any]) -> None:
        super().__init__(lambda image: float(score(_tensor(image))))
        self._soft = score

    def soft_log_probs(self, episode: Any, frames: Any) -> Any:
        torch = _torch()
        s = torch.stack([self._soft(frame[0]) for frame in frames])
        return torch.stack([0.25 * s, 0.75 * s], dim=1)

    def frame_gradients(self, episode: Any, frames: np.ndarray, weights: Any = None) -> tuple[np.ndarray, np.ndarray]:
        torch = _torch()
        leaf = _tensor(frames)[:, None].requires_grad_(True)
        tokens = self.soft_log_probs(episode, leaf)
        scores = tokens.sum(1) if weights is None else tokens @ torch.as_tensor(weights)
        (gradient,) = torch.autograd.grad(scores.sum(), leaf)
        return scores.detach().numpy(), gradient[:, 0].numpy()


def _torch() -> Any:
    import torch

    return torch


def _tensor(image: Any) -> Any:
    return _torch().as_tensor(np.asarray(image, np.float64))


def _soft_quadrants(image: Any) -> Any:
    h, w = image.shape[0] // 2, image.shape[1] // 2
    parts = (image[:h, :w], image[:h, w:], image[h:, :w], image[h:, w:])
    return _torch().stack([part.mean() for part in parts]) / 255


def soft_additive(image: Any) -> Any:
    return _soft_quadrants(image) @ _torch().tensor(WEIGHTS, dtype=image.dtype)


def soft_and(image: Any) -> Any:
    z = _soft_quadrants(image)
    return z[0] * z[1]


def soft_dead(image: Any) -> Any:
    return image.sum() * 0 - 1.25


def soft_left_only(image: Any) -> Any:
    left = image[:, : image.shape[1] // 2] / 255
    return 4 * left.mean() + left[::2, ::3].mean() ** 2


@dataclass(frozen=True)
class Entry:
    """How a black-box method plays: its options, and what it is known to answer.

    Attributes
    ----------
    options : dict
        Parameters for the small board.
    additive, both, either : tuple of 4 float or None
        Exact means of the quadrants in the games ADDITIVE, AND and OR; None: only the order is checked, where
        evidence is ranked at all.
    exact : bool
        Deterministic and without blur: on the left-only game the map is 0 on the right.
    finds_redundant : bool
        Marks both quadrants of OR (None of the single-removal methods can).
    anatomy : bool
        Works on a chest's anatomy: it plays on a phantom, and only the games that are no matter of quadrants.
    """

    options: dict[str, Any]
    additive: tuple[float, ...] | None = None
    both: tuple[float, ...] | None = None
    either: tuple[float, ...] | None = None
    exact: bool = False
    finds_redundant: bool = False
    anatomy: bool = False


def linear_decoder(family: str) -> tuple[Any, Any, np.ndarray, float]:
    """A decoder of a real class that is linear in its image tokens, and what each of them is worth by hand.

    One layer; norms are the identity (a huge epsilon under a weight of its root), queries are zero, so that attention
    is the same whatever it reads, the MLP adds nothing, and the score is the raw logit of the response's one token.

    Returns
    -------
    lvlm, episode
    effects : ndarray, (P,)
        What the score loses when a token's embedding becomes 0.
    score : float
    """
    torch = _torch()
    from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen
    from medground_bench.lvlm.whitebox import merged_embeddings

    lvlm = tiny_qwen(layers=1) if family == "qwen" else tiny_gemma(image_size=112, tokens=16, layers=1)
    decoder, layer = lvlm.adapter.decoder(lvlm.model), lvlm.layers[0]
    attention: Any = layer.self_attn
    with torch.no_grad():
        for module in decoder.modules():
            if type(module).__name__.endswith("RMSNorm"):
                setattr(module, "eps" if hasattr(module, "eps") else "variance_epsilon", 1e10)
                module.weight.fill_(1e5 - (1.0 if family == "gemma" else 0.0))
        attention.q_proj.weight.zero_()
        attention.v_proj.weight.mul_(100)
        layer.mlp.down_proj.weight.zero_()
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            if projection.bias is not None:
                projection.bias.zero_()

    def logits(episode: Any, inputs: Any) -> Any:
        found = lvlm.model(**inputs, use_cache=False).logits[:, list(episode.rows)]
        return found[:, range(len(episode.rows)), list(episode.token_ids)].float()

    lvlm.response_log_probs = logits
    pixels = np.random.default_rng(0).integers(0, 256, (84, 140), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(pixels), "Is there evidence of x in the image?", "Yes", side=None)
    with torch.no_grad():
        tokens = merged_embeddings(lvlm, episode)[0][list(episode.image_positions)]
        values = attention.v_proj(tokens).reshape(len(tokens), -1, attention.head_dim)
        per_head = values.repeat_interleave(attention.o_proj.in_features // values[0].numel(), dim=1).flatten(1)
        written = attention.o_proj(per_head)  # into every row r, over the r + 1 positions that it sees
        reading = sum(
            lvlm.model.lm_head.weight[token] / (row + 1)
            for row, token in zip(episode.rows, episode.token_ids, strict=True)
        )
        score = float(logits(episode, lvlm.model_inputs(episode)).sum())
        return lvlm, episode, (written @ reading).double().numpy(), score
