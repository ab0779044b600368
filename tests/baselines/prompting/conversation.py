"""An episode to ask about, and an LVLM that replies what it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medground_bench.core.schema import question
from medground_bench.lvlm import Generated

if TYPE_CHECKING:
    import pytest

QUESTION = question("pleural effusion", "direct")


def prepare(lvlm: Any, size: tuple[int, int] = (448, 224), side: int | None = 224) -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    return lvlm.prepare(Image.fromarray(pixels), QUESTION, "Yes", side=side)


def answer(monkeypatch: pytest.MonkeyPatch, lvlm: Any, reply: str) -> list[Any]:
    """Let the LVLM reply ``reply``; returns what it is asked."""
    asked: list[Any] = []

    def generate(images: Any, questions: Any, max_new_tokens: int, *, side: Any) -> list[Generated]:
        asked.append((images, questions, max_new_tokens, side))
        return [Generated(reply)]

    monkeypatch.setattr(lvlm, "generate", generate)
    return asked
