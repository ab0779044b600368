"""A textured image of which one patch counts, by its contrast: masks that are optimised and searches find it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.imaging import resize_heatmap  # noqa: E402
from tests.baselines.kit import SoftPlayer, of_image  # noqa: E402

PIXELS = (np.random.default_rng(0).integers(0, 2, (56, 56)) * 160 + 40).astype(np.uint8)
PATCHES = {"middle": (14, 28), "corner": (42, 0), "edge": (28, 42)}
TILES = {"regions": "tiles:4x4"}
METHODS: dict[str, dict[str, Any]] = {
    "igos_plus": {"size": 16},
    "igos_pp": {"size": 16},
    "extremal_perturbation": {"areas": (0.0625, 0.125), "iterations": 100, "step": 4, "sigma": 6.0},
    "blur_ig": {"steps": 20},
    "eagle": TILES,
    "lima": TILES,
    "vps": TILES,
    "sobol": TILES,
    "hsic": TILES,
    "cem": {**TILES, "references": "black"},
}
"""Not ``smdl``: its reward is read from a tower (``search/test_eagle.py``)."""


@pytest.mark.parametrize("place", PATCHES)
@pytest.mark.parametrize("name", METHODS)
def test_the_patch_is_found(name: str, place: str) -> None:
    top, left = PATCHES[place]
    inside = np.zeros(PIXELS.shape, bool)
    inside[top : top + 14, left : left + 14] = True
    chosen = torch.from_numpy(inside)
    player: Any = SoftPlayer(lambda image: 2 * torch.tanh(4 * (image[chosen] / 255).std()))
    method = get_method(name)
    found = method.run(player, of_image(PIXELS), method.make_parameters(METHODS[name]))
    assert not found.degenerate
    heat = resize_heatmap(np.asarray(found.heatmap, float), PIXELS.shape)
    heat = np.maximum(heat, 0)
    assert heat[inside].mean() > 5 * heat[~inside].mean()
    x1, y1, x2, y2 = found.boxes[0] if found.boxes else (left, top, left + 1, top + 1)  # speckles make no boxes
    assert left - 4 <= (x1 + x2) / 2 <= left + 18
    assert top - 4 <= (y1 + y2) / 2 <= top + 18
