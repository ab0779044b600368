"""ROAD: the imputation against its definition, and the order of removal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medground_bench.scoring.protocols.road import impute
from tests.scoring.protocols.kit import SIDE, mean, run, world


def test_a_constant_image_is_imputed_by_itself() -> None:
    removed = np.random.default_rng(0).random((20, 30)) < 0.9
    assert np.allclose(impute(np.full((20, 30), 117.0), removed), 117)


def test_one_pixel_is_the_weighted_mean_of_its_neighbours() -> None:
    image = np.arange(9.0).reshape(3, 3) ** 2
    removed = np.zeros((3, 3), bool)
    removed[1, 1] = True
    direct, diagonal = image[[0, 1, 1, 2], [1, 0, 2, 1]], image[[0, 0, 2, 2], [0, 2, 0, 2]]
    assert impute(image, removed)[1, 1] == pytest.approx(direct.sum() / 6 + diagonal.sum() / 12)
    assert np.array_equal(impute(image, removed)[~removed], image[~removed])


def test_all_at_once_equals_the_dense_system() -> None:
    """Written out pixel by pixel, weights scaled to 1 at the border."""
    rng = np.random.default_rng(1)
    image, removed = rng.uniform(0, 255, (7, 6)), rng.random((7, 6)) < 0.6
    matrix, right = np.eye(42), image.ravel().copy()
    for y, x in np.argwhere(removed):
        weights = {}
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                if (dy or dx) and 0 <= y + dy < 7 and 0 <= x + dx < 6:
                    weights[(y + dy) * 6 + x + dx] = 1 / 12 if dy and dx else 1 / 6
        for place, weight in weights.items():
            matrix[y * 6 + x, place] = -weight / sum(weights.values())
        right[y * 6 + x] = 0
    assert np.allclose(impute(image, removed).ravel(), np.linalg.solve(matrix, right))


def test_nothing_left_is_the_mean() -> None:
    image = np.random.default_rng(2).uniform(0, 255, (5, 5, 3))
    assert np.allclose(impute(image, np.ones((5, 5), bool)), image.mean(axis=(0, 1)))


def spot(frame: np.ndarray, question: str) -> float:
    return 0.9 if (frame > 200).sum() >= 10 else 0.1


def test_the_hottest_go_first(tmp_path: Path) -> None:
    """A bright spot of 64 pixels carries the answer: removed first it is gone from 10 % on, last until the end."""
    pixels = np.full((SIDE, SIDE), 60, np.uint8)
    pixels[16:24, 16:24] = 255
    board = world(tmp_path, spot, image=lambda k: pixels)
    options = {"shares": (0.1, 0.3, 0.5)}
    result = run(board, board.submit("right", heat=lambda r: pixels), "road", options)
    assert (mean(result, "morf"), mean(result, "lerf"), mean(result, "gap")) == (0, 1, 1)
    (table,) = result.tables
    assert [(row["removed"], row["kept_morf"], row["kept_lerf"]) for row in table.rows] == [
        (share, 0, 1) for share in options["shares"]
    ]
    assert all(row["confidence_morf"] == pytest.approx(0.1) for row in table.rows)
    result = run(board, board.submit("wrong", heat=lambda r: -pixels.astype(float)), "road", options)
    assert mean(result, "gap") == -1
    assert mean(result, "confidence_gap") == pytest.approx(-0.8)
