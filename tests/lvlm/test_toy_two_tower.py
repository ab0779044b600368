"""The tiny CLIP that ``xbench`` is shown with: its loss, its images, and that training gives the same twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from builder_scripts.toy_two_tower import Recipe, _logits, _loss, build, images, main, names
from medground_bench.lvlm import load_lvlm
from medground_bench.lvlm.two_tower import PROMPTS, TwoTower
from medground_bench.sources.phantom import FINDINGS, sample_phantom
from medground_bench.sources.phantom.layouts.nih_cxr14 import LABELS

SMALL = Recipe(chests=6, steps=2, batch=8)


@pytest.fixture(scope="module")
def tower() -> TwoTower:
    return TwoTower(*build(0))


def test_the_loss_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((8, 3)), (rng.random((8, 3)) < 0.5).astype(float)
    each = [np.log1p(np.exp(-z)) if y else np.log1p(np.exp(z)) for z, y in zip(logits.flat, labels.flat, strict=True)]
    pairs = [
        np.log1p(np.exp(logits[j, f] - logits[i, f]))
        for f in range(3)
        for i in range(8)
        for j in range(8)
        if i // 4 == j // 4 and labels[i, f] and not labels[j, f]
    ]
    found = float(_loss(torch.tensor(logits), torch.tensor(labels)))
    assert found == pytest.approx(np.mean(each) + np.mean(pairs))


def test_logits_are_those_that_the_model_is_asked_by(tower: TwoTower) -> None:
    image = Image.fromarray(sample_phantom(3, size=224).image)
    sentences = [prompt.format(name) for name in names() for prompt in PROMPTS]
    prompts = tower.processor.tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        whole, local = _logits(tower, prompts, tower.pixels([image.convert("RGB")])[:, 0])
    assert whole.shape == local.shape == (1, len(FINDINGS) + len(LABELS))
    for k, name in enumerate(names()):
        episode = tower.prepare(image, name)
        score = float(tower.log_probs(episode, [episode.frame])[0, 0])
        assert float(torch.nn.functional.logsigmoid(whole[0, k])) == pytest.approx(score, abs=1e-4)


def test_images_of_a_chest_differ_in_their_findings_alone(tower: TwoTower) -> None:
    pixels, has = images(tower, SMALL)
    assert pixels.shape == (24, 112, 112)
    assert has.shape == (24, len(FINDINGS))
    chest = sample_phantom(
        900_000_000, size=224, findings=[f for f, there in zip(FINDINGS, has[1], strict=True) if there]
    )
    shown = tower.pixels([Image.fromarray(chest.image).convert("RGB")])[0, 0]
    np.testing.assert_array_equal(pixels[1], shown.half())


def test_the_command_trains_the_same_twice(tmp_path: Path) -> None:
    options = ["--chests", "6", "--steps", "2", "--batch", "8"]
    weights = []
    for name in ("a", "b"):
        assert main(["--out", str(tmp_path / name), *options]) == 0
        model = load_lvlm(tmp_path / name, device="cpu")
        assert isinstance(model, TwoTower)
        weights.append(torch.cat([p.detach().flatten() for p in model.model.parameters()]))
    assert torch.equal(*weights)
    start = torch.cat([p.detach().flatten() for p in build(0)[0].parameters()])
    assert not torch.equal(weights[0], start)
