"""Fills: what is left of the image, the letterbox's bars, half-transparent masks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medground_bench.attribution.fills import FILLS, compose, fill_frame
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
