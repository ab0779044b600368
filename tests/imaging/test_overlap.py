"""The four scores: known answers, shapely and the plain implementation as oracles, conventions, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box as shape
from shapely.ops import unary_union

from medground_bench.scoring import METRICS, RaggedBoxes, ScoringError, ragged, record_areas, score_boxes
from tests.plain import plain


def test_golden(shared_data: Path) -> None:
    golden = json.loads((shared_data / "golden" / "eval_union_boxes.json").read_text())
    scores = score_boxes(golden["preds"], golden["gts"])
    assert len(scores.iou) == 50
    for name in METRICS:
        np.testing.assert_allclose(getattr(scores, name), golden["half_open"][name], rtol=0, atol=1e-9)


def random_record(rng: np.random.Generator, most: int) -> list[list[float]]:
    """Boxes of mixed kinds: whole and real corners, shared edges, duplicates, reversed and empty ones."""
    boxes = []
    for _ in range(int(rng.integers(0, most + 1))):
        box = rng.integers(0, 12, 4).astype(float) if rng.random() < 0.5 else rng.random(4) * 12
        boxes.append(
            box.tolist() if rng.random() < 0.3 else [*np.minimum(box[:2], box[2:]), *np.maximum(box[:2], box[2:])]
        )
        if rng.random() < 0.1:
            boxes.append(boxes[-1])
    return boxes


def test_two_thousand_random_records_against_shapely() -> None:
    rng = np.random.default_rng(5)
    predictions = [random_record(rng, 10) for _ in range(2000)]
    references = [random_record(rng, 10) for _ in range(2000)]
    areas = record_areas(predictions, references)
    for k, sides in enumerate(zip(predictions, references, strict=True)):
        p, g = (unary_union([shape(*b) for b in side if b[2] > b[0] and b[3] > b[1]]) for side in sides)
        assert areas.prediction[k] == pytest.approx(p.area, rel=1e-9, abs=1e-9)
        assert areas.evidence[k] == pytest.approx(g.area, rel=1e-9, abs=1e-9)
        assert areas.common[k] == pytest.approx(p.intersection(g).area, rel=1e-9, abs=1e-9)


def from_bytes(numbers: bytes) -> list[list[int]]:
    return [[n % 17 for n in numbers[k : k + 4]] for k in range(0, len(numbers) - 3, 4)]


records = st.lists(
    st.tuples(st.binary(max_size=40).map(from_bytes), st.binary(max_size=40).map(from_bytes)), max_size=6
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(records)
def test_agrees_with_the_plain_implementation(pairs: list) -> None:
    scores = score_boxes([p for p, _ in pairs], [g for _, g in pairs])
    expected = [plain.plain_scores(p, g) for p, g in pairs]
    for k, name in enumerate(METRICS):
        np.testing.assert_allclose(getattr(scores, name), [e[k] for e in expected], rtol=0, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 130])
def test_every_width_of_the_bit_sets(count: int) -> None:
    """Records of exactly as many boxes as an integer type has bits, and more than any has."""
    rng = np.random.default_rng(count)
    corner = rng.random((count, 2)) * 100
    boxes = np.concatenate([corner, corner + rng.random((count, 2)) * 30], axis=1).tolist()
    for split in {0, 1, count // 2, count - 1, count}:
        scores = score_boxes([boxes[:split]], [boxes[split:]])
        expected = plain.plain_scores(boxes[:split], boxes[split:])
        np.testing.assert_allclose([s[0] for s in scores], expected, rtol=0, atol=1e-12)


def test_perfect_and_disjoint_are_exact() -> None:
    rng = np.random.default_rng(7)
    some = [
        [[*(c := rng.random(2) * 1000), *(c + rng.random(2) * 300 + 1)] for _ in range(k % 9 + 1)] for k in range(300)
    ]
    assert all((s == 1).all() for s in score_boxes(some, some))
    assert all((s == 1).all() for s in score_boxes(some, [record[::-1] + record for record in some]))
    away = [[[x1 + 5000, y1, x2 + 5000, y2] for x1, y1, x2, y2 in record] for record in some]
    assert all((s == 0).all() for s in score_boxes(some, away))


def test_conventions() -> None:
    box = [0, 0, 10, 10]
    scores = score_boxes([[], [box], [], [[5, 5, 5, 9]], [[10, 10, 0, 0], box]], [[], [], [box], [[3, 3, 3, 3]], [box]])
    assert scores.iou.tolist() == [1, 0, 0, 1, 1]
    assert scores.precision.tolist() == scores.recall.tolist() == scores.f1.tolist() == [1, 0, 0, 1, 1]


def test_hand_computation() -> None:
    """Three records by hand: partly covered, two overlapping predictions, one of two lesions found."""
    predictions = [[[0, 0, 10, 10]], [[0, 0, 6, 4], [4, 0, 10, 4]], [[0, 0, 4, 4]]]
    references = [[[5, 0, 15, 10]], [[0, 0, 10, 8]], [[2, 0, 6, 4], [20, 20, 24, 24]]]
    scores = score_boxes(predictions, references)
    np.testing.assert_allclose(scores.iou, [50 / 150, 40 / 80, 8 / 40], rtol=1e-15)
    np.testing.assert_allclose(scores.precision, [50 / 100, 40 / 40, 8 / 16], rtol=1e-15)
    np.testing.assert_allclose(scores.recall, [50 / 100, 40 / 80, 8 / 32], rtol=1e-15)
    np.testing.assert_allclose(scores.f1, [0.5, 2 * 0.5 / 1.5, 2 * 0.5 * 0.25 / 0.75], rtol=1e-15)


def test_any_container_and_no_records() -> None:
    lists = [[[0, 0, 4, 4]], []]
    arrays = [np.array([[0, 0, 4, 4.0]]), np.empty((0, 4))]
    tuples = (((0, 0, 4, 4),), ())
    for other in (arrays, tuples, iter(lists), ragged(lists)):
        assert score_boxes(other, lists).iou.tolist() == [1, 1]
    assert all(len(s) == 0 for s in score_boxes([], []))
    kept = ragged([[[0, 0, 1, 1], [3, 3, 1, 1]], [[1, 1, 1, 1]], [[0, 0, 2, 2]]])
    assert isinstance(kept, RaggedBoxes)
    assert kept.counts.tolist() == [1, 0, 1]
    assert kept.boxes.tolist() == [[0, 0, 1, 1], [0, 0, 2, 2]]


@pytest.mark.parametrize(
    ("bad", "where", "what"),
    [
        ([[], [[0, 0, 1]]], "predictions[1]", "four numbers"),
        ([[[0, 0, 1, 1, 1]], []], "predictions[0]", "four numbers"),
        ([[], [[0, 0, 1, float("nan")]]], "predictions[1]", "not finite"),
        ([[], [[0, 0, float("inf"), 1]]], "predictions[1]", "not finite"),
        ([[], [[0, 0, 1, 1e300]]], "predictions[1]", "beyond"),
        ([[], [[0, 0, "x", 1]]], "predictions[1]", "not numbers"),
        ([[], [[0, 0, None, 1]]], "predictions[1]", "not finite|not numbers"),
        ([[], [0, 0, 1, 1]], "predictions[1]", "four numbers"),
        ([[], None], "predictions[1]", "not a list"),
        ([[], "[[0,0,1,1]]"], "predictions[1]", "not a list"),
        ([[], [[[0, 0, 1, 1]] * 4]], "predictions[1]", "finite|numbers"),
    ],
)
def test_faulty_boxes_are_named(bad: list, where: str, what: str) -> None:
    with pytest.raises(ScoringError, match=what) as caught:
        score_boxes(bad, [[], []])
    assert caught.value.where == where


def test_lengths_must_agree() -> None:
    with pytest.raises(ScoringError, match="1 predictions for 2 references"):
        score_boxes([[]], [[], []])
