"""The letterbox: exact inverse for every size, content where the formula says, images and maps through it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medground_bench.core.errors import GeometryError
from medground_bench.imaging import Letterbox


def check_round_trip(width: int, height: int, side: int) -> None:
    frame = Letterbox.fit(width, height, side)
    boxes = [
        (0.0, 0.0, float(width), float(height)),
        (width * 0.25, height * 0.125, width * 0.75, height * 0.875),
        (width * 0.99, 0.0, float(width), height * 0.01),
    ]
    inside = frame.to_frame(boxes)
    assert np.abs(np.array(frame.to_native(inside, clip=False)) - boxes).max() <= 1e-6
    back = frame.to_native(inside)
    assert len(back) == len(boxes)
    assert np.abs(np.array(back) - boxes).max() <= 1e-6
    x1, y1, x2, y2 = frame.content
    assert max(x2 - x1, y2 - y1) == side
    assert 0 <= x1 < x2 <= side
    assert 0 <= y1 < y2 <= side
    assert abs(x1 - (side - x2)) <= 1
    assert abs(y1 - (side - y2)) <= 1
    assert np.abs(np.array(inside[0]) - frame.content).max() <= 1e-9


def test_round_trip_of_sampled_sizes() -> None:
    rng = np.random.default_rng(0)
    edge = [1, 2, 3, 223, 224, 225, 447, 448, 449, 2999, 3000, 3999, 4000]
    sizes = {(w, h) for w in edge for h in edge if h <= 3000}
    sizes |= {(int(w), int(h)) for w, h in zip(rng.integers(1, 4001, 6000), rng.integers(1, 3001, 6000), strict=True)}
    for width, height in sizes:
        check_round_trip(width, height, 224)
    for side in (1, 2, 14, 336, 896):
        for width, height in sorted(sizes)[:: len(sizes) // 100]:
            check_round_trip(width, height, side)


@pytest.mark.heavy
def test_round_trip_of_a_million_sizes() -> None:
    """Every width to 4000 with a twelfth of the heights to 3000, another twelfth for each width."""
    worst = 0.0
    for width in range(1, 4001):
        for height in range(1 + width % 12, 3001, 12):
            frame = Letterbox.fit(width, height)
            box = (width * 0.3, 0.0, float(width), height * 0.7)
            ((a, b, c, d),) = frame.to_native(frame.to_frame([box]))
            worst = max(worst, abs(a - box[0]), abs(b - box[1]), abs(c - box[2]), abs(d - box[3]))
    assert worst <= 1e-6


def test_known_letterbox() -> None:
    frame = Letterbox.fit(3056, 2544)
    assert frame.content == (0, 19, 224, 205)  # 2544 * 224 / 3056 = 186.47 -> 186 rows, (224 - 186) // 2 = 19
    assert frame.to_frame([(0, 0, 3056, 2544)]) == [(0, 19, 224, 205)]
    assert frame.to_native([(0, 0, 224, 19)]) == []  # wholly padding
    assert frame.to_native([(0, 0, 224, 224)]) == [(0, 0, 3056, 2544)]


def test_identity() -> None:
    frame = Letterbox.identity(30, 20)
    assert frame.to_frame([(1, 2, 3, 4)]) == [(1, 2, 3, 4)]
    assert frame.to_native([(1, 2, 3, 4)]) == [(1, 2, 3, 4)]


@pytest.mark.parametrize("size", [(0, 5, 224), (5, 0, 224), (5, 5, 0), (-1, 5, 224)])
def test_sizes_without_pixels_are_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(GeometryError):
        Letterbox.fit(*size)


def test_the_image_lies_where_the_content_says() -> None:
    image = Image.new("L", (400, 100), 255)
    frame = Letterbox.fit(400, 100)
    pixels = np.asarray(frame.apply(image))
    assert pixels.shape == (224, 224)
    x1, y1, x2, y2 = frame.content
    assert (pixels[y1:y2, x1:x2] == 255).all()
    assert pixels.sum() == 255 * (x2 - x1) * (y2 - y1)
    with pytest.raises(GeometryError):
        frame.apply(Image.new("L", (100, 400)))


def test_a_maps_peak_comes_back_to_its_native_place() -> None:
    frame = Letterbox.fit(500, 1000)
    heat = np.zeros((224, 224), np.float32)
    ((x1, y1, x2, y2),) = frame.to_frame([(100, 600, 150, 650)])
    heat[round(y1) : round(y2), round(x1) : round(x2)] = 1
    native = frame.heatmap_to_native(heat)
    assert native.shape == (1000, 500)
    y, x = np.nonzero(native > 0.5)
    assert abs(x.mean() - 125) < 3
    assert abs(y.mean() - 625) < 3
