"""Aggregated attributions: bins, registration by hand, and a method that is right on half of its records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.dataset.folder import open_folder
from medground_bench.imaging import Letterbox
from medground_bench.pages.report.aggregated import aggregated, aggregated_rows, write_aggregated
from medground_bench.scoring import ScoreFile, score_submissions
from medground_bench.scoring.aggatt import SIDE, AggregatedMaps, bin_edges, registered
from medground_bench.submission import write_submission
from tests.scoring.folders import header, make_rows, write_folder

THIRD = slice(SIDE // 3, 2 * SIDE // 3)


def test_bins_of_a_hundred() -> None:
    assert np.diff(bin_edges(100)).tolist() == [2, 3, 45, 45, 3, 2]
    for n in (0, 1, 7, 61, 1000):
        assert bin_edges(n)[0] == 0
        assert bin_edges(n)[-1] == n
        assert min(np.diff(bin_edges(n))) >= 0


class TestRegistered:
    @pytest.mark.parametrize("size", [(90, 90), (300, 90)])
    def test_the_evidence_is_the_middle_third(self, size: tuple[int, int]) -> None:
        frame, box = Letterbox.fit(*size, 224), (30.0, 30.0, 60.0, 60.0)
        heat = np.zeros((224, 224))
        ((x1, y1, x2, y2),) = np.rint(frame.to_frame([box])).astype(int).tolist()
        heat[y1:y2, x1:x2] = 3.0
        picture = registered(heat, [], frame, [box, (0, 0, 5, 5)])
        expected = np.zeros((SIDE, SIDE))
        expected[THIRD, THIRD] = 1
        assert np.mean(picture == expected) > 0.95  # the frame's pixels are of another size
        assert picture[SIDE // 2, SIDE // 2] == 1

    def test_nothing_is_outside_of_the_image(self) -> None:
        picture = registered(None, [(0, 0, 30, 15)], Letterbox.identity(90, 90), [(0.0, 0.0, 30.0, 30.0)])
        assert np.isnan(picture[: SIDE // 3]).all()
        assert np.isnan(picture[:, : SIDE // 3]).all()
        assert (picture[SIDE // 3 : SIDE // 2, THIRD] == 1).all()
        assert (picture[SIDE // 2 :, SIDE // 3 :] == 0).all()

    def test_only_what_is_positive_counts_of_a_signed_map(self) -> None:
        box, heat = Letterbox.identity(90, 90), np.full((3, 3), -7.0)
        heat[1, 1], heat[0, 0] = 2.0, 1.0
        picture = registered(heat, [], box, [(30.0, 30.0, 60.0, 60.0)], signed=True)
        assert (picture[THIRD, THIRD] == 1).all()
        assert (picture[: SIDE // 3, : SIDE // 3] == 0.5).all()
        assert (picture[2 * SIDE // 3 :] == 0).all()

    def test_without_evidence_there_is_no_picture(self) -> None:
        assert np.isnan(registered(np.eye(4), [], Letterbox.identity(90, 90), [])).all()

    def test_a_constant_map_has_no_heat(self) -> None:
        assert not registered(np.ones((4, 4)), [], Letterbox.identity(90, 90), [(30, 30, 60, 60)]).any()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Path], ScoreFile]:
    """A hundred records and two without a map; the first half of the maps is the evidence, the others all but it."""
    root = tmp_path_factory.mktemp("aggatt")
    rows = make_rows(102, lvlms=("tiny_a",), size=(90, 90))
    for row in rows:
        row["boxes"] = [[30.0, 30.0, 60.0, 60.0]]
    folder = open_folder(write_folder(root / "data", rows))
    (root / "half" / "heatmaps").mkdir(parents=True)
    inside = np.zeros((9, 9), np.float32)
    inside[3:6, 3:6] = 1
    said: list[dict[str, Any]] = []
    for k, row in enumerate(rows):
        said.append({"id": row["id"], "boxes": row["boxes"] if k < 51 else [[0, 0, 9, 9]]})
        if k < 100:
            np.save(root / "half" / "heatmaps" / f"{k}.npy", inside if k % 2 else 1 - inside)
            said[-1]["heatmap"] = f"heatmaps/{k}.npy"
    head = {"settings": {"frame_side": None}}
    paths = [
        write_submission(root / "half", header(rows, method="half", **head), said),
        write_submission(
            root / "boxes",
            header(rows, method="boxes", **head),
            [{key: value for key, value in row.items() if key != "heatmap"} for row in said],
        ),
    ]
    return folder, paths, score_submissions(paths, folder, resamples=100)


def found(world: tuple[Any, list[Path], ScoreFile]) -> dict[str, AggregatedMaps]:
    folder, paths, scores = world
    return {one.method: one for one in aggregated({scores.config: folder}, [scores], paths)}


def test_best_to_worst(world: tuple[Any, list[Path], ScoreFile]) -> None:
    half, boxes = (found(world)[name] for name in ("half", "boxes"))
    assert (half.of, half.measure, half.missing) == ("map", "auprc", 2)
    assert [b.records for b in half.bins] == [2, 3, 45, 45, 3, 2]
    assert [(b.inside, b.outside) for b in half.bins] == [(1, 0)] * 3 + [(0, 1)] * 3
    assert half.bins[0].score == pytest.approx(1)
    assert (boxes.of, boxes.measure, boxes.missing) == ("boxes", "iou", 0)
    assert [b.inside for b in boxes.bins] == [1, 1, 1, 0, 0, 0]


def test_a_large_bin_is_a_sample(world: tuple[Any, list[Path], ScoreFile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medground_bench.scoring.aggatt.MOST", 4)
    bins = found(world)["half"].bins
    assert [b.drawn for b in bins] == [2, 3, 4, 4, 3, 2]
    assert [b.records for b in bins] == [2, 3, 45, 45, 3, 2]
    assert [b.inside for b in bins] == [1, 1, 1, 0, 0, 0]


@pytest.mark.parametrize("ending", ["csv", "json", "md", "png", "svg"])
def test_export(world: tuple[Any, list[Path], ScoreFile], tmp_path: Path, ending: str) -> None:
    maps = list(found(world).values())
    path = write_aggregated(tmp_path / f"a.{ending}", maps)
    if ending == "csv":
        assert path.read_text().splitlines()[1].startswith("half,method,map,0.0,0.02,2,2,auprc,1.0,1.0,0.0,2")
    elif ending == "png":
        from PIL import Image

        with Image.open(path) as picture:
            assert picture.width > 6 * 150
    else:
        assert "half" in path.read_text()
    cells = aggregated_rows(maps)[0]["cells"]
    assert all(cell["image"].startswith("data:image/png;base64,") for cell in cells)
