"""Zones on a chest of known shape, and on phantoms."""

from __future__ import annotations

import numpy as np
import pytest

from medground_bench.core.anatomy import ZONES, within
from medground_bench.core.schema import Box
from medground_bench.imaging.zones import breast_mask, zone_boxes, zone_masks
from medground_bench.sources.phantom import sample_phantom

CHEST: dict[str, Box] = {
    "right lung": (20, 20, 90, 140),
    "left lung": (110, 20, 180, 140),
    "upper mediastinum": (85, 20, 115, 80),
    "cardiac silhouette": (80, 80, 150, 140),
    "right hilar structures": (70, 70, 90, 100),
    "left hilar structures": (110, 66, 130, 96),
    "left clavicle": (110, 25, 180, 40),
}


def contains(outer: Box, inner: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


def test_all_zones_follow_from_a_whole_chest() -> None:
    given = {**CHEST, **dict.fromkeys(ZONES[10:12], (20, 120, 40, 140)), "right clavicle": (20.0, 25.0, 90.0, 40.0)}
    zones = zone_boxes(given, 200, 200)
    assert tuple(zones) == ZONES
    for name, box in zones.items():
        assert contains((0, 0, 200, 200), box)
        if "lung zone" in name or "apical" in name:
            assert contains(given[within(name)[1]], box)
    assert zones["left hilar structures"] == CHEST["left hilar structures"]


def test_where_they_lie() -> None:
    zones = zone_boxes(CHEST, 200, 200)
    assert zones["right upper lung zone"] == (20, 20, 90, 60)
    assert zones["right mid lung zone"] == (20, 60, 90, 100)
    assert zones["right lower lung zone"] == (20, 100, 90, 140)
    assert zones["left apical zone"] == (110, 20, 180, 40)  # down to the clavicle
    assert zones["right apical zone"] == (20, 20, 90, 40)  # no clavicle: a sixth
    assert zones["trachea"][3] == 68  # the hila's upper edges
    x1, y1, x2, y2 = zones["carina"]
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == (100, 68)
    assert zones["aortic arch"][0] == zones["svc"][2] + 3 == 100  # on the patient's left, the viewer's right
    assert zones["right atrium"][0] == 80
    assert zones["right atrium"][2] == 100
    assert zones["abdomen"] == (20, 140, 180, 200)
    assert zones["spine"][3] == 200


def test_what_needs_an_absent_concept_is_left_out() -> None:
    assert zone_boxes({}, 10, 10) == {}
    assert set(zone_boxes({"left lung": CHEST["left lung"]}, 200, 200)) == {
        "left apical zone",
        "left upper lung zone",
        "left mid lung zone",
        "left lower lung zone",
        "left hemidiaphragm",
    }
    assert "abdomen" not in zone_boxes(CHEST, 200, 140)  # below the image


@pytest.mark.parametrize("seed", [5, 6])
def test_masks_on_phantoms(seed: int) -> None:
    masks = sample_phantom(seed, size=128, findings=[]).masks
    zones = zone_masks(masks)
    assert len(zones) >= 18
    for side in ("left", "right"):
        thirds = [zones[f"{side} {name} lung zone"] for name in ("upper", "mid", "lower")]
        assert (np.logical_or.reduce(thirds) == masks[f"{side} lung"]).all()
        assert np.sum(thirds, axis=0).max() == 1
        centre = np.nonzero(zones[f"{side} hemidiaphragm"])[0].mean()
        assert centre > np.nonzero(masks[f"{side} lung"])[0].mean()
    assert zone_masks({}) == {}


def test_breasts_are_where_phantoms_have_theirs() -> None:
    """What is drawn for a breast is an ellipse whose place the phantom's own anatomy says."""
    found = []
    for seed in (0, 3, 4, 5, 9, 10):
        phantom = sample_phantom(seed, size=160)
        scene = phantom._drawing.scene
        a, grid, drawn = scene.a, scene.grid, np.zeros((160, 160), bool)
        assert a.breast > 0.3
        for side, sign in enumerate((-1.0, 1.0)):
            y = a.angle[side] - 0.08 + 0.03 * a.breast
            drawn |= np.hypot((grid.x - a.shift - sign * 0.215) / 0.17, (grid.y - y) / (0.1 + 0.05 * a.breast)) < 1
        breasts = breast_mask(phantom.masks)
        found.append((drawn & breasts).sum() / (drawn | breasts).sum())
    assert min(found) > 0.7


def test_breasts_of_one_lung_and_of_none() -> None:
    lung = np.zeros((20, 20), bool)
    lung[2:12, 11:19] = True
    one = breast_mask({"left lung": lung})
    assert one is not None
    rows, cols = np.nonzero(one)
    assert (rows.min(), rows.max()) == (9, 12)  # 2 + 0.68 x 10 to 2 + 1.12 x 10, by the pixels' middles
    assert cols.min() >= 10
    assert breast_mask({}) is breast_mask({"left lung": np.zeros((4, 4), bool)}) is None
