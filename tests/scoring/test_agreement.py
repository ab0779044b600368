"""Annotators among themselves: known answers on boxes written by hand, and the table of the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medground_bench.cli import app
from medground_bench.core.errors import ScoringError
from medground_bench.core.schema import Box, Candidate
from medground_bench.dataset.columns import Record
from medground_bench.scoring.agreement import ALL, agreement, common_finding, human_scores, second_opinions
from medground_bench.sources import open_source


def mark(dataset: str, image: int, attribute: str, *boxes: Box, size: tuple[int, int] = (100, 100)) -> Candidate:
    return Candidate(0, dataset, f"{image}.png", f"p{image // 2}", attribute, boxes, Path("x"), size=size)


FIRST = [mark("a", 0, "Pneumonia", (0, 0, 10, 10), (50, 50, 60, 60)), mark("a", 1, "Mass", (0, 0, 10, 10))]
SECOND = [
    mark("b", 0, "Consolidation", (0, 0, 10, 20)),
    mark("b", 0, "Infiltrate", (0, 0, 5, 10)),
    mark("b", 1, "Mass", (0, 0, 20, 20), size=(200, 200)),
    mark("b", 2, "Mass", (0, 0, 20, 20)),
]


def test_known_answers() -> None:
    rows = agreement([FIRST, SECOND])
    assert [(r.first, r.second, r.finding, r.images, r.patients, r.boxes) for r in rows] == [
        ("a", "b", "lung opacity", 1, 1, 2),
        ("a", "b", "mass", 1, 1, 1),
        ("a", "b", ALL, 2, 1, 3),
        ("b", "a", "lung opacity", 1, 1, 2),
        ("b", "a", "mass", 1, 1, 1),
        ("b", "a", ALL, 2, 1, 3),
    ]
    opacity, mass, together, reverse = rows[:4]
    assert opacity.best_iou.value == pytest.approx((0.5 + 0) / 2)  # one box of two is matched, by either at one half
    assert opacity.recall.value == pytest.approx(100 / 200)  # unions: 100 of 200 px are found,
    assert opacity.precision.value == pytest.approx(100 / 200)  # 100 of the second's 200 are evidence,
    assert opacity.iou.value == pytest.approx(100 / 300)
    assert reverse.best_iou.value == pytest.approx(0.5)
    assert mass.best_iou.value == pytest.approx(1.0)  # the second's image has twice the pixels: the same place
    assert together.best_iou.value == pytest.approx(1.5 / 3)  # per box
    assert together.iou.value == pytest.approx((1 / 3 + 1) / 2)  # per image and finding
    assert np.isnan(opacity.best_iou.low)  # one patient: no interval


def test_intervals_are_by_patient() -> None:
    rng = np.random.default_rng(0)
    first, second = [], []
    for image in range(60):
        x = float(rng.uniform(0, 8))
        first.append(mark("a", image, "Mass", (0, 0, 10, 10)))
        second.append(mark("b", image, "Mass", (x, 0, x + 10, 10)))
    (row, _) = agreement([first, second])
    assert row.patients == 30
    assert 0 < row.best_iou.low < row.best_iou.value < row.best_iou.high < 1


def test_the_same_source_twice_and_one_alone() -> None:
    with pytest.raises(ScoringError, match="different"):
        agreement([FIRST, FIRST])
    with pytest.raises(ScoringError, match="different"):
        agreement([FIRST])
    assert agreement([FIRST, [mark("b", 9, "Mass", (0, 0, 1, 1))]]) == []


def test_names_of_findings() -> None:
    assert common_finding(" Infiltrate") == common_finding("pneumonia") == common_finding("Consolidation")
    assert common_finding("Effusion") == "pleural effusion"
    assert common_finding("Emphysema") == "emphysema"
    assert common_finding("Nodule") != common_finding("Mass")


def test_second_opinions_and_the_human_row() -> None:
    record = Record(
        id="r", dataset="a", image_id="1.png", patient_id="p", width=50, height=50, attribute="Mass", question="?",
        boxes=((0, 0, 10, 5),),
    )  # fmt: skip
    rows = [*FIRST, record, mark("a", 2, "Effusion", (0, 0, 1, 1))]
    opinions = second_opinions(rows, [*FIRST, *SECOND])
    assert opinions[0] == ((0, 0, 10, 20), (0, 0, 5, 10))
    assert opinions[1] == ((0, 0, 10, 10),)
    assert opinions[2] == ((0, 0, 5, 5),)  # in the record's own pixels
    assert opinions[3] is None  # the second marks a mass there, no effusion
    scores, there = human_scores(rows, SECOND)
    assert there.tolist() == [True, True, True, False]
    assert scores.iou[:3] == pytest.approx([1 / 3, 1, 0.5])
    assert scores.recall[2] == pytest.approx(0.5)
    assert np.isnan(scores.iou[3])


def test_the_real_annotators(shared_data: Path) -> None:
    names = ("nih_cxr14", "rsna", "chestx_det")
    rows = agreement([open_source(name, shared_data / "data" / name) for name in names])
    found = {(r.first, r.second, r.finding): (r.boxes, round(r.best_iou.value, 3)) for r in rows}
    assert found["nih_cxr14", "rsna", "lung opacity"] == (12, 0.566)
    assert found["chestx_det", "rsna", "lung opacity"] == (30, 0.459)


def test_the_command(shared_data: Path) -> None:
    data = shared_data / "data"
    options = [f"--source={name}={data / name}" for name in ("nih_cxr14", "rsna", "chestx_det")]
    result = CliRunner().invoke(app, ["agreement", *options])
    assert result.exit_code == 0, result.output
    assert "lung opacity" in result.output
    assert "0.566" in result.output
    result = CliRunner().invoke(app, ["agreement", options[0], options[0]])
    assert result.exit_code == 1
