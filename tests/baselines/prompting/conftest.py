"""The tiny models that are asked."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen


@pytest.fixture(scope="module")
def qwen() -> Any:
    return tiny_qwen()


@pytest.fixture(scope="module")
def gemma() -> Any:
    return tiny_gemma(image_size=112, tokens=16)
