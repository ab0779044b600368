"""What a method says of all tokens, as a map and the image's share of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.shared.attention_rows import from_row  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.lvlm.quarters import disconnected  # noqa: E402

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm
    from medground_bench.lvlm.episode import Episode

SIDE = 112


@pytest.fixture(params=["tiny_qwen", "tiny_gemma"])
def lvlm(request: pytest.FixtureRequest) -> Lvlm:
    found: Lvlm = request.getfixturevalue(request.param)
    return found


def prepared(lvlm: Lvlm) -> Episode:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), dtype=np.uint8))
    return lvlm.prepare(image, "Is there a nodule?", "Yes", side=SIDE)


def test_the_images_share_of_a_row(lvlm: Lvlm) -> None:
    """By hand: each image token has 1, each other one has 3 with either sign."""
    episode = prepared(lvlm)
    row = torch.full((episode.length,), 3.0)
    row[::2] = -3
    row[list(episode.image_positions)] = 1
    count = len(episode.image_positions)
    found = from_row(episode, row, extras={"layer": 1})
    assert found.extras == {"layer": 1, "image_share": pytest.approx(count / (count + 3 * (episode.length - count)))}
    assert "image_share" not in from_row(episode, 0 * row).extras


@pytest.mark.parametrize("name", ["attention", "rollout", "lrp", "ifr", "logit_attribution"])
def test_a_decoder_that_does_not_see_the_image_gives_it_nothing(lvlm: Lvlm, name: str) -> None:
    episode, method = prepared(lvlm), get_method(name)
    assert 0.01 < method.run(lvlm, episode).extras["image_share"] < 1
    with disconnected(lvlm, episode, range(4), tower=False):
        assert method.run(lvlm, episode).extras["image_share"] == pytest.approx(0, abs=1e-9)
