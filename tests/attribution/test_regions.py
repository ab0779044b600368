"""Regions: partitions without gaps, their order, boxes as masks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.attribution import regions
from medground_bench.attribution.regions import box_masks, region_labels, region_masks, tile_labels
from medground_bench.core.errors import MethodError
from medground_bench.imaging import Letterbox
from medground_bench.lvlm.grid import TokenGrid
from medground_bench.sources.planted.anatomy import Localization


def episode() -> Any:
    frame = np.zeros((224, 224), np.uint8)
    frame[56:168] = np.random.default_rng(0).integers(0, 255, (112, 224))
    return SimpleNamespace(frame_array=frame, letterbox=Letterbox.fit(224, 112), grid=TokenGrid(16, 8, (224, 224)))


@pytest.mark.parametrize(("spec", "count"), [("tiles:3x5", 15), ("tokens", 128), ("tiles:1x1", 1)])
def test_partitions_of_the_frame(spec: str, count: int) -> None:
    labels = region_labels(spec, episode())
    assert labels.shape == (224, 224)
    assert np.unique(labels).tolist() == list(range(count))
    masks = region_masks(spec, episode())
    assert masks.shape == (count, 224, 224)
    assert (masks.sum(0) == 1).all()


def test_tiles_are_in_raster_order_and_nearly_equal() -> None:
    labels = tile_labels(100, 61, 8, 3)
    assert labels[0, 0] == 0
    assert labels[0, 60] == 2
    assert labels[99, 60] == 23
    assert (labels == 0).sum() == 12 * 20  # round(100 / 8) = 12 rows, round(61 / 3) = 20 columns
    counts = np.bincount(labels.ravel())
    assert counts.min() >= 12 * 20
    assert counts.max() <= 13 * 21


def test_superpixels_leave_the_bars_out() -> None:
    pytest.importorskip("skimage")
    labels = region_labels("slic:20", episode())
    assert (labels[:56] == -1).all()
    assert (labels[168:] == -1).all()
    inside = np.unique(labels[56:168])
    assert inside.tolist() == list(range(len(inside)))
    assert 8 <= len(inside) <= 40


def test_box_masks_take_the_pixels_whose_centres_lie_inside() -> None:
    masks = box_masks([(1.0, 2.0, 3.0, 4.0), (0.4, 0.0, 1.6, 9.0), (2.0, 2.0, 2.0, 5.0)], 5, 4)
    assert masks.shape == (3, 5, 4)
    assert np.argwhere(masks[0]).tolist() == [[2, 1], [2, 2], [3, 1], [3, 2]]
    assert masks[1].any(0).tolist() == [True, True, False, False]
    assert not masks[2].any()
    assert box_masks([], 5, 4).shape == (0, 5, 4)


@pytest.mark.parametrize("spec", ["", "tiles", "tiles:0x4", "tiles:4", "tokens:3", "slic:-1", "organs", "tiles:4x"])
def test_an_unknown_partition_is_named(spec: str) -> None:
    with pytest.raises(MethodError, match="unknown regions"):
        region_labels(spec, episode())


class TestVocabularies:
    @pytest.fixture
    def halves(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Lungs on both halves of the image, a small angle inside the left one."""
        masks = {name: np.zeros((112, 224), bool) for name in ("right lung", "left lung", "left costophrenic angle")}
        masks["right lung"][:90, :100] = True
        masks["left lung"][:90, 120:] = True
        masks["left costophrenic angle"][70:90, 200:] = True
        monkeypatch.setattr(regions, "_localizer", lambda name: lambda image: Localization(masks, 1.0))
        return SimpleNamespace(**vars(episode()), image=Image.fromarray(np.zeros((112, 224), np.uint8)))

    def test_a_pixel_belongs_to_the_smallest_concept(self, halves: Any):
        labels, names = regions.named_regions("concepts", halves)
        assert (labels[:56] == -1).all()
        assert (labels[56 + 90 :] == -1).all()
        assert (labels[:, 100:120] == -1).all()
        assert sorted(np.unique(labels[labels >= 0])) == [0, 1, 2]
        found = [names[labels[y, x]] for y, x in ((60, 10), (60, 130), (56 + 80, 210))]
        assert found == ["right lung", "left lung", "left costophrenic angle"]

    def test_zones_cut_the_lungs(self, halves: Any):
        labels = region_labels("zones", halves)
        right = labels[56 : 56 + 90, 50]
        assert len(np.unique(right)) == 5  # apex, thirds, hemidiaphragm
        assert region_masks("zones", halves).sum(0).max() == 1

    def test_an_image_without_anatomy(self, halves: Any, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(regions, "_localizer", lambda name: lambda image: Localization({}, 0.0))
        with pytest.raises(MethodError, match="no anatomy"):
            region_labels("zones", halves)
