"""What grad-cam says of a small convolution: makes ``cams.json``.

In an environment of its own:

    python -m venv env && env/bin/pip install grad-cam==1.5.7
    env/bin/python tests/baselines/goldens/make_cams.py

The network has one layer of five channels, of either sign, and a head that is not linear; its input has the size of
the layer's map, so that nothing is resampled. Stored are what the layer holds, the gradients there, and the maps as the
package gives them: cut at 0 and scaled to 0-1, Eigen-CAM's before both, Score-CAM's weights.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_grad_cam import GradCAM, HiResCAM, LayerCAM, ScoreCAM, XGradCAM
from pytorch_grad_cam.utils.svd_on_activations import get_2d_projection

SIDE, CHANNELS = 8, 5


class Net(torch.nn.Module):
    """Grey levels (N, 1, 8, 8) -> two scores (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.head = torch.nn.Linear(CHANNELS * SIDE * SIDE, 2)
        torch.nn.init.normal_(self.head.weight, std=0.5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(torch.tanh(2 * self.layer(image)).flatten(1))
        return out


def second(output: torch.Tensor) -> torch.Tensor:
    """What is explained: the second score, whether of a batch or of one image."""
    return output[..., 1]


def main() -> None:
    net = Net().double().eval()
    grey = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE))
    image = torch.as_tensor(grey / 255)[None, None].requires_grad_(True)
    states = net.layer(image)
    states.retain_grad()
    second(net.head(torch.tanh(2 * states).flatten(1))).sum().backward()
    gradients = states.grad
    assert gradients is not None
    maps: dict[str, Any] = {}
    for kind in (GradCAM, HiResCAM, LayerCAM, XGradCAM):
        with kind(model=net, target_layers=[net.layer]) as cam:
            maps[kind.__name__] = cam(input_tensor=image, targets=[second])[0].tolist()
    held = states.detach().numpy()
    with ScoreCAM(model=net, target_layers=[net.layer]) as cam:
        weights = cam.get_cam_weights(image.detach(), net.layer, [second], held, None)
    out = {
        "version": version("grad-cam"),
        "image": grey.tolist(),
        "kernel": net.layer.weight.tolist(),
        "bias": net.layer.bias.tolist() if net.layer.bias is not None else [],
        "head": net.head.weight.tolist(),
        "head_bias": net.head.bias.tolist(),
        "states": held[0].reshape(CHANNELS, -1).T.tolist(),
        "gradients": gradients.numpy()[0].reshape(CHANNELS, -1).T.tolist(),
        "maps": maps,
        "projection": get_2d_projection(held.copy())[0].tolist(),
        "score_weights": np.asarray(weights)[0].tolist(),
    }
    (Path(__file__).parent / "cams.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
