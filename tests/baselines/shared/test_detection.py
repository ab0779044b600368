"""The detector on a small random OWL-ViT of the real class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.shared.detection import Detector, load_detector  # noqa: E402
from medground_bench.core.errors import MethodError  # noqa: E402

PHRASES = ["left lung", "enlarged heart with a wide silhouette and much more text than the encoder takes", "hilum"]


def save_owlvit(folder: Path) -> Path:
    from tokenizers import pre_tokenizers
    from transformers import (
        CLIPTokenizer,
        OwlViTConfig,
        OwlViTForObjectDetection,
        OwlViTImageProcessor,
        OwlViTProcessor,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], pad_token="!")
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = OwlViTConfig(
        text_config={**small, "vocab_size": len(names), "max_position_embeddings": 16, "eos_token_id": len(names) - 1},
        vision_config={**small, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = OwlViTForObjectDetection(config)
        for weight in (*model.class_head.parameters(), *model.box_head.parameters()):
            torch.nn.init.normal_(weight, std=0.02)  # scores near 1/2, boxes near their patches
    model.save_pretrained(folder)
    OwlViTProcessor(OwlViTImageProcessor(size={"height": 64, "width": 64}), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_owlvit(tmp_path_factory.mktemp("owlvit"))


@pytest.fixture(scope="module")
def image() -> Any:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 150), dtype=np.uint8))


def test_the_detector_is_loaded_once(folder: Path) -> None:
    assert load_detector(str(folder)) is load_detector(str(folder))


def test_boxes_scores_and_phrases_of_the_model(folder: Path, image: Any) -> None:
    """Against the model's own outputs, read by hand: boxes are (centre, size) fractions of the image."""
    detector = load_detector(str(folder))
    found = detector.find(image, PHRASES, threshold=0.0, top=100)
    encoded = detector.processor(
        text=[PHRASES],
        images=image.convert("RGB"),
        return_tensors="pt",
        padding="max_length",
        truncation=True,
        max_length=16,
    )
    with torch.no_grad():
        out = detector.model(**encoded)
    scores, labels = out.logits[0].sigmoid().max(dim=-1)
    order = scores.argsort(descending=True)
    assert len(found) == len(scores)
    for mine, i in zip(found, order.tolist(), strict=True):
        assert mine.score == pytest.approx(float(scores[i]), abs=1e-6)
        assert mine.phrase == PHRASES[int(labels[i])]
        cx, cy, w, h = out.pred_boxes[0, i].tolist()
        expected = (
            max((cx - w / 2) * 150, 0),
            max((cy - h / 2) * 90, 0),
            min((cx + w / 2) * 150, 150),
            min((cy + h / 2) * 90, 90),
        )
        assert mine.box == pytest.approx(expected, abs=1e-3)


def test_threshold_and_top(folder: Path, image: Any) -> None:
    detector = load_detector(str(folder))
    everything = detector.find(image, PHRASES, threshold=0.0, top=100)
    assert detector.find(image, PHRASES, threshold=0.0, top=5) == everything[:5]
    bar = everything[3].score
    assert [d.score for d in detector.find(image, PHRASES, threshold=bar - 1e-7, top=100)] == [
        d.score for d in everything[:4]
    ]
    assert detector.find(image, PHRASES, threshold=1.0) == []
    assert detector.find(image, [], threshold=0.0) == []


def test_a_missing_detector_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="parameter 'detector'") as caught:
        load_detector(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_a_detector_of_objects_at_hand(folder: Path, image: Any) -> None:
    loaded = load_detector(str(folder))
    assert Detector(loaded.model, loaded.processor).find(image, ["hilum"], threshold=0.0, top=1)
