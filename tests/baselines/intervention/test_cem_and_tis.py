"""Exchange with donors, and tokens that leave attention."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from baselines.intervention.tis import mean_score_of_kept  # noqa: E402
from baselines.shared.frames import reference_frames  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.lvlm.embeddings import leaf_embeddings, score_embeddings  # noqa: E402
from tests.baselines.intervention.test_token_patching import build, prepare  # noqa: E402
from tests.baselines.kit import (  # noqa: E402
    ADDITIVE,
    WEIGHTS,
    Player,
    SoftPlayer,
    quadrants,
    soft_additive,
    white_episode,
)


def test_on_an_additive_score_it_is_the_mean_difference_from_the_donors() -> None:
    method, episode = get_method("cem"), white_episode()
    options = {"regions": "tiles:2x2", "donors": 3}
    player: Any = Player(ADDITIVE)
    found = method.run(player, episode, method.make_parameters(options))
    pool = np.rint(reference_frames("phantom", episode, 3, 0))
    expected = np.mean([np.array(WEIGHTS) * (1 - quadrants(donor) / 255) for donor in pool], axis=0)
    np.testing.assert_allclose(quadrants(np.asarray(found.heatmap)), expected, atol=1e-9)
    assert player.images == 1 + 3 * 4
    cheaper: Any = Player(ADDITIVE)
    method.run(cheaper, episode, method.make_parameters({**options, "budget": 10}))
    assert cheaper.images == 1 + 2 * 4


def test_on_an_additive_score_exchange_and_expected_gradients_are_one() -> None:
    """``a_i (z_i - mean z'_i)`` by both, with the same radiographs."""
    episode, pool = white_episode(), reference_frames("phantom", white_episode(), 4, 0)
    expected = np.array(WEIGHTS) * (1 - np.mean([quadrants(donor) / 255 for donor in pool], axis=0))
    exchange, gradients = get_method("cem"), get_method("expected_gradients")
    player: Any = SoftPlayer(soft_additive)
    one = exchange.run(player, episode, exchange.make_parameters({"regions": "tiles:2x2", "donors": 4}))
    other = gradients.run(player, episode, gradients.make_parameters({"pool": 4, "samples": 8}))
    np.testing.assert_allclose(quadrants(np.asarray(one.heatmap)), expected, atol=5e-3)  # donors are rounded to bytes
    np.testing.assert_allclose(28 * 28 * quadrants(np.asarray(other.heatmap)), expected, atol=1e-6)
    assert other.extras["residual"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_a_hidden_token_cannot_be_read(family: str) -> None:
    """Whatever stands at a hidden position, the score is the same; at a visible one it is not."""
    lvlm = build(family)
    episode = prepare(lvlm)
    own = leaf_embeddings(lvlm, episode)
    changed = own.clone()
    changed[0, episode.image_positions[3]] += 5.0
    hidden = torch.zeros(1, episode.length, dtype=torch.bool)
    with torch.no_grad():
        seen = [score_embeddings(lvlm, episode, e) for e in (own, changed)]
        assert not torch.allclose(*seen, atol=1e-4)
        hidden[0, episode.image_positions[3]] = True
        unseen = [score_embeddings(lvlm, episode, e, hidden) for e in (own, changed)]
        torch.testing.assert_close(*unseen, rtol=0, atol=1e-5)
        nothing = score_embeddings(lvlm, episode, own, torch.zeros_like(hidden))
        torch.testing.assert_close(nothing, seen[0], rtol=0, atol=1e-5)
        assert not torch.allclose(unseen[0], seen[0], atol=1e-4)


def test_leaving_one_out_at_a_time_ranks_by_effect() -> None:
    effects = np.array([0.5, -1.0, 3.0, 0.0])
    kept = ~np.eye(4, dtype=bool)
    found = mean_score_of_kept(kept, -effects)
    np.testing.assert_array_equal(np.argsort(found), np.argsort(effects))


def test_tis_is_the_mean_score_of_random_sets() -> None:
    lvlm = build("qwen")
    episode = prepare(lvlm)
    method = get_method("tis")
    found = np.asarray(method.run(lvlm, episode, method.make_parameters({"budget": 6, "keep": 0.25})).heatmap).ravel()
    rng, count = np.random.default_rng(0), len(episode.grid)
    kept = np.stack([rng.permutation(count) < round(0.25 * count) for _ in range(6)])
    scores = []
    for chosen in kept:
        hidden = torch.zeros(1, episode.length, dtype=torch.bool)
        hidden[0, [p for p, there in zip(episode.image_positions, chosen, strict=True) if not there]] = True
        with torch.no_grad():
            score = score_embeddings(lvlm, episode, leaf_embeddings(lvlm, episode), hidden)
        scores.append(float(score.double().sum()))
    np.testing.assert_allclose(found, mean_score_of_kept(kept, np.array(scores)), atol=1e-5)
