"""Fills: what is left of the image, the letterbox's bars, half-transparent masks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medground_bench.attribution.fills import AROUND, FILLS, around, compose, fill_frame, remove
from medground_bench.core.errors import MethodError
from medground_bench.imaging import Letterbox


def episode(colour: bool = False) -> Any:
    """A wide image between black bars, with a bright half."""
    letterbox = Letterbox.fit(224, 112)
    frame = np.zeros((224, 224), np.uint8)
    frame[56:168, :112], frame[56:168, 112:] = 40, 200
    return SimpleNamespace(frame_array=np.repeat(frame[..., None], 3, -1) if colour else frame, letterbox=letterbox)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("name", sorted(FILLS))
def test_the_bars_stay_and_nothing_is_changed_in_place(name: str, colour: bool) -> None:
    given = episode(colour)
    before = given.frame_array.copy()
    filled = fill_frame(name, given)
    assert (filled.shape, filled.dtype) == (before.shape, np.uint8)
    np.testing.assert_array_equal(given.frame_array, before)
    assert not filled[:56].any()
    assert not filled[168:].any()


def test_levels_by_hand() -> None:
    assert not fill_frame("black", episode()).any()
    assert (fill_frame("mean", episode())[56:168] == 120).all()
    blur = fill_frame("blur", episode())[56:168].astype(int)
    assert (np.ptp(blur, axis=0) == 0).all()  # bars do not bleed in: every row is alike
    assert (np.diff(blur[0]) >= 0).all()
    assert abs(blur[0, 111] + blur[0, 112] - 240) <= 1  # half-way at the edge
    # One standard deviation (20.16 pixels) from an edge of 160 levels: 160 * 0.1587 below the bright half.
    assert blur[0, 112 + 20] == pytest.approx(200 - 160 * 0.1587, abs=2)


@pytest.mark.parametrize("colour", [False, True])
def test_compose_is_the_weighted_mean(colour: bool) -> None:
    given = episode(colour)
    frame, fill = given.frame_array, fill_frame("mean", given)
    masks = np.zeros((2, 224, 224), bool)
    masks[1, :, :50] = True
    hard = compose(frame, masks, fill)
    np.testing.assert_array_equal(hard[0], frame)
    np.testing.assert_array_equal(hard[1][:, :50], fill[:, :50])
    np.testing.assert_array_equal(hard[1][:, 50:], frame[:, 50:])
    soft = compose(frame, np.full((1, 224, 224), 0.25), fill)
    assert np.unique(soft[0][60, 10]).tolist() == [60]  # 0.75 * 40 + 0.25 * 120
    np.testing.assert_array_equal(compose(frame, masks.astype(float), fill), hard)


def test_an_unknown_fill_is_named() -> None:
    with pytest.raises(MethodError, match="unknown fill 'pink'"):
        fill_frame("pink", episode())


def test_around_by_hand() -> None:
    """A pixel of a 2 x 2 block has the mean of the other three; of a block that is gone, its neighbours', smoothed."""
    removed = np.zeros((2, 2), bool)
    removed[1, 1] = True
    assert around(np.array([[10, 20], [60, 255]], np.uint8), removed).tolist() == [[10, 20], [60, 30]]
    removed = np.zeros((2, 6), bool)
    removed[:, 2:4] = True
    image = np.array([[0, 0, 9, 9, 240, 240]] * 2, np.uint8)
    # Cells of 2 x 2 say 0, nothing, 240; of 4 x 4 0 and 240, which smoothed by 1/4, 1/2, 1/4 is 60 in the middle cell;
    # the row (0, 0, 60, 60, 240, 240) smoothed again is 45 and 105 there.
    assert around(image, removed)[0].tolist() == [0, 0, 45, 105, 240, 240]


@pytest.mark.parametrize("colour", [False, True])
def test_around_leaves_nothing_of_what_was_there(colour: bool) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(90, 160, (37, 53, 3) if colour else (37, 53), np.uint8)
    removed = np.zeros((37, 53), bool)
    removed[5:20, 8:40] = removed[30:, 45:] = True
    once = around(image, removed)
    image_again = image.copy()
    image_again[removed] = 0
    np.testing.assert_array_equal(once, around(image_again, removed))
    np.testing.assert_array_equal(once[~removed], image[~removed])
    assert (once.shape, once.dtype) == (image.shape, np.uint8)
    assert image[~removed].min() <= once[removed].min() <= once[removed].max() <= image[~removed].max()
    whole = around(image, np.ones_like(removed))
    assert (whole == np.rint(image.mean((0, 1)))).all()


def test_around_goes_on_where_the_image_does() -> None:
    """In a ramp, the middle of what is removed differs from the ramp by less than its edges differ from each other."""
    ramp = np.tile(np.linspace(20, 220, 64).astype(np.uint8), (64, 1))
    removed = np.zeros((64, 64), bool)
    removed[24:40, 24:40] = True
    found = around(ramp, removed).astype(int)
    assert np.abs(found - ramp)[removed].mean() < 0.25 * np.ptp(ramp[24:40, 24:40])
    assert (np.diff(found[32]) >= 0).all()


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("name", [*sorted(FILLS), AROUND])
def test_parts_removed(name: str, colour: bool) -> None:
    given = episode(colour)
    masks = np.zeros((2, 224, 224), bool)
    masks[0, 40:90, 100:150] = masks[1] = True
    variants = remove(name, given, masks)
    assert variants.shape == (2, *given.frame_array.shape)
    np.testing.assert_array_equal(variants[0][~masks[0]], given.frame_array[~masks[0]])
    assert not variants[:, :56].any()
    assert not variants[:, 168:].any()
    if name == AROUND:
        assert (variants[1, 56:168] == 120).all()
    else:
        np.testing.assert_array_equal(variants[1], fill_frame(name, given))
    with pytest.raises(MethodError, match="unknown fill"):
        remove("nothing", given, masks)
