"""Classes of predictions: every rule on a prediction made for it, and tiers on methods whose differences are known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medground_bench.scoring import score_boxes
from medground_bench.scoring.concepts import Anatomy
from medground_bench.scoring.outcomes import OUTCOMES, air_around, outcomes, where_else
from medground_bench.scoring.tiers import tiers_of

SIZE = (200, 100)
EVIDENCE = [[20.0, 20.0, 60.0, 60.0]]


def columns(boxes: list[list[float]]) -> dict[str, np.ndarray]:
    found = score_boxes([boxes], [EVIDENCE])
    area = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in boxes)
    return {
        "iou": found.iou,
        "precision": found.precision,
        "recall": found.recall,
        "answered": np.array([float(bool(boxes))]),
        "predicted_fraction": np.array([area / (SIZE[0] * SIZE[1])]),
    }


@pytest.mark.parametrize(
    ("boxes", "name"),
    [
        ([[20, 20, 60, 60]], "found"),
        ([[20, 20, 60, 41]], "found"),
        ([], "no boxes"),
        ([[0, 0, 200, 95]], "whole image"),
        ([[0, 0, 100, 100]], "too broad"),
        ([[30, 30, 40, 40]], "too narrow"),
        ([[50, 50, 90, 90]], "missed"),
    ],
)
def test_what_scores_decide(boxes: list[list[float]], name: str) -> None:
    assert outcomes(columns(boxes)) == [name]
    assert name in OUTCOMES


def test_where_a_miss_lies() -> None:
    image = np.full((100, 200), 120, np.uint8)
    image[:, :16] = 3  # air on the left
    image[40:60, 100:120] = 3  # black, but inside the body
    image[90:, 150:] = 250
    air = air_around(Image.fromarray(image))
    assert air[:, :4].mean() > 0.9
    assert air[:, 8:].max() == 0

    def where(boxes: list[list[float]], evidence: list[list[float]] = EVIDENCE) -> str:
        return where_else(boxes, evidence, SIZE, air=lambda: air, holds=frozenset({"left lung"}), anatomy=anatomy)

    masks = {"left lung": np.zeros((100, 200), bool), "mediastinum": np.zeros((100, 200), bool)}
    masks["left lung"][:, :70] = True
    masks["mediastinum"][:, 70:] = True
    anatomy = Anatomy.of(masks)
    assert where([[0, 0, 12, 90]]) == "outside the body"
    assert where([[110, 40, 190, 60]]) == "wrong side"
    assert where([[75, 70, 95, 90]]) == "wrong organ"
    assert where([[30, 70, 50, 90]]) == "missed"
    # Evidence on both sides of the midline is on neither.
    assert where([[150, 10, 190, 30]], [[60, 20, 140, 60]]) == "wrong organ"
    assert where_else([[75, 70, 95, 90]], EVIDENCE, SIZE) == "missed", "nothing is known of organs"


def test_tiers_follow_the_differences() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 2)
    hard = rng.uniform(0.2, 0.5, 80)
    best, equal = hard + 0.3, hard + 0.3 + rng.normal(0, 0.02, 80)
    low = hard - 0.1
    scores = np.stack([low, best, equal, low + rng.normal(0, 0.02, 80)], axis=1)
    assert tiers_of(scores, patients) == [2, 1, 1, 2]
    assert tiers_of(scores[:10], patients[:10]) == [0, 0, 0, 0], "five patients are too few"
    # Of so many that Holm's factor exceeds the default number of draws, the last is still told apart.
    many = np.concatenate([np.tile(best[:, None], 600), low[:, None]], axis=1)
    assert tiers_of(many, patients)[-1] == 2
