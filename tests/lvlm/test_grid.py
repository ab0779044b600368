"""The token grid: cells, maps and their inverses."""

from __future__ import annotations

import numpy as np
import pytest

from medground_bench.core.errors import GeometryError
from medground_bench.lvlm import TokenGrid


def test_cells_tile_the_frame_row_by_row() -> None:
    grid = TokenGrid(8, 8, (224, 224))
    assert len(grid) == 64
    assert grid.cell_box(0) == (0, 0, 28, 28)
    assert grid.cell_box(7) == (196, 0, 224, 28)
    assert grid.cell_box(8) == (0, 28, 28, 56)
    assert grid.cell_box(63) == (196, 196, 224, 224)


@pytest.mark.parametrize(("rows", "cols", "size"), [(8, 8, (224, 224)), (18, 23, (640, 512)), (16, 16, (50, 31))])
def test_every_pixel_lies_in_the_cell_of_its_token(rows: int, cols: int, size: tuple[int, int]) -> None:
    grid = TokenGrid(rows, cols, size)
    owner = grid.to_frame(np.arange(len(grid)))
    assert owner.shape == (size[1], size[0])
    for y in range(0, size[1], 7):
        for x in range(0, size[0], 5):
            index = grid.token_at(x + 0.5, y + 0.5)
            x1, y1, x2, y2 = grid.cell_box(index)
            assert x1 <= x + 0.5 < x2
            assert y1 <= y + 0.5 < y2
            assert owner[y, x] == index


def test_from_frame_averages_by_area() -> None:
    grid = TokenGrid(1, 2, (3, 1))  # cells of one and a half pixels
    np.testing.assert_allclose(grid.from_frame(np.array([[1.0, 2.0, 3.0]])), [4 / 3, 8 / 3])


def test_maps_go_there_and_back() -> None:
    grid = TokenGrid(4, 6, (60, 80))
    values = np.random.default_rng(0).normal(size=24).astype(np.float32)
    np.testing.assert_allclose(grid.from_frame(grid.to_frame(values)), values, rtol=1e-6)
    np.testing.assert_array_equal(grid.as_map(values), values.reshape(4, 6))


def test_refusals() -> None:
    grid = TokenGrid(2, 2, (10, 10))
    with pytest.raises(GeometryError, match="no image token 4"):
        grid.cell_box(4)
    with pytest.raises(GeometryError, match="no image token -1"):
        grid.cell_box(-1)
    with pytest.raises(GeometryError, match="outside"):
        grid.token_at(10, 0)
    with pytest.raises(GeometryError, match="do not fit"):
        grid.to_frame(np.zeros(5))
    with pytest.raises(GeometryError, match="does not fit"):
        grid.from_frame(np.zeros((9, 10)))
    with pytest.raises(GeometryError, match="no cells"):
        TokenGrid(0, 2, (10, 10))
