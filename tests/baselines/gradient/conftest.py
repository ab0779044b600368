"""The tiny models that the gradient methods are tried on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from PIL import Image

from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen

QUESTION = "Is there evidence of cardiomegaly in the image?"


@pytest.fixture(scope="module", params=["qwen", "gemma"])
def lvlm(request: pytest.FixtureRequest) -> Any:
    return tiny_qwen() if request.param == "qwen" else tiny_gemma(2, image_size=112, tokens=16)


@pytest.fixture(scope="module")
def episode(lvlm: Any) -> Any:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (84, 112), dtype=np.uint8))
    return lvlm.prepare(image, QUESTION, "Yes", side=None)
