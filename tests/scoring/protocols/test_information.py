"""Performance information curves: Google's saliency by stored values (``goldens/make_saliency.py``), and games."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.scoring.protocols.information import information, information_curve, interpolated, revealed
from tests.scoring.protocols.kit import SIDE, mean, run, world

OPTIONS = {"shares": (0.01, 0.05, 0.1, 0.3)}


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads((Path(__file__).parent / "goldens" / "saliency.json").read_text())


def test_curves_are_those_of_saliency(golden: Any) -> None:
    """Pictures to the grey level, and areas to rounding, or to what another zlib packs better."""
    same = golden["made_with"]["zlib"] == zlib.ZLIB_RUNTIME_VERSION
    for case in golden["cases"]:
        image, heat = np.array(case["image"], np.uint8), np.array(case["heat"])
        seeds = np.zeros(image.shape, bool)
        seeds[tuple(np.transpose(case["seeds"]))] = True
        pictures = [*revealed(image, heat, seeds, golden["shares"]), image]
        assert [int(p.astype(int).sum()) for p in pictures[1:-1]] == case["sums"]
        sizes = np.array([information(p) for p in pictures], float)
        if same:
            assert sizes[1:-1].tolist() == case["information"]
        bright = np.array([(p > 230).sum() for p in pictures])
        areas = [information_curve(sizes, 0.05 + 0.9 * bright / 64), information_curve(sizes, 1.0 * (bright > 32))]
        # Theirs is drawn through 1,000 points, and where a step begins it is off by one of them.
        assert areas == pytest.approx(case["areas"], abs=2e-3 if same else 2e-2)
    assert np.ptp([case["areas"][0] for case in golden["cases"]]) > 0.4


def test_hand_values() -> None:
    """A half of the confidence at a quarter of the information, all of it at the half: 1/16 + 3/16 + 1/2."""
    x, y = np.array([10, 35, 60, 110]), np.array([0.2, 0.5, 0.8, 0.8])
    assert information_curve(x, y) == pytest.approx(1 / 16 + 3 / 16 + 1 / 2)
    assert information_curve(x, np.array([0.2, 0.5, 0.1, 0.8])) == pytest.approx(1 / 16 + 1 / 8 + 3 / 8)


def test_what_is_linear_is_interpolated_exactly() -> None:
    y, x = np.mgrid[:20, :30]
    plane = (4 * x + 3 * y).astype(np.uint8)
    shown = np.random.default_rng(0).random(plane.shape) < 0.05
    assert (interpolated(plane, shown) == plane).all()
    colours = np.stack([plane, plane.max() - plane, plane], axis=-1)
    assert (interpolated(colours, shown) == colours).all()
    assert information(plane) < information(np.random.default_rng(0).permutation(plane.ravel()).reshape(plane.shape))


def lit(k: int) -> np.ndarray:
    pixels = np.random.default_rng(k).integers(20, 60, (SIDE, SIDE), dtype=np.uint8)
    pixels[14:28, 28:42] = 250
    return pixels


def seen(frame: np.ndarray, question: str) -> float:
    return 0.05 + 0.9 * min(1.0, float((frame > 230).sum()) / 14**2)


def test_a_map_of_the_spot_is_ahead_of_one_beside_it(tmp_path: Path) -> None:
    board = world(tmp_path, seen, n=2, image=lit, boxes=lambda k: [[28.0, 14.0, 42.0, 28.0]])
    heat = np.zeros((8, 8))
    heat[2:4, 4:6] = 1
    right = run(board, board.submit("right", heat=lambda r: heat), "pic", OPTIONS)
    wrong = run(board, board.submit("wrong", heat=lambda r: heat[::-1, ::-1]), "pic", OPTIONS)
    for name, ahead in (("sic", 0.4), ("aic", 0.2)):
        assert mean(right, name) > mean(wrong, name) + ahead
    assert right.values["sic_random"].tolist() == wrong.values["sic_random"].tolist(), "the record's, not the method's"
    assert mean(right, "skill") == pytest.approx(mean(right, "sic") - mean(right, "sic_random"))


@pytest.mark.parametrize(
    ("game", "reason"),
    [
        (lambda frame, question: 0.7, "the answer's confidence is below 0.8"),
        (lambda frame, question: 0.9, "the answer is as sure without the image's detail"),
    ],
)
def test_records_it_says_nothing_of(tmp_path: Path, game: Any, reason: str) -> None:
    board = world(tmp_path, game, n=3, image=lit)
    result = run(board, board.submit("any", heat=lambda r: np.eye(8)), "pic", OPTIONS)
    assert result.skipped == {reason: 3}


def test_a_white_image_has_no_information(tmp_path: Path) -> None:
    board = world(tmp_path, lambda frame, question: 0.9, n=3)
    result = run(board, board.submit("any", heat=lambda r: np.eye(8)), "pic", OPTIONS)
    assert result.skipped == {"the image packs as small as one of its pixels in a hundred": 3}
