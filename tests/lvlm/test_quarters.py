"""Disconnected quarters on tiny models of the real classes: what cannot reach the answer, and what still can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm import Lvlm
from medground_bench.lvlm.quarters import disconnected, quarter_tokens, settled_size
from medground_bench.lvlm.testing import generic_parts
from medground_bench.lvlm.whitebox import image_features, pixel_gradients, pixel_map

FAMILIES = ["tiny_qwen", "tiny_gemma"]
SIDE = 112
HIDDEN = (1, 2)


@pytest.fixture(params=FAMILIES)
def lvlm(request: pytest.FixtureRequest) -> Lvlm:
    found: Lvlm = request.getfixturevalue(request.param)
    return found


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE), dtype=np.uint8)


def prepared(lvlm: Lvlm) -> Any:
    return lvlm.prepare(Image.fromarray(noise()), "Is there a nodule?", "Yes", side=SIDE)


def with_quarter(frame: np.ndarray, quarter: int, margin: int = 8) -> np.ndarray:
    """Other pixels inside a quarter, away from its edges, over which resizing smears."""
    out, half = frame.copy(), SIDE // 2
    y, x = (half * k + margin for k in divmod(quarter, 2))
    size = half - 2 * margin
    out[y : y + size, x : x + size] = noise(1)[:size, :size]
    return out


def test_every_token_is_of_one_quarter(lvlm: Lvlm) -> None:
    episode = prepared(lvlm)
    quarters = quarter_tokens(episode)
    assert sorted(token for quarter in quarters for token in quarter) == list(range(len(episode.image_positions)))
    assert len({len(quarter) for quarter in quarters}) == 1
    for k, quarter in enumerate(quarters):
        y, x = divmod(k, 2)
        for token in quarter:
            x1, y1, x2, y2 = episode.grid.boxes[token]
            assert ((x1 + x2) // SIDE, (y1 + y2) // SIDE) == (x, y)


def test_what_is_hidden_cannot_reach_the_answer(lvlm: Lvlm) -> None:
    episode, frame = prepared(lvlm), noise()
    frames = np.stack([frame, *(with_quarter(frame, k) for k in range(4))])
    plain = lvlm.log_probs(episode, frames)
    with disconnected(lvlm, episode, HIDDEN, tower=True):
        parted = lvlm.log_probs(episode, frames)
    with disconnected(lvlm, episode, HIDDEN, tower=False):
        tokens = lvlm.log_probs(episode, frames)
    for quarter in range(4):
        moved = [float(np.abs(scores[1 + quarter] - scores[0]).max()) for scores in (plain, parted, tokens)]
        assert moved[0] > 1e-4
        assert (moved[1] < 1e-6) == (quarter in HIDDEN)
        assert moved[2] > 1e-6, "the vision tower tells the other tokens of it"
    assert np.array_equal(lvlm.log_probs(episode, frames), plain), "all is as it was"


def test_gradients_are_zero_there(lvlm: Lvlm) -> None:
    episode = prepared(lvlm)
    with disconnected(lvlm, episode, HIDDEN, tower=True):
        _, gradients = pixel_gradients(lvlm, episode)
    values = pixel_map(lvlm, episode, gradients).abs().sum(dim=0)
    h, w = values.shape[0] // 2, values.shape[1] // 2
    sums = [float(values[y * h : (y + 1) * h, x * w : (x + 1) * w].sum()) for y in (0, 1) for x in (0, 1)]
    assert [total == 0 for total in sums] == [quarter in HIDDEN for quarter in range(4)]


def test_the_tower_sees_each_quarter_by_itself(lvlm: Lvlm) -> None:
    """Features of a quarter are the same whatever the others show, in the order of the image's tokens."""
    episode, frame = prepared(lvlm), noise()
    quarters = quarter_tokens(episode)
    frames = np.stack([frame, with_quarter(frame, 2)])
    with disconnected(lvlm, episode, (), tower=True), torch.no_grad():
        features = image_features(lvlm, lvlm.pixel_inputs(episode, frames), 2)
    for k, quarter in enumerate(quarters):
        same = torch.allclose(features[0, list(quarter)], features[1, list(quarter)], atol=1e-6)
        assert same == (k != 2)


def test_what_cannot_be_parted_is_refused(lvlm: Lvlm) -> None:
    episode = prepared(lvlm)
    longer = lvlm.prepare(Image.fromarray(noise()), "Is there a nodule?", "Yes, there is one", side=SIDE)
    before = len(lvlm.model._forward_pre_hooks)
    with (
        disconnected(lvlm, episode, HIDDEN, tower=True),
        pytest.raises(LvlmError, match="another text"),
    ):
        lvlm.log_probs(longer, noise()[None])
    assert len(lvlm.model._forward_pre_hooks) == before


@pytest.mark.parametrize("family", ["glm4v", "llava", "paligemma", "qwen2_vl", "qwen3_vl"])
def test_other_families(family: str) -> None:
    """What is parted cannot reach the answer, by features of inner layers, a class token or places neither."""
    lvlm = Lvlm.from_parts(*generic_parts(family))
    width, height = settled_size(lvlm, SIDE, SIDE)
    picture = np.random.default_rng(0).integers(0, 255, (height, width), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(picture), "Is there a nodule?", "Yes", side=None)
    frames = np.repeat(picture[None], 5, axis=0)
    for k in range(4):
        y, x = (k // 2) * height // 2, (k % 2) * width // 2
        frames[1 + k, y : y + height // 2, x : x + width // 2] = noise(1)[: height // 2, : width // 2]
    for tower in (False, True):
        if tower and family == "glm4v":
            with pytest.raises(LvlmError, match="is not known"), disconnected(lvlm, episode, HIDDEN, tower=tower):
                pass
            continue
        with disconnected(lvlm, episode, HIDDEN, tower=tower):
            scores = lvlm.log_probs(episode, frames)
        moved = np.abs(scores[1:] - scores[0]).max(axis=1)
        assert [bool(m < 1e-6) for m in moved] == [tower and quarter in HIDDEN for quarter in range(4)]


def test_an_odd_grid_and_another_family(tiny_qwen: Lvlm) -> None:
    odd = tiny_qwen.prepare(Image.fromarray(noise()[:84, :84]), "Is there a nodule?", "Yes", side=None)
    with pytest.raises(LvlmError, match="over the middle"), disconnected(tiny_qwen, odd, HIDDEN, tower=True):
        pass
    from medground_bench.lvlm.families.mistral3 import Mistral3

    with pytest.raises(LvlmError, match="is not known"), Mistral3().quartered(tiny_qwen.model):
        pass
