"""Ceilings: the true evidence in coarse spaces, by hand and by brute force; the human row; both in every table."""

from __future__ import annotations

import dataclasses
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.core.errors import ScoringError
from medground_bench.core.schema import Candidate
from medground_bench.dataset.columns import Record
from medground_bench.dataset.folder import open_folder
from medground_bench.imaging import Letterbox, heatmap_to_boxes
from medground_bench.imaging.areas import ragged
from medground_bench.imaging.overlap import score_boxes
from medground_bench.pages.leaderboard.public import public_scores
from medground_bench.scoring import ceiling_scores, compare_scores, read_scores, score_submissions, write_scores
from medground_bench.scoring.ceiling import best_concept
from medground_bench.scoring.rows import submission_rows
from medground_bench.sources.phantom import read, write_source
from medground_bench.sources.phantom.source import phantom_for
from medground_bench.submission import write_submission
from tests.scoring.folders import make_rows, write_folder

SQUARE = np.array([[448.0, 448.0]])  # two native pixels a frame pixel; cells of 8 x 8 are 56 of them


def iou(
    boxes: list[list[float]], grid: tuple[int, int] | None, size: np.ndarray = SQUARE, side: int | None = 224
) -> float:
    return float(ceiling_scores(ragged([boxes]), size, grid, side=side).iou[0])


@pytest.mark.parametrize("boxes", [[[56, 112, 112, 224]], [[0, 0, 56, 56], [224, 280, 392, 336]], [[0, 0, 448, 448]]])
def test_evidence_on_the_grid_is_told_exactly(boxes: list[list[float]]) -> None:
    scores = ceiling_scores(ragged([boxes]), SQUARE, (8, 8))
    assert [float(column[0]) for column in scores] == pytest.approx([1.0] * 4)


def test_a_box_smaller_than_a_cell_scores_its_share_of_the_cell() -> None:
    assert iou([[60, 60, 88, 74]], (8, 8)) == pytest.approx(28 * 14 / 56**2)
    # A quarter of it in each of four cells: one is 16 ** 2 / (56 ** 2 + 3 * 16 ** 2), all are 32 ** 2 / 112 ** 2.
    assert iou([[96, 96, 128, 128]], (8, 8)) == pytest.approx(32**2 / 112**2)
    # Half a cell over the edge: with it 1.5 of 2 cells, without it 1 of 1.5.
    assert iou([[56, 56, 140, 112]], (8, 8)) == pytest.approx(0.75)


def test_touching_cells_become_one_box_as_in_the_protocol() -> None:
    # Two cells that touch at a corner are one component, whose box is four cells; one of them alone is 1 of 2.
    assert iou([[56, 56, 112, 112], [112, 112, 168, 168]], (8, 8)) == pytest.approx(0.5)


def test_bars_are_no_part_of_a_cell() -> None:
    # 448 x 224 in a frame of 224 x 224: bars of 56 pixels above and below, one row of a 2 x 2 grid is half image.
    wide = np.array([[448.0, 224.0]])
    assert iou([[0, 0, 224, 112]], (2, 2), wide) == pytest.approx(1.0)


def test_pixels_round_to_the_frame_and_the_protocol_drops_what_is_tiny() -> None:
    assert iou([[2, 2, 22, 42]], None) == pytest.approx(1.0)
    assert iou([[2, 2, 23, 42]], None) == pytest.approx(21 / 22)
    assert iou([[0, 0, 7, 7]], None) == pytest.approx(49 / 64)  # 3.5 x 3.5 frame pixels are told as 4 x 4
    assert iou([[0, 0, 6, 6]], None) == 0.0  # 3 x 3 are fewer than 16
    assert iou([[2, 2, 23, 42]], None, side=None) == pytest.approx(1.0)


def test_nothing_beats_the_ceiling_of_one_box() -> None:
    """All rectangles of cells, by brute force."""
    rng = np.random.default_rng(3)
    for _ in range(25):
        width, height = (int(v) for v in rng.integers(100, 500, 2))
        x, y = rng.uniform(0, 0.7, 2) * (width, height)
        box = [x, y, x + rng.uniform(0.05, 0.3) * width, y + rng.uniform(0.05, 0.3) * height]
        frame = Letterbox.fit(width, height, 224)
        edges = np.linspace(0, 224, 6)
        best = 0.0
        for (a, b), (c, d) in product(product(range(6), repeat=2), repeat=2):
            if a < b and c < d:
                told = frame.to_native([(edges[a], edges[c], edges[b], edges[d])])
                best = max(best, float(score_boxes([told], [[box]]).iou[0]))
        assert iou([box], (5, 5), np.array([[width, height]], float)) == pytest.approx(best, abs=1e-9)


def test_several_boxes_are_as_good_as_any_threshold_of_the_protocol() -> None:
    """The oracle rasterises: shares of cells from a fine raster, the protocol on the full frame."""
    rng = np.random.default_rng(5)
    for _ in range(10):
        corners = rng.integers(0, 20, (3, 2)) * 8
        boxes = np.concatenate([corners, corners + rng.integers(1, 8, (3, 2)) * 8], axis=1).clip(0, 224)
        fine = np.zeros((224, 224))
        for x1, y1, x2, y2 in boxes.tolist():
            fine[y1:y2, x1:x2] = 1
        share = fine.reshape(8, 28, 8, 28).mean(axis=(1, 3))
        best = 0.0
        for level in np.unique(share[share > 0]):
            told = heatmap_to_boxes(np.kron(share >= level - 1e-9, np.ones((28, 28))))
            best = max(best, float(score_boxes([told], [boxes.tolist()]).iou[0]))
        assert iou(boxes.tolist(), (8, 8), np.array([[224.0, 224.0]])) == pytest.approx(best, abs=1e-9)


def test_native_pixels_of_large_images_cost_no_raster() -> None:
    boxes = [[10.0, 20.0, 1500.5, 1700.0], [2000.0, 2500.0, 2900.0, 2999.0]]
    # Only the half pixel is lost.
    assert iou(boxes, None, np.array([[3000.0, 3000.0]]), side=None) == pytest.approx(1, abs=1e-3)
    assert iou(boxes, None, np.array([[3000.0, 3000.0]]), side=None) < 1


def test_records_do_not_touch_each_other() -> None:
    rows = make_rows(8)
    sizes = np.array([(r["width"], r["height"]) for r in rows], float)
    together = ceiling_scores(ragged([r["boxes"] for r in rows]), sizes, (16, 16))
    alone = [iou(r["boxes"], (16, 16), sizes[k : k + 1]) for k, r in enumerate(rows)]
    assert together.iou.tolist() == pytest.approx(alone)
    assert np.isfinite(np.stack(together)).all()
    assert (together.iou > 0).all()
    finer = ceiling_scores(ragged([r["boxes"] for r in rows]), sizes, None)
    assert (finer.iou > together.iou).all()


def record_of(candidate: Candidate, size: tuple[int, int]) -> Record:
    return Record(
        id=candidate.id,
        dataset=candidate.dataset,
        image_id=candidate.image_id,
        patient_id=candidate.patient_id,
        width=size[0],
        height=size[1],
        attribute=candidate.attribute,
        question="?",
        boxes=candidate.boxes,
    )


def test_a_second_annotator_in_the_folder_is_the_human_row(tmp_path: Path) -> None:
    """Two sources mark one image; the second's boxes are half over the first's, so that their IoU is a third."""
    rows = make_rows(12, lvlms=("tiny_a",), size=(448, 448))
    for k, row in enumerate(rows):
        row["dataset"] = "nih_cxr14"
        row["boxes"] = [[0.0, 0.0, 100.0, 100.0]]
        row["attribute"] = "Effusion"
        row["id"] = f"first/{k}"
        row["patient_id"] = f"p{k}"
    other = {**rows[0], "id": "second/0", "dataset": "chestx_det", "boxes": [[50.0, 0.0, 150.0, 100.0]]}
    data = open_folder(write_folder(tmp_path / "data", [*rows, other]))
    header = {"method": "oracle", "lvlm": "tiny_a", "mode": "direct", "dataset_fingerprint": data.fingerprint}
    said = [{"id": r["id"], "boxes": r["boxes"]} for r in [*rows, other]]
    scores = score_submissions([write_submission(tmp_path / "oracle", header, said)], data, resamples=200)
    (human,) = (r for r in submission_rows([scores]) if r.kind == "human")
    assert (human.title, human.records, human.clusters) == ("human: second annotator", 2, 2)
    assert human.aggregate.values["iou"].value == pytest.approx(1 / 3)
    assert np.isnan(human.aggregate.values["iou"].low)  # two patients


def test_the_best_concept_of_a_phantom(tmp_path: Path) -> None:
    write_source("phantom", tmp_path, 2, seed=4, size=224)
    source = read(tmp_path)
    records = [record_of(c, (224, 224)) for c in source]
    found = best_concept(records, ragged([c.boxes for c in source]), [source])
    assert found is not None
    for k, candidate in enumerate(source):
        each = []
        for mask in phantom_for(candidate).masks.values():
            y, x = np.nonzero(mask)
            each.append(float(score_boxes([[[x.min(), y.min(), x.max() + 1, y.max() + 1]]], [candidate.boxes]).iou[0]))
        assert found.iou[k] == pytest.approx(max(each))
    assert best_concept(records, ragged([c.boxes for c in source]), []) is None


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A method that says the true evidence in tokens of two LVLMs, one of which states no grid."""
    root = tmp_path_factory.mktemp("ceiling")
    rows = make_rows(20, size=(448, 448))
    data = open_folder(write_folder(root / "data", rows))
    folders = []
    for lvlm, grid in (("tiny_a", [16, 16]), ("tiny_b", None)):
        mine = [r for r in rows if r["model"] == lvlm]
        header = {"method": "oracle", "lvlm": lvlm, "mode": "direct", "dataset_fingerprint": data.fingerprint}
        header["settings"] = {"frame_side": 224, "token_grid": grid, "regions": "tokens" if grid else "tiles:8x8"}  # type: ignore[assignment]
        boxes = [{"id": r["id"], "boxes": r["boxes"]} for r in mine]
        folders.append(write_submission(root / lvlm, header, boxes))
    return score_submissions(folders, data, resamples=200)


def test_ceilings_are_rows_of_their_submission(scored: Any) -> None:
    first, second = scored.submissions
    assert first.own_ceiling == "token_grid"
    assert second.own_ceiling == "tiles"
    assert set(first.bounds) == {"token_grid", "tiles", "pixels"}
    assert set(second.bounds) == {"tiles", "pixels"}
    rows = list(submission_rows([scored]))
    assert [(r.name, r.lvlm) for r in rows if r.kind == "ceiling"] == [
        ("token_grid", "tiny_a"),
        ("tiles", "tiny_a"),
        ("pixels", "tiny_a"),
        ("tiles", "tiny_b"),
        ("pixels", "tiny_b"),
    ]
    column = scored.bounds[first.bounds["token_grid"]].iou[first.positions]
    ceiling = first.find(bound="token_grid").values["iou"]
    assert ceiling.value == pytest.approx(column.mean())
    assert ceiling.low < ceiling.value < ceiling.high
    method = rows[0]
    best = first.find(chance=method.aggregate.best_chance).values["iou"].value
    assert method.span == pytest.approx((best, ceiling.value))
    assert method.reach == pytest.approx((1 - best) / (ceiling.value - best))
    tokens, tiles, pixels = (first.find(bound=row).values["iou"].value for row in first.bounds)
    assert tiles < tokens < pixels <= 1


def test_score_files_keep_them_and_refuse_the_older_format(scored: Any, tmp_path: Path) -> None:
    path = write_scores(scored, tmp_path / "scores.json")
    again = read_scores(path)
    for key, scores in scored.bounds.items():
        np.testing.assert_array_equal(np.stack(again.bounds[key]), np.stack(scores))
    for one, other in zip(again.submissions, scored.submissions, strict=True):
        assert (one.bounds, one.own_ceiling) == (other.bounds, other.own_ceiling)
        for row, aggregates in other.bound_aggregates.items():
            assert [a.to_json() for a in one.bound_aggregates[row]] == [a.to_json() for a in aggregates]
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "format": 2}))
    with pytest.raises(ScoringError, match="no ceilings") as error:
        read_scores(path)
    assert "score the submissions again" in str(error.value.remedy)
    data["submissions"][0]["bounds"]["tiles"] = "elsewhere"
    path.write_text(json.dumps(data))
    with pytest.raises(ScoringError, match="damaged"):
        read_scores(path)


def test_a_board_keeps_no_ceiling_of_a_single_record(scored: Any, tmp_path: Path) -> None:
    public = public_scores(scored)
    assert not public.bounds
    again = read_scores(write_scores(public, tmp_path / "scores.json"))
    rows = [r for r in submission_rows([again]) if r.kind == "ceiling"]
    assert {r.name for r in rows} == {"token_grid", "tiles", "pixels"}
    values = [v for r in rows for v in r.aggregate.values["iou"]]
    assert values == [round(v, 2) for v in values]


def test_comparison_pools_ceilings_over_the_records_that_have_one(scored: Any) -> None:
    rows = compare_scores([scored], resamples=200).rows
    found = {r.name: r for r in rows if r.kind == "ceiling" and r.aggregate.level == "all"}
    assert {name: r.records for name, r in found.items()} == {"token_grid": 20, "tiles": 40, "pixels": 40}
    method = next(r for r in rows if r.kind == "method" and r.aggregate.level == "all")
    assert method.span is None  # its LVLMs' ceilings are not of one kind
    one = dataclasses.replace(scored, submissions=scored.submissions[:1])
    method = next(r for r in compare_scores([one], resamples=200).rows if r.kind == "method")
    assert method.span is not None
    assert method.span[1] == pytest.approx(found["token_grid"].aggregate.values["iou"].value)
