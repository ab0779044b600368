"""The heart's borders: drawn hearts of known width, every path by brute force, phantoms, the experts' boxes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medfocus import AnatomyLocalizer, ReferencePool
from medfocus.heart import _steepest, measure_heart
from medfocus.result import Found, Transfer
from medground_bench.core.schema import Box
from medground_bench.imaging import Letterbox
from medground_bench.sources import open_source
from medground_bench.sources.phantom import mask_box, sample_phantom


def iou(one: Box, two: Box) -> float:
    shared = max(min(one[2], two[2]) - max(one[0], two[0]), 0) * max(min(one[3], two[3]) - max(one[1], two[1]), 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, two)]
    return shared / (sum(areas) - shared)


def ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    at_y, at_x = np.mgrid[:448, :448] / 2 + 0.25
    return ((at_x - x) / rx) ** 2 + ((at_y - y) / ry) ** 2 < 1


def drawn(half_width: float, seed: int = 0) -> tuple[np.ndarray, Transfer]:
    """A 448-pixel chest with a heart of known half-width in frame pixels; the vote says 24, middle 115."""
    lungs = {"right lung": ellipse(68, 110, 42, 80), "left lung": ellipse(156, 110, 42, 80)}
    image = np.where(lungs["right lung"] | lungs["left lung"], 60.0, 190.0)
    image[:, 210:238] = 200
    image[ellipse(115, 140, half_width, 34)] = 185
    image += np.random.default_rng(seed).normal(0, 6, image.shape)

    def found(mask: np.ndarray) -> Found:
        return Found(mask_box(mask), mask[::2, ::2])

    concepts = {name: found(mask) for name, mask in lungs.items()}
    concepts["cardiac silhouette"] = found(ellipse(115, 140, 24, 34))
    concepts["mediastinum"] = found(ellipse(112, 110, 20, 70))
    return image.clip(0, 255).astype(np.uint8), Transfer(concepts, "drawn")


@pytest.mark.parametrize("half_width", [18, 24, 40, 58])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_drawn_heart_has_its_width(half_width: float, inverted: bool):
    image, voted = drawn(half_width)
    found = measure_heart(255 - image if inverted else image, voted, inverted=inverted)
    x1, y1, x2, y2 = (v / 2 for v in found.boxes["cardiac silhouette"])
    assert (x1, x2) == pytest.approx((115 - half_width, 115 + half_width), abs=1.5)
    grown = 0.4 * max(half_width / 24 - 1, 0) * 68
    assert (y1, y2) == pytest.approx((106 - grown / 2, 174 + grown / 2), abs=1.5)
    mask = found.concepts["cardiac silhouette"].mask
    true = ellipse(115, 140, half_width, 34)[::2, ::2]
    assert (mask & true)[115:165].sum() > 0.9 * (mask | true)[115:165].sum()
    assert mask_box(mask) == pytest.approx((x1, y1, x2, y2), abs=2.5)
    assert not (mask & ~found.concepts["mediastinum"].mask).any()
    one, both = found.boxes["cardiac silhouette"], found.boxes["mediastinum"]
    assert both == (min(one[0], 184), 80, max(one[2], 264), max(one[3], 360))
    assert found.concepts["left lung"] is voted.concepts["left lung"]


def test_16_bit_and_half_an_image_taller():
    """What is deeper than 8 bits is scaled; on an image that is not square the frame's coordinates go back."""
    image, voted = drawn(50)
    deep = measure_heart(image.astype(np.uint16) * 16, voted).boxes["cardiac silhouette"]
    assert deep == pytest.approx(measure_heart(image, voted).boxes["cardiac silhouette"], abs=1)
    tall = np.zeros((672, 448), np.uint8)
    tall[112:560] = image
    frame, down = Letterbox.fit(448, 672), {}
    for name, found in voted.concepts.items():
        native = np.zeros((672, 448), bool)
        native[112:560] = np.kron(found.mask, np.ones((2, 2), bool))
        box = tuple(np.add(found.box, (0, 112, 0, 112)))
        down[name] = Found(box, frame.heatmap_to_frame(native.astype(float)) > 0.5)
    moved = measure_heart(tall, Transfer(down, "tall")).boxes["cardiac silhouette"]
    want = measure_heart(image, voted).boxes["cardiac silhouette"]
    assert np.subtract(moved, (0, 112, 0, 112)) == pytest.approx(want, abs=4)


def test_where_nothing_is_seen_the_vote_stands():
    _, voted = drawn(40)
    assert measure_heart(np.full((448, 448), 90, np.uint8), voted) is voted
    image, _ = drawn(40)
    white = image.copy()
    white[:, 240:] = 190  # no air on the patient's left
    half = measure_heart(white, voted).boxes["cardiac silhouette"]
    assert half[2] == voted.boxes["cardiac silhouette"][2]
    assert half[0] / 2 == pytest.approx(75, abs=1.5)
    without = Transfer({k: v for k, v in voted.concepts.items() if k != "left lung"}, "drawn")
    assert measure_heart(image, without) is without


def test_the_steepest_path_is_the_best_of_all():
    gains = np.random.default_rng(0).normal(size=(2, 5, 6))
    for path, table in zip(_steepest(gains), gains, strict=True):
        every = [p for p in itertools.product(range(6), repeat=5) if max(np.abs(np.diff(p))) <= 1]
        best = max(every, key=lambda p: sum(table[row, column] for row, column in enumerate(p)))
        assert tuple(path) == best


def test_phantoms_enlarged_and_healthy(phantom_pool: ReferencePool):
    localizer = AnatomyLocalizer(phantom_pool, settings={"heart": False})
    for findings in ([], ["cardiomegaly"]):
        before, after = [], []
        for seed in (1, 2):
            phantom = sample_phantom(600 + seed, size=256, findings=findings)
            true = mask_box(phantom.masks["cardiac silhouette"])
            voted = localizer.localise(phantom.image)
            before.append(iou(voted.boxes["cardiac silhouette"], true))
            after.append(iou(measure_heart(np.asarray(phantom.image), voted).boxes["cardiac silhouette"], true))
        assert np.mean(after) > 0.8
        assert np.mean(after) > np.mean(before) + (0.15 if findings else -0.01)


@pytest.mark.heavy
@pytest.mark.parametrize(("source", "least"), [("nih_cxr14", 0.68), ("chestx_det", 0.5)])
def test_the_experts_boxes(shared_data: Path, source: str, least: float):
    """16 hearts each; where the heart begins above, the two groups of annotators do not agree: width is told apart."""
    localizer, whole, across = AnatomyLocalizer("phantom"), [], []
    for candidate in open_source(source, shared_data / "data" / source):
        if candidate.attribute.lower() != "cardiomegaly" or not candidate.boxes:
            continue
        image = Image.open(candidate.image_path).convert("L")
        found, true = localizer.localise(image).boxes["cardiac silhouette"], candidate.boxes[0]
        whole.append(iou(found, true))
        across.append(iou((found[0], 0, found[2], 1), (true[0], 0, true[2], 1)))
    assert len(whole) == 16
    assert np.mean(whole) > least
    assert np.mean(across) > 0.84
