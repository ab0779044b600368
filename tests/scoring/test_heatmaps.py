"""Heat-map scores: planted maps, a fine raster as oracle, chance levels."""

from __future__ import annotations

import numpy as np
import pytest

from medground_bench.core.errors import GeometryError
from medground_bench.imaging import Letterbox
from medground_bench.scoring import score_heatmap


def average_precision(values: np.ndarray, truth: np.ndarray) -> float:
    """By its definition: over the distinct thresholds, precision weighted by the step in recall."""
    area, before = 0.0, 0.0
    for threshold in np.unique(values)[::-1]:
        kept = values >= threshold
        recall = (kept & truth).sum() / truth.sum()
        area += (recall - before) * (kept & truth).sum() / kept.sum()
        before = recall
    return area


def test_a_map_of_the_evidence_is_perfect() -> None:
    frame = Letterbox.fit(448, 448)
    heat = np.zeros((224, 224))
    heat[50:90, 20:70] = 1.0
    scores = score_heatmap(heat, frame, frame.to_native([(20, 50, 70, 90)]))
    assert scores == (1.0, 1.0, 1.0, pytest.approx(40 * 50 / 224**2))


def test_against_a_raster_with_ties() -> None:
    rng = np.random.default_rng(0)
    frame = Letterbox.identity(60, 40)
    for _ in range(20):
        heat = np.round(rng.random((40, 60)), 1)
        x, y = rng.integers(0, 40), rng.integers(0, 25)
        boxes = [(x, y, x + 15, y + 12), (x + 3, y + 2, x + 20, y + 9)]
        truth = np.zeros((40, 60), bool)
        for x1, y1, x2, y2 in boxes:
            truth[y1:y2, x1:x2] = True
        scores = score_heatmap(heat, frame, boxes, tolerance=0)
        assert scores.auprc == pytest.approx(average_precision(heat, truth), abs=1e-12)
        above = heat - heat.min()
        assert scores.energy == pytest.approx(above[truth].sum() / above.sum(), abs=1e-12)
        assert scores.auprc_chance == pytest.approx(truth.mean())
        assert scores.pointing == pytest.approx(truth[heat == heat.max()].mean())


def test_a_coarse_map_scores_like_its_enlargement() -> None:
    rng = np.random.default_rng(1)
    frame = Letterbox.fit(300, 500)
    coarse = rng.random((8, 8))
    boxes = [(37.5, 101.25, 181.0, 333.0), (100.0, 300.0, 300.0, 420.0)]
    a = score_heatmap(coarse, frame, boxes)
    b = score_heatmap(np.kron(coarse, np.ones((28, 28))), frame, boxes)
    assert a[1:] == pytest.approx(b[1:], abs=1e-9)


@pytest.mark.parametrize("value", [0.0, 5.0, np.nan])
def test_a_constant_map_scores_what_chance_does(value: float) -> None:
    frame = Letterbox.fit(400, 200)
    scores = score_heatmap(np.full((16, 16), value), frame, [(100, 50, 200, 150)])
    assert scores.auprc == pytest.approx(scores.auprc_chance) == pytest.approx(1 / 8)
    assert scores.energy == pytest.approx(1 / 8)
    assert 0 < scores.pointing < 0.5


def test_pointing_tolerance_is_relative_to_the_image() -> None:
    for factor in (1, 8):
        frame = Letterbox.fit(224 * factor, 224 * factor)
        heat = np.zeros((224, 224))
        heat[100, 110] = 1.0
        box = [(0, 0, 100 * factor, 224 * factor)]  # the hot pixel's centre is 10.5 frame pixels away
        assert score_heatmap(heat, frame, box, tolerance=10 / 224).pointing == 0
        assert score_heatmap(heat, frame, box, tolerance=11 / 224).pointing == 1


def test_heat_in_the_padding_is_wasted() -> None:
    frame = Letterbox.fit(400, 200)
    heat = np.zeros((224, 224))
    heat[:20] = 1.0  # padding above a wide image
    whole = [(0, 0, 400, 200)]
    scores = score_heatmap(heat, frame, whole)
    assert scores.energy == 0
    assert scores.auprc == scores.auprc_chance == pytest.approx(1.0)


def test_without_evidence_all_is_zero() -> None:
    assert score_heatmap(np.eye(9), Letterbox.fit(9, 9), []) == (0, 0, 0, 0)


def test_huge_and_tiny_values() -> None:
    frame = Letterbox.identity(30, 30)
    heat = np.random.default_rng(2).random((30, 30))
    plain = score_heatmap(heat, frame, [(3, 3, 9, 20)])
    for scale in (1e-300, 1e300):
        assert score_heatmap(heat * scale, frame, [(3, 3, 9, 20)]) == pytest.approx(plain)


def test_refusals() -> None:
    frame = Letterbox.fit(9, 9)
    for bad in (np.zeros(3), np.zeros((0, 3)), np.array([["a"]])):
        with pytest.raises(GeometryError):
            score_heatmap(bad, frame, [])
    with pytest.raises(GeometryError):
        score_heatmap(np.eye(3), frame, [], tolerance=-1)
