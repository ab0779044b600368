"""Regions of a map at several levels, and the one that they agree on."""

from __future__ import annotations

import numpy as np

from medground_bench.imaging.levels import agreed, level_regions


def test_parts_above_levels_by_hand() -> None:
    heat = np.zeros((10, 12))
    heat[1:3, 1:4], heat[2, 3] = 4.0, 8.0  # one part, heat 28, maximum 8
    heat[6:8, 8:10] = 3.0  # another, heat 12
    heat[9, 0] = 5.0  # a third, heat 5
    first, second, third = (1.0, 1.0, 4.0, 3.0), (8.0, 6.0, 10.0, 8.0), (0.0, 9.0, 1.0, 10.0)
    assert level_regions(heat, [0.3], 0.4) == [(first, second)]
    assert level_regions(heat, [0.3], 1.0) == [(first,)]
    assert level_regions(heat, [0.3], 0.1) == [(first, second, third)]
    assert level_regions(heat, [0.3, 0.45, 0.5, 0.9], 0.5) == [(first,), ((3.0, 2.0, 4.0, 3.0),)]
    assert level_regions(np.ones((4, 5)), [0.5], 0.3) == [((0.0, 0.0, 5.0, 4.0),)]


def test_agreement_by_hand() -> None:
    """Three columns of a row, two regions within them, one elsewhere: IoU 1/3, 2/3, 1/2 and 0."""
    masks = np.zeros((4, 1, 8), bool)
    masks[0, 0, :3], masks[1, 0, :1], masks[2, 0, :2], masks[3, 0, 5:] = True, True, True, True
    even = np.zeros(4)  # the means are (1 + 1/3 + 2/3) / 4, (1/3 + 1 + 1/2) / 4, (2/3 + 1/2 + 1) / 4, 1 / 4
    assert agreed(masks, even, 1.0) == agreed(masks) == 2
    assert agreed(masks, np.array([0, 0, 0, 0.1]), 0.0) == 3
    assert agreed(masks, np.array([0, 0, 0, 0.1]), 0.2) == 2
    assert agreed(masks, np.array([0, 0, 0, 1.0]), 0.2) == 3
    assert agreed(masks, np.array([np.log(3), 0, 0, -9.0]), 1.0) == 0  # 3 + 1/3 + 2/3 against 2 + 1/2 + 1
