"""What quantus says where its definitions are ours: makes ``quantus.json``, in an environment of its own.

    python -m venv env && env/bin/pip install quantus==0.6.0
    env/bin/python tests/scoring/protocols/goldens/make_quantus.py

Deletion curves (PixelFlipping; its "black" is the image's darkest value, which of a white image is white), the pointing
game, relevance mass, the top-k intersection, ROAD's imputation without noise, and the entropy of efficient MPRT. Its
Infidelity multiplies attributions with inputs, has no best scale and perturbs block after block; its SensitivityN
removes in the order of the map and not at random: both are other numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import quantus
from quantus.functions.complexity_func import discrete_entropy
from quantus.functions.perturb_func import noisy_linear_imputation

SIDE = 12
GAMES = {
    "additive": lambda z: z @ np.array([4, 2, 1, 1]) / 8,
    "and": lambda z: z[:, 0] * z[:, 1],
    "or": lambda z: z[:, :2].max(axis=1),
}


class Game:
    """A model of four inputs, as quantus calls one."""

    def __init__(self, game: Any) -> None:
        self.game = game

    def shape_input(self, x: Any, shape: Any, **_: Any) -> Any:
        return x

    def predict(self, x: Any) -> Any:
        return self.game(x.reshape(len(x), 4))[:, None]


def main() -> None:
    rng = np.random.default_rng(0)
    plain = {"normalise": False, "abs": False, "disable_warnings": True}
    maps = np.round(rng.random((8, 1, 2, 2)), 3)
    flipping = quantus.PixelFlipping(features_in_step=1, perturb_baseline=0.0, **plain)
    ones, target = np.ones_like(maps), np.zeros(len(maps), int)
    curves = {
        name: flipping.evaluate_batch(model=Game(game), x_batch=ones, y_batch=target, a_batch=maps)
        for name, game in GAMES.items()
    }
    heat = np.round(rng.random((10, 1, SIDE, SIDE)) ** 2, 3)
    heat[:, 0, 0, 0] = 0  # the map's minimum: heat above it is the map itself
    boxes, masks = [], np.zeros(heat.shape, bool)
    for k in range(len(heat)):
        x, y = (int(v) for v in rng.integers(1, 6, 2))
        w, h = (int(v) for v in rng.integers(2, 7, 2))
        boxes.append([x, y, x + w, y + h])
        masks[k, 0, y : y + h, x : x + w] = True
    localise = {"a_batch": heat, "s_batch": masks}
    top = [
        float(quantus.TopKIntersection(k=int(m.sum()), **plain).evaluate_batch(a_batch=a[None], s_batch=m[None])[0])
        for a, m in zip(heat, masks, strict=True)
    ]
    image = rng.integers(0, 256, (1, SIDE, SIDE)).astype(float)
    removed = [sorted(rng.choice(SIDE**2, size, replace=False).tolist()) for size in (1, 20, 100)]
    out = {
        "quantus": quantus.__version__,
        "maps": maps[:, 0].tolist(),
        "curves": curves,
        "heat": heat[:, 0].tolist(),
        "boxes": boxes,
        "pointing": [float(v) for v in quantus.PointingGame(**plain).evaluate_batch(**localise)],
        "mass": [float(v) for v in quantus.RelevanceMassAccuracy(**plain).evaluate_batch(**localise)],
        "top": top,
        "image": image[0].tolist(),
        "removed": removed,
        "imputed": [noisy_linear_imputation(image, np.array(r), noise=0.0)[0].tolist() for r in removed],
        "entropy": [float(discrete_entropy(a=a, x=a)) for a in heat],
    }
    (Path(__file__).parent / "quantus.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
