"""CRAFT: factors that are known, and a decoder that looks at one of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from baselines.concept.craft import _FITTED, craft, factorise, two_sided  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from tests.baselines.intervention.test_token_patching import build, prepare  # noqa: E402


def test_two_sides_by_hand() -> None:
    np.testing.assert_array_equal(two_sided(np.array([[1.0, -2.0]])), [[1, 0, 0, 2]])


def test_known_factors_come_back() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([[3.0, 0, 0, 1, 0, 0], [0, 2, 0, 0, 0, 4]])
    basis = factorise(rng.random((80, 2)) @ truth, 2, 0)
    cosines = (basis @ truth.T) / np.outer(np.linalg.norm(basis, axis=1), np.linalg.norm(truth, axis=1))
    assert sorted(cosines.max(1).round(2)) == [1.0, 1.0]
    assert sorted(cosines.argmax(1)) == [0, 1]


def test_a_decoder_that_reads_one_direction_rests_on_the_concept_that_holds_it() -> None:
    lvlm: Any = build("qwen")
    episode = prepare(lvlm)
    positions = list(episode.image_positions)
    basis = np.zeros((2, 128))
    basis[0, 5], basis[1, 9] = 1.0, 1.0  # the positive parts of two hidden dimensions
    parameters = get_method("craft").make_parameters({"points": 16})
    key = (parameters.references, parameters.pool, parameters.concepts, parameters.seed, episode.letterbox)
    _FITTED[lvlm] = {key: basis}
    lvlm.response_log_probs = lambda episode, inputs: (
        inputs["inputs_embeds"][:, positions, 5].clamp(min=0).sum(1)[:, None]
    )
    found = craft.run(lvlm, episode, parameters)
    assert found.concept_scores["concept 0"] == pytest.approx(1.0, abs=0.2)
    assert found.concept_scores["concept 1"] == 0
    from medground_bench.lvlm.embeddings import leaf_embeddings

    own = leaf_embeddings(lvlm, episode)[0, positions, 5].clamp(min=0).numpy()
    assert np.corrcoef(np.ravel(found.heatmap), own)[0, 1] > 0.999


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_on_the_real_classes(family: str) -> None:
    lvlm = build(family)
    episode = prepare(lvlm)
    method = get_method("craft")
    parameters = method.make_parameters({"pool": 2, "concepts": 3, "points": 2})
    first, second = (method.run(lvlm, episode, parameters) for _ in range(2))
    np.testing.assert_array_equal(first.heatmap, second.heatmap)
    assert len(first.concept_scores) == 3
    assert min(first.concept_scores.values()) >= 0
