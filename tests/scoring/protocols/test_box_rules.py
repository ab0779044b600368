"""Rules that make boxes of maps, on maps whose boxes are known by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.scoring.protocols.kit import SIDE, World, mean, run, world
from tests.scoring.protocols.test_sanity import grain, seen

EVIDENCE = [14.0, 14.0, 35.0, 35.0]  # 21 x 21 of 56 x 56 pixels


@pytest.fixture
def board(tmp_path: Path) -> World:
    return world(tmp_path, seen, n=12, image=grain, boxes=lambda k: [EVIDENCE])


def steps(*squares: tuple[int, int, float], floor: float = 0.0) -> Any:
    """Squares (from, to, value) along the diagonal, painted one over the other."""
    heat = np.full((SIDE, SIDE), floor)
    for start, end, value in squares:
        heat[start:end, start:end] = value
    return lambda record: heat


def test_levels_of_a_stepped_hill_by_hand(board: World) -> None:
    """Levels .05 to .2 give 28 x 28 around the evidence, .3 to .5 the evidence, .65 a peak of 5 x 5 in it."""
    hill = steps((12, 40, 0.25), (14, 35, 0.6), (20, 25, 1.0))
    result = run(board, board.submit("hill", heat=hill), "box_rules")
    # Each region counts once: 28 x 28, 21 x 21 and 5 x 5, of which that in the middle is most like the others.
    assert mean(result, "iou_agreed") == pytest.approx(1.0)
    assert mean(result, "iou_best") == pytest.approx(1.0)
    assert mean(result, "iou_sized") == pytest.approx(1.0)
    # The hottest tenth of the 784 pixels above the minimum lies among the 441 of the evidence's step: their box.
    assert mean(result, "iou_hottest") == pytest.approx(1.0)


def test_the_hottest_tenth_is_too_little_of_a_smooth_hill(board: World) -> None:
    """A pyramid of square rings as large as the evidence: the tenth is its top, the levels see its foot."""
    rings = [(14 + k, 35 - k, (k + 1) / 11) for k in range(11)]
    result = run(board, board.submit("pyramid", heat=steps(*rings)), "box_rules")
    assert mean(result, "iou_hottest") == pytest.approx(7**2 / 21**2)  # 49 of 441 are the least tenth that ties allow
    assert mean(result, "iou_best") == pytest.approx(1.0)
    assert mean(result, "iou_agreed") > 2 * mean(result, "iou_hottest")
    assert mean(result, "gain") == pytest.approx(mean(result, "iou_agreed") - mean(result, "iou_hottest"))


def test_neither_scale_nor_offset_matters(board: World) -> None:
    plain, moved = (
        run(board, board.submit(name, heat=steps((10, 40, low + 0.4 * by), (14, 35, low + by), floor=low)), "box_rules")
        for name, low, by in (("plain", 0.0, 1.0), ("moved", 3.0, 50.0))
    )
    for name, value in plain.values.items():
        assert moved.values[name] == pytest.approx(value), name


def test_a_map_elsewhere_and_chance(board: World) -> None:
    result = run(board, board.submit("elsewhere", heat=steps((42, 56, 1.0))), "box_rules")
    size, frame = 21**2, SIDE**2
    # Of the 441 hottest 196 lie in the corner; the others, all equal, are the first ones, in the upper five rows.
    for name in ("iou_agreed", "iou_hottest", "iou_best", "iou_sized"):
        assert mean(result, name) == 0.0
    assert mean(result, "at_random") == pytest.approx((size**2 / frame) / (2 * size - size**2 / frame))


def test_only_the_positive_part_of_signed_maps_counts(board: World) -> None:
    def against(record: Any) -> np.ndarray:
        return -np.asarray(steps((14, 35, 1.0))(record))

    result = run(board, board.submit("against", heat=against, signed=True), "box_rules")
    assert result.skipped == {"a map without a positive part": 12}
