"""The plan of a run: passes counted, not believed; hours and storage are the sample's times the records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.attribution.method import get_method
from medground_bench.attribution.plan import count_passes, plan_generate
from medground_bench.core.errors import MedGroundError
from medground_bench.core.schema import question
from medground_bench.dataset.columns import Record

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm


def records(lvlm: Lvlm, count: int = 5) -> list[Record]:
    def image(seed: int) -> Any:
        return lambda: Image.fromarray(np.random.default_rng(seed).integers(0, 255, (80, 60), dtype=np.uint8))

    return [
        Record(
            id=f"r{n}",
            dataset="phantom",
            model=lvlm.key if n else "another",
            mode="direct",
            image_id=f"i{n}",
            patient_id=f"p{n}",
            width=60,
            height=80,
            attribute="x",
            question=question("x", "direct"),
            response="Yes",
            boxes=((0.0, 0.0, 10.0, 10.0),),
            load_image=image(n),
        )
        for n in range(count)
    ]


def test_passes_and_storage(tiny_qwen: Lvlm) -> None:
    settings = {"occlusion": {"rows": 3, "cols": 3}}
    names = ["occlusion", "attention", "grad_attention", "similarity_map"]
    plans = {p.method: p for p in plan_generate(records(tiny_qwen), tiny_qwen, names, settings=settings)}
    assert (plans["occlusion"].forwards, plans["occlusion"].backwards) == (10, 0)  # nine tiles and the image
    assert (plans["attention"].forwards, plans["attention"].backwards) == (1, 0)
    assert (plans["grad_attention"].forwards, plans["grad_attention"].backwards) == (1, 1)
    for plan in plans.values():
        assert plan.records == 4  # one of five is another LVLM's
    one = plans["attention"]
    assert one.hours == pytest.approx(one.seconds * 4 / 3600)
    assert one.bytes == 600 + 128 + 4 * 64  # 8 x 8 tokens of four bytes
    assert "compared with a prompt" in (plans["similarity_map"].error or "")
    assert not tiny_qwen.model.get_output_embeddings()._forward_hooks


def test_what_is_not_there(tiny_qwen: Lvlm) -> None:
    with pytest.raises(MedGroundError, match="no record of LVLM"):
        plan_generate(records(tiny_qwen, 1), tiny_qwen, ["attention"])


def test_counting_leaves_a_model_without_a_head_as_it_was() -> None:
    from medground_bench.lvlm.testing import tiny_two_tower_parts
    from medground_bench.lvlm.two_tower import TwoTower

    model: Any = TwoTower(*tiny_two_tower_parts("clip"))
    episode = model.prepare(Image.new("L", (60, 60)), "effusion")
    with count_passes(model) as counts:
        get_method("occlusion").run(model, episode)
    assert counts == {"forwards": 65, "backwards": 0}
    assert "log_probs" not in vars(model)
