"""RISE: known answers with a scorer that sees one place, and the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.perturbation.rise import RiseParameters, rise
from baselines.shared.masks import random_masks
from medground_bench.core.errors import MethodError
from tests.baselines.doubles import Scorer, cell_of, plain_episode


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("size", [(224, 224), (640, 448)])
def test_rise_ranks_a_planted_cell_first(seed: int, size: tuple[int, int]) -> None:
    episode = plain_episode(*size, seed=seed)
    cell = (2 + seed % 4, (3 * seed) % 8)
    lvlm: Any = Scorer(lambda image: cell_of(image, *cell).mean() / 255)
    values = rise.function(lvlm, episode, RiseParameters(seed=seed))
    cells = values.reshape(8, 28, 8, 28).mean(axis=(1, 3))
    assert np.unravel_index(cells.argmax(), (8, 8)) == cell
    assert lvlm.images == 256


def test_rise_equals_the_formula() -> None:
    episode = plain_episode()
    lvlm: Any = Scorer(lambda image: image[50:90, 100:130].mean() / 255)
    parameters = RiseParameters(masks=70, seed=3)
    values = rise.function(lvlm, episode, parameters)
    masks = random_masks(np.random.default_rng(3), 70, 224, 224, cells=8, keep=0.5).astype(float)
    frame = episode.frame_array
    scores = np.array([lvlm.score(np.round(frame * m).astype(np.uint8).astype(float)) for m in masks])
    expected = (scores[:, None, None] * masks).sum(axis=0) / masks.sum(axis=0)
    np.testing.assert_allclose(values + np.median(scores), expected, atol=1e-6)


def test_rise_is_seeded() -> None:
    episode = plain_episode()
    lvlm: Any = Scorer(lambda image: cell_of(image, 2, 2).mean())
    first, again, other = (rise.function(lvlm, episode, RiseParameters(masks=32, seed=s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("score", [-3.7, 0.0, 1 / 3])
def test_a_constant_scorer_names_no_evidence(score: float) -> None:
    episode = plain_episode(300, 200)
    lvlm: Any = Scorer(lambda image: score)
    attribution = rise.run(lvlm, episode)
    assert attribution.degenerate
    assert attribution.boxes == [(0.0, 0.0, 300.0, 200.0)]


@pytest.mark.parametrize("bad", [{"masks": 1}, {"keep": 1.0}, {"cells": 0}])
def test_impossible_parameters_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match="method"):
        RiseParameters(**bad)
