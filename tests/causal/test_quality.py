"""Masks of boxes, and the measures of an edit, on edits of known quality."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medground_bench.causal.masks import box_mask
from medground_bench.causal.quality import edit_quality, quality_flags
from medground_bench.core.errors import EditorError


def ramp() -> np.ndarray:
    x, y = np.meshgrid(np.arange(64), np.arange(48))
    return (40 + 2 * x + y).astype(np.uint8)


def measure(before: np.ndarray, after: np.ndarray, mask: np.ndarray):
    quality = edit_quality(Image.fromarray(before), Image.fromarray(after), mask)
    return quality, quality_flags(quality)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:40] = True
    return mask


def test_nothing_done(mask: np.ndarray) -> None:
    quality, flags = measure(ramp(), ramp(), mask)
    assert (quality["change"], quality["leakage"], quality["leaked"]) == (0, 0, 0)
    assert quality["seam"] == pytest.approx(1.0)
    assert flags == ["unchanged"]


def test_a_clean_local_edit(mask: np.ndarray) -> None:
    after = ramp()
    after[14:26, 24:36] += 20
    quality, flags = measure(ramp(), after, mask)
    assert quality["change"] == pytest.approx(20 / 255 * 144 / 400, abs=1e-4)
    assert quality["leakage"] == 0
    assert quality["seam"] == pytest.approx(1.0, abs=0.05)
    assert flags == []


def test_a_visible_seam(mask: np.ndarray) -> None:
    after = ramp()
    after[mask] += 60
    quality, flags = measure(ramp(), after, mask)
    assert quality["seam"] > 5
    assert flags == ["seam"]


def test_an_edit_outside_the_mask(mask: np.ndarray) -> None:
    after = ramp()
    after[mask] //= 2
    after[:, 50:] += 30
    quality, flags = measure(ramp(), after, mask)
    outside = 48 * 64 - 400
    assert quality["leakage"] == pytest.approx(30 / 255 * 48 * 14 / outside, abs=1e-4)
    assert quality["leaked"] == pytest.approx(48 * 14 / outside, abs=1e-4)
    assert "leaking" in flags


def test_a_black_region(mask: np.ndarray) -> None:
    after = ramp()
    after[mask] = 0
    assert "blank" in measure(ramp(), after, mask)[1]
    flat = np.full((48, 64), 90, np.uint8)
    assert "blank" not in measure(flat, flat + 1, mask)[1]  # it was of one grey before


def test_masks_without_border_or_outside() -> None:
    everything = np.ones((48, 64), bool)
    quality, _ = measure(ramp(), ramp() + 9, everything)
    assert quality["leakage"] is None
    assert quality["seam"] is None
    assert quality["change"] == pytest.approx(9 / 255, abs=1e-5)
    quality, flags = measure(ramp(), ramp(), ~everything)
    assert quality["change"] is None
    assert flags == []


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([(1, 2, 3, 4)], {(2, 1), (2, 2), (3, 1), (3, 2)}),
        ([(1.2, 2.9, 2.1, 3.0)], {(2, 1), (2, 2)}),
        ([(-5, -5, 1, 1)], {(0, 0)}),
        ([(5, 4, 99, 99)], {(4, 5)}),
        ([(0, 0, 1, 1), (5, 4, 6, 5), (3, 3, 3, 9)], {(0, 0), (4, 5)}),
    ],
)
def test_boxes_cover_every_pixel_they_touch(boxes, expected) -> None:
    mask = box_mask(boxes, (6, 5))
    assert mask.shape == (5, 6)
    assert {tuple(int(v) for v in p) for p in np.argwhere(mask)} == expected


@pytest.mark.parametrize("boxes", [[], [(7, 7, 9, 9)], [(-4, 0, -1, 3)], [(3, 3, 1, 4)]])
def test_boxes_beside_the_image_are_refused(boxes) -> None:
    with pytest.raises(EditorError, match="no evidence box"):
        box_mask(boxes, (6, 5))
