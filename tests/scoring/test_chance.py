"""Chance rows: closed form, the expected overlap of random boxes, the prior that leaves the patient out."""

from __future__ import annotations

import numpy as np
import pytest

from medground_bench.scoring import (
    CHANCE_ROWS,
    ScoringError,
    best_chance,
    chance_scores,
    ragged,
    score_boxes,
    whole_image_scores,
)
from medground_bench.scoring.chance import centre_prior_boxes, random_boxes


def test_whole_image_closed_form_is_what_scoring_the_whole_image_gives() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 400, (200, 2))
    references = []
    for width, height in sizes:
        corner = rng.random((3, 2)) * [width, height]
        references.append(np.concatenate([corner, np.minimum(corner + 60, [width, height])], axis=1).tolist())
    references[7] = []
    closed = whole_image_scores(references, sizes)
    scored = score_boxes([[[0, 0, w, h]] for w, h in sizes.tolist()], references)
    for a, b in zip(closed, scored, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_evidence_beyond_the_image_is_cut() -> None:
    scores = whole_image_scores([[[-10, 0, 10, 20], [0, 0, 10, 99]]], [[20, 20]])
    assert scores.iou.tolist() == [0.5]


def test_random_box_is_size_matched_uniform_and_seeded() -> None:
    evidence = ragged([[[10, 20, 40, 60]], [[0, 0, 100, 100]], []])
    sizes = np.array([[100, 200], [100, 100], [50, 50]], float)
    draws = [b.boxes for b in random_boxes(evidence, sizes, draws=4000, seed=1)]
    first = np.array([b[0] for b in draws])
    np.testing.assert_allclose(first[:, 2:] - first[:, :2], [[30, 40]] * 4000)
    assert first.min() >= 0
    assert first[:, 2].max() <= 100
    assert first[:, 3].max() <= 200
    assert first[:, 0].mean() == pytest.approx(35, abs=1.5)  # uniform over [0, 70]
    assert first[:, 0].std() == pytest.approx(70 / 12**0.5, rel=0.05)
    assert np.array([b[1] for b in draws]).tolist() == [[0, 0, 100, 100]] * 4000  # no room to move
    again = [b.boxes for b in random_boxes(evidence, sizes, draws=2, seed=1)]
    np.testing.assert_array_equal(draws[1], again[1])


def test_expected_overlap_of_a_random_box() -> None:
    """A box of half the width moves over a strip: its mean overlap has a closed form."""
    n = 400
    scores = chance_scores([[[25, 0, 75, 10]]] * n, [[100, 10]] * n, ["a"] * n, range(n), draws=64)["random_box"]
    # |shift| is uniform on [0, 25]: recall = 1 - shift / 50, mean 3 / 4.
    assert scores.recall.mean() == pytest.approx(0.75, abs=0.005)


def test_centre_prior_leaves_the_patient_out() -> None:
    evidence = ragged([[[0, 0, 20, 20]], [[40, 40, 60, 60]], [[80, 80, 100, 100], [60, 60, 70, 70]], [[10, 0, 30, 10]]])
    sizes = np.array([[100, 100]] * 3 + [[50, 50]], float)
    attributes, patients = ["a", "a", "a", "b"], ["p", "p", "q", "r"]
    boxes = centre_prior_boxes(evidence, sizes, attributes, patients)
    # Record 0 and 1 share a patient: only record 2's surrounding box (60, 60, 100, 100) is left.
    np.testing.assert_allclose(boxes[0], [60, 60, 100, 100])
    np.testing.assert_allclose(boxes[1], [60, 60, 100, 100])
    # Record 2: mean centre (30, 30), mean size (20, 20) of records 0 and 1.
    np.testing.assert_allclose(boxes[2], [20, 20, 40, 40])
    # Record 3 is alone with its attribute: all others, in fractions, on its own image of 50 x 50.
    centre, size = (10 + 50 + 80) / 3 / 100, (20 + 20 + 40) / 3 / 100
    np.testing.assert_allclose(boxes[3], 50 * np.array([centre - size / 2] * 2 + [centre + size / 2] * 2))


def test_centre_prior_of_a_lone_patient_is_the_whole_image() -> None:
    boxes = centre_prior_boxes(ragged([[[1, 1, 2, 2]]]), np.array([[30.0, 20.0]]), ["a"], ["p"])
    assert boxes.tolist() == [[0, 0, 30, 20]]


def test_items_asked_of_several_lvlms_count_once() -> None:
    boxes = [[[0, 0, 10, 10]], [[0, 0, 10, 10]], [[50, 50, 60, 60]], [[90, 90, 100, 100]]]
    sizes = np.array([[100, 100]] * 4, float)
    patients, items = ["p", "p", "q", "r"], ["x", "x", "y", "z"]
    once = centre_prior_boxes(ragged(boxes), sizes, ["a"] * 4, patients, items=items)
    np.testing.assert_allclose(once[3], [25, 25, 35, 35])  # mean of x and y
    every = centre_prior_boxes(ragged(boxes), sizes, ["a"] * 4, patients)
    np.testing.assert_allclose(every[3], np.array([50, 50, 80, 80]) / 3, rtol=1e-12)


def test_rows_and_refusals() -> None:
    rows = chance_scores([[[0, 0, 5, 5]]] * 3, [[10, 10]] * 3, ["a"] * 3, [1, 2, 3])
    assert tuple(rows) == CHANCE_ROWS
    assert rows["centre_prior"].iou.tolist() == [1, 1, 1]
    with pytest.raises(ScoringError, match="1 image sizes for 2 records"):
        chance_scores([[], []], [[10, 10]], ["a", "b"], [1, 2])
    with pytest.raises(ScoringError) as caught:
        chance_scores([[], []], [[10, 10], [0, 5]], ["a", "b"], [1, 2])
    assert caught.value.where == "image_sizes[1]"


def test_best_chance_is_the_greatest_mean() -> None:
    assert best_chance({"whole_image": 0.1, "random_box": 0.3, "centre_prior": 0.2}) == "random_box"
    assert best_chance({"whole_image": 0.2, "random_box": 0.2}) == "random_box"


def test_evidence_is_cut_to_its_image() -> None:
    """A box that reaches out, and one that lies outside: what is scored is what can be seen."""
    scores = chance_scores([[[-50, 0, 50, 100], [300, 300, 310, 310]]], [[100, 100]], ["a"], ["p"])
    assert scores["whole_image"].iou[0] == pytest.approx(0.5)
    assert scores["whole_image"].recall[0] == 1
