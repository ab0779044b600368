"""Heat map to boxes: known answers, a flood fill as oracle, degenerate maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medground_bench.core.errors import GeometryError
from medground_bench.imaging import heatmap_to_boxes, is_degenerate, resize_heatmap
from tests.plain import plain


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_golden(shared_data: Path, dtype: type) -> None:
    cases = json.loads((shared_data / "golden" / "heatmap_to_bboxes_quantile.json").read_text())["cases"]
    assert len(cases) == 5
    for case in cases:
        options = dict(case["params"])
        options["quantile"] = options.pop("q")
        options["ignore_zeros"] = options.pop("remove_zeros")
        boxes = heatmap_to_boxes(np.array(case["heatmap"], dtype), **options)
        assert boxes == [answer["bbox_half_open"] for answer in case["expected"]]


def maps() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    out = []
    for k in range(60):
        height, width = rng.integers(1, 70, 2)
        heat = rng.normal(size=(height, width))
        if k % 3 == 0:  # ties: few distinct values
            heat = np.round(heat, 0)
        if k % 4 == 0:  # much of it zero
            heat = np.maximum(heat, 0)
        if k % 5 == 0:  # blobs
            heat = np.asarray(plain.smooth_map(int(height), int(width), rng), np.float64)
        out.append(heat)
    return out


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 1.0])
def test_agrees_with_a_flood_fill(quantile: float, connectivity: int) -> None:
    for k, heat in enumerate(maps()):
        options = {
            "quantile": quantile,
            "min_area": 1 + k % 5,
            "max_boxes": 1 + k % 12,
            "connectivity": connectivity,
            "ignore_zeros": k % 2 == 0,
        }
        found = heatmap_to_boxes(heat, **options)
        expected = plain.plain_heatmap_to_boxes(heat, **options)
        # Equally hot components may come in another order: compare as sets where means tie.
        assert found == expected or sorted(found) == sorted(expected) or np.unique(heat).size < 12


def test_one_planted_region_is_found_half_open() -> None:
    heat = np.zeros((224, 224))
    heat[50:60, 100:130] = 1.0
    heat[200:203, 3:8] = 2.0  # 15 pixels: too small
    assert heatmap_to_boxes(heat, quantile=0.0) == [[100.0, 50.0, 130.0, 60.0]]


def test_ranked_by_mean_heat_and_limited() -> None:
    heat = np.zeros((100, 100))
    for k in range(12):
        heat[8 * k : 8 * k + 5, 10:20] = 1 + k
    boxes = heatmap_to_boxes(heat, quantile=0.0)
    assert len(boxes) == 10
    assert [box[1] for box in boxes] == [8.0 * k for k in range(11, 1, -1)]


def test_corners_join_only_with_eight_neighbours() -> None:
    heat = np.zeros((20, 20))
    heat[2:6, 2:6] = heat[6:10, 6:10] = 1.0
    assert heatmap_to_boxes(heat, quantile=0.0) == [[2, 2, 10, 10]]
    assert heatmap_to_boxes(heat, quantile=0.0, connectivity=4) == [[2, 2, 6, 6], [6, 6, 10, 10]]


@pytest.mark.parametrize("turned", [False, True])
def test_a_winding_path_is_one_region_until_it_is_cut(turned: bool) -> None:
    path = np.zeros((61, 61))
    path[:, ::4] = 1.0
    for column in (1, 2, 3):
        path[0, column::8] = path[-1, column + 4 :: 8] = 1.0
    heat = path.T if turned else path
    assert heatmap_to_boxes(heat, quantile=0.0) == [[0, 0, 61, 61]]
    path[-1, 30] = 0.0
    parts = [[0, 0, 61, 30], [0, 31, 61, 61]] if turned else [[0, 0, 30, 61], [31, 0, 61, 61]]
    assert heatmap_to_boxes(heat, quantile=0.0) == parts


def test_zeros_are_left_out_of_the_quantile() -> None:
    heat = np.zeros((100, 100))
    heat[:10, :10] = np.arange(1, 101).reshape(10, 10)
    # Of 1..100 the 0.9 quantile is 90.1: the last row, 91..100, is too small; with 9 pixels allowed it is found.
    assert heatmap_to_boxes(heat) == []
    assert heatmap_to_boxes(heat, min_area=9) == [[0, 9, 10, 10]]
    # With the zeros the quantile is 0 and everything is kept.
    assert heatmap_to_boxes(heat, ignore_zeros=False) == [[0, 0, 100, 100]]


@pytest.mark.parametrize("scale", [1e-300, 1e-20, 1.0, 1e20, 1e300])
@pytest.mark.parametrize("offset", [0.0, -0.5])
def test_scale_and_offset_do_not_matter(scale: float, offset: float) -> None:
    heat = np.asarray(plain.smooth_map(60, 80, np.random.default_rng(1)), np.float64)
    assert heatmap_to_boxes((heat + offset) * scale) == heatmap_to_boxes(heat)


DEGENERATE = {
    "zero": np.zeros((30, 40)),
    "constant": np.full((30, 40), 3.7),
    "nan": np.where(np.eye(30, 40) > 0, np.nan, 1.0),
    "inf": np.where(np.eye(30, 40) > 0, np.inf, 1.0),
    "minus inf": np.where(np.eye(30, 40) > 0, -np.inf, 1.0),
    "all nan": np.full((30, 40), np.nan),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_maps_give_the_whole_image(name: str) -> None:
    assert is_degenerate(DEGENERATE[name])
    assert heatmap_to_boxes(DEGENERATE[name]) == [[0.0, 0.0, 40.0, 30.0]]


def test_one_different_pixel_is_not_degenerate() -> None:
    heat = np.zeros((30, 40))
    heat[3, 3] = 1e-12
    assert not is_degenerate(heat)
    assert heatmap_to_boxes(heat) == []


def test_the_threshold_is_exact_on_native_maps() -> None:
    """A map of seven million float32 values: the position of the quantile must not be rounded to float32."""
    height, width = 2544, 3056
    heat = np.arange(height * width, dtype=np.float32).reshape(height, width)  # exact up to 2 ** 24
    kept = int(np.floor((height * width - 2) * 0.9)) + 1  # index, among the positive values, of the first one kept
    ((x1, y1, x2, y2),) = heatmap_to_boxes(heat)
    assert (y1, y2, x2) == ((kept + 1) // width, height, width)
    assert x1 == 0
    small = heat.copy()
    small[small < kept] = 0
    small[: (kept + 1) // width] = 0
    assert heatmap_to_boxes(small, quantile=0.0)[0][1] == y1


@pytest.mark.parametrize(
    ("heatmap", "options"),
    [
        (np.zeros(5), {}),
        (np.zeros((2, 2, 2)), {}),
        (np.zeros((0, 4)), {}),
        (np.array([["a", "b"]]), {}),
        (np.zeros((2, 2), complex), {}),
        (np.eye(4), {"quantile": 1.5}),
        (np.eye(4), {"quantile": float("nan")}),
        (np.eye(4), {"connectivity": 6}),
        (np.eye(4), {"min_area": 0}),
        (np.eye(4), {"max_boxes": 0}),
    ],
)
def test_what_is_not_a_map_is_refused(heatmap: np.ndarray, options: dict) -> None:
    with pytest.raises(GeometryError):
        heatmap_to_boxes(heatmap, **options)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32, np.float16, np.float32])
def test_any_real_type(dtype: type) -> None:
    heat = np.zeros((20, 20), dtype)
    heat[4:9, 4:9] = 1
    assert heatmap_to_boxes(heat) == [[4, 4, 9, 9]]


def test_resizing_keeps_places_and_scale() -> None:
    heat = np.zeros((8, 8))
    heat[2, 5] = 1.0
    large = resize_heatmap(heat, (224, 112))
    assert large.shape == (224, 112)
    row, col = np.unravel_index(np.argmax(large), large.shape)
    assert abs(row - (2.5 * 28 - 0.5)) <= 1
    assert abs(col - (5.5 * 14 - 0.5)) <= 1
    tiny = resize_heatmap(heat * 1e-60, (224, 112))
    assert not is_degenerate(tiny)
    np.testing.assert_allclose(tiny, large.astype(np.float64) * 1e-60, rtol=1e-6)
    assert is_degenerate(resize_heatmap(np.full((8, 8), np.nan), (224, 224)))
    with pytest.raises(GeometryError):
        resize_heatmap(heat, (0, 5))
