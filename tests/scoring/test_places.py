"""Where maps and boxes lie: against the phantoms' own masks, pixel by pixel, and sentences by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.core.errors import ScoringError
from medground_bench.dataset.folder import DatasetFolder, open_folder
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.write import build_folder
from medground_bench.imaging import Letterbox
from medground_bench.imaging.zones import zone_masks
from medground_bench.pages.leaderboard.public import public_scores
from medground_bench.scoring import ScoreFile, read_scores, score_submissions, write_scores
from medground_bench.scoring.places import (
    ELSEWHERE,
    PLACES,
    PlaceRow,
    box_shares,
    flat_place_rows,
    heat_shares,
    place_labels,
    place_rows,
    tell,
    tell_shares,
)
from medground_bench.sources import open_source
from medground_bench.sources.phantom import write_source
from medground_bench.sources.phantom.source import phantom_for
from medground_bench.submission import write_submission
from tests.scoring.folders import header

Masks = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_source("phantom", write_source("phantom", tmp_path_factory.mktemp("p"), 4, size=(224, 196)).root)


@pytest.fixture(scope="module")
def masks(source: Any) -> Masks:
    return dict(phantom_for(source[0]).masks)


def at(place: str) -> int:
    return PLACES.index(place)


def shares(**given: float) -> np.ndarray:
    """Shares by short keys; what is left is elsewhere."""
    out = np.zeros(len(PLACES))
    for key, value in given.items():
        out[at(key.replace("_", " "))] = value
    out[-1] = 1 - out.sum()
    return out


class TestLabels:
    def test_places_are_the_masks_of_the_phantom(self, masks: Masks) -> None:
        """Written out once more, from the mask of each place and those that come before it."""
        labels = place_labels(masks)
        assert labels.shape == masks["left lung"].shape
        taken = np.zeros(labels.shape, bool)
        known = {**zone_masks(masks), **masks}
        for k, place in enumerate(PLACES[:-1]):
            assert np.array_equal(labels == k, known[place] & ~taken), place
            taken |= known[place]
        assert np.array_equal(labels == at(ELSEWHERE), ~taken)
        assert not ((masks["left lung"] | masks["mediastinum"]) & ~taken).any(), "every part of a lung is a place"

    def test_large_masks_are_looked_at_more_coarsely(self, masks: Masks) -> None:
        large = {name: np.kron(mask, np.ones((4, 4), bool)) for name, mask in masks.items()}
        small, coarse = place_labels(masks), place_labels(large)
        assert max(coarse.shape) == 256
        count = [np.bincount(labels.ravel(), minlength=len(PLACES)) / labels.size for labels in (small, coarse)]
        assert count[0] == pytest.approx(count[1], abs=0.01)

    def test_no_concept_is_known(self) -> None:
        assert place_labels({}).tolist() == [[at(ELSEWHERE)]]


class TestShares:
    @pytest.mark.parametrize("side", [224, 112, None])
    def test_a_map_of_any_resolution_equals_a_sum_over_pixels(self, masks: Masks, side: int | None) -> None:
        labels, (height, width) = place_labels(masks), masks["left lung"].shape
        frame = Letterbox.fit(width, height, side) if side else Letterbox.identity(width, height)
        heat = np.random.default_rng(0).random((7, 8) if side is None else (8, 8))
        found = heat_shares(labels, heat, frame)
        # A hundred points in every pixel, each asked for the cell of the map that it lies in.
        y, x = ((np.arange(10 * n) + 0.5) / 10 for n in (height, width))
        corners = [(b, a, b, a) for a, b in zip(y, np.resize(x, len(y)), strict=True)]
        rows = np.array(frame.to_frame(corners))[:, 1] * heat.shape[0] / frame.frame_height
        cols = np.array(frame.to_frame([(b, 0, b, 0) for b in x]))[:, 0] * heat.shape[1] / frame.frame_width
        fine = heat[np.ix_(rows.astype(int).clip(0, len(heat) - 1), cols.astype(int).clip(0, 7))]
        pixels = fine.reshape(height, 10, width, 10).mean(axis=(1, 3)) - heat.min()
        expected = [pixels[labels == k].sum() / pixels.sum() for k in range(len(PLACES))]
        assert found == pytest.approx(expected, abs=2e-3)
        assert found.sum() == pytest.approx(1)

    @pytest.mark.parametrize("place", ["left lower lung zone", "cardiac silhouette", "right costophrenic angle"])
    def test_the_mask_of_a_place_lies_there(self, masks: Masks, place: str) -> None:
        labels = place_labels(masks)
        heat = (labels == at(place)).astype(float)
        found = heat_shares(labels, heat, Letterbox.identity(*heat.shape[::-1]))
        assert found[at(place)] == pytest.approx(1, abs=1e-12)

    def test_a_lung_is_shared_by_what_lies_before_it(self, masks: Masks) -> None:
        labels, lung = place_labels(masks), masks["left lung"]
        found = heat_shares(labels, lung, Letterbox.identity(*lung.shape[::-1]))
        heart = (masks["cardiac silhouette"] & lung & (labels == at("cardiac silhouette"))).sum() / lung.sum()
        assert found[at("cardiac silhouette")] == pytest.approx(heart)
        assert found[[k for k, name in enumerate(PLACES) if name.startswith("right")]].sum() == 0

    def test_only_what_is_positive_counts_of_a_signed_map(self, masks: Masks) -> None:
        labels = place_labels(masks)
        heat = np.where(labels == at("right upper lung zone"), 1.0, -5.0)
        frame = Letterbox.identity(*heat.shape[::-1])
        assert heat_shares(labels, heat, frame, signed=True)[at("right upper lung zone")] == pytest.approx(1)

    @pytest.mark.parametrize("heat", [np.ones((8, 8)), np.full((8, 8), np.nan), np.full((8, 8), -1.0)])
    def test_maps_that_say_nothing(self, masks: Masks, heat: np.ndarray) -> None:
        assert np.isnan(heat_shares(place_labels(masks), heat, Letterbox.fit(196, 224), signed=heat[0, 0] < 0)).all()

    def test_boxes(self, masks: Masks) -> None:
        labels = place_labels(masks)
        height, width = labels.shape
        boxes = [(10.0, 20.0, 60.0, 90.0), (40.0, 50.0, 100.0, 120.0)]
        union = np.zeros(labels.shape, bool)
        for x1, y1, x2, y2 in boxes:
            union[int(y1) : int(y2), int(x1) : int(x2)] = True
        expected = np.bincount(labels[union], minlength=len(PLACES)) / union.sum()
        assert box_shares(labels, boxes, (width, height)) == pytest.approx(expected)
        assert np.isnan(box_shares(labels, [], (width, height))).all()


class TestSentences:
    def test_by_hand(self) -> None:
        told = tell_shares(shares(left_lower_lung_zone=0.61, cardiac_silhouette=0.12))
        assert told == (
            "61 % of the map lies in the left lower lung zone, 27 % elsewhere and 12 % on the heart; "
            "left lung 61 %, nothing in the right lung."
        )
        told = tell_shares(shares(right_clavicle=0.9, right_hilar_structures=0.096), "boxes")
        assert told == (
            "90 % of the boxes' area lies on the right clavicle and 10 % on the right hilum; "
            "right lung 10 %, nothing in the left lung."
        )
        assert tell_shares(shares(mediastinum=1.0), "evidence") == (
            "100 % of the evidence lies in the rest of the mediastinum; nothing in either lung."
        )

    def test_what_is_small_is_left_out_but_the_first(self) -> None:
        even = np.full(len(PLACES), 1 / len(PLACES))
        assert tell_shares(even).startswith(
            "6 % of the map lies on the left clavicle, 6 % on the right clavicle and 6 %"
        )
        tiny = np.full(len(PLACES), 0.04)
        tiny[0] = 0.4
        assert tell_shares(tiny).startswith("40 % of the map lies on the left clavicle; ")

    def test_nothing_to_say(self) -> None:
        nan = np.full(len(PLACES), np.nan)
        assert tell_shares(nan, "boxes") == "No boxes."
        assert "names no place" in tell_shares(nan)
        assert "is not known" in tell_shares(None)

    def test_of_a_phantoms_own_mask(self, masks: Masks) -> None:
        labels = place_labels(masks)
        height, width = labels.shape
        heat = (labels == at("left lower lung zone")) * 3.0 + (labels == at("cardiac silhouette")) * 1.0
        areas = [int((labels == at(name)).sum()) for name in ("left lower lung zone", "cardiac silhouette")]
        first = 3 * areas[0] / (3 * areas[0] + areas[1])
        told = tell(labels, (width, height), [], heat, Letterbox.identity(width, height))
        most, least = sorted((first, 1 - first), reverse=True)
        assert told.startswith(f"{100 * most:.0f} % of the map lies ")
        assert f"and {100 * least:.0f} % " in told
        assert told.endswith(f"; left lung {100 * first:.0f} %, nothing in the right lung.")
        assert tell(None, (width, height), []).startswith("Where it lies is not known")
        assert tell(labels, (width, height), []) == "No boxes."


@pytest.fixture(scope="module")
def scored(source: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetFolder, list[Path], ScoreFile]:
    """A method whose maps are the left lower zone, one whose boxes are the evidence, one that names nothing."""
    root = tmp_path_factory.mktemp("places")
    settings = BuildSettings("candidates", {"phantom": str(source.root)})
    folder = open_folder(build_folder(settings, root / "data")[0], "candidates")
    head = {**header([{**folder[0].to_row(), "mode": "direct"}]), "dataset_fingerprint": folder.fingerprint}
    head["settings"] = {"frame_side": None}
    (root / "zone" / "heatmaps").mkdir(parents=True)
    rows = []
    for k, candidate in enumerate(source):
        labels = place_labels(phantom_for(candidate).masks)
        np.save(root / "zone" / "heatmaps" / f"{k}.npy", (labels == at("left lower lung zone")).astype(np.float32))
        rows.append({"id": candidate.id, "boxes": [[0, 0, 9, 9]], "heatmap": f"heatmaps/{k}.npy"})
    paths = [
        write_submission(root / "zone", {**head, "method": "zone"}, rows),
        write_submission(
            root / "truth",
            {**head, "method": "truth"},
            [{"id": r.id, "boxes": [list(b) for b in r.boxes]} for r in folder],
        ),
        write_submission(root / "silent", {**head, "method": "silent"}, [{"id": r.id, "boxes": []} for r in folder]),
    ]
    return folder, paths, score_submissions(paths, folder, sources=[source], resamples=100)


def row_of(rows: list[PlaceRow], name: str, finding: str = "") -> PlaceRow:
    return next(row for row in rows if (row.name, row.finding) == (name, finding))


class TestTable:
    def test_by_finding(self, scored: tuple[DatasetFolder, list[Path], ScoreFile], source: Any) -> None:
        folder, _, scores = scored
        rows = place_rows([scores])
        assert [row.name for row in rows if not row.finding] == ["evidence", "whole image", "silent", "truth", "zone"]
        assert row_of(rows, "zone").shares[at("left lower lung zone")].value == pytest.approx(1)
        assert row_of(rows, "zone").of == "map"
        assert row_of(rows, "truth").shares == row_of(rows, "evidence").shares
        assert (row_of(rows, "silent").records, row_of(rows, "silent").silent) == (0, len(folder))
        for finding in {record.attribute for record in folder}:
            mine = [(c, r) for c, r in zip(source, folder, strict=True) if r.attribute == finding]
            expected = np.mean([box_shares(place_labels(phantom_for(c).masks), r.boxes, r.size) for c, r in mine], 0)
            found = row_of(rows, "evidence", finding)
            assert [cell.value for cell in found.shares] == pytest.approx(expected.tolist())
            assert (found.records, found.patients) == (len(mine), len({r.patient_id for _, r in mine}))
            assert np.isclose(sum(cell.value for cell in found.shares), 1)

    def test_twice_the_same_file_counts_once(self, scored: tuple[DatasetFolder, list[Path], ScoreFile]) -> None:
        assert place_rows([scored[2], scored[2]]) == place_rows([scored[2]])

    def test_intervals_and_plain_values(self, scored: tuple[DatasetFolder, list[Path], ScoreFile]) -> None:
        flat = flat_place_rows(place_rows([scored[2]], resamples=200))
        zone = [r for r in flat if (r["row"], r["finding"]) == ("zone", "all findings")]
        assert [r["place"] for r in zone] == list(PLACES)
        assert json.loads(json.dumps(flat, allow_nan=False)) == flat

    def test_what_is_not_known_is_counted(self, scored: tuple[DatasetFolder, list[Path], ScoreFile]) -> None:
        from dataclasses import replace

        scores = scored[2]
        assert scores.area_places is not None
        area = scores.area_places.copy()
        area[0] = np.nan
        found = row_of(place_rows([replace(scores, area_places=area)]), "zone")
        assert (found.unknown, found.records) == (1, len(area) - 1)

    def test_files_keep_them(self, scored: tuple[DatasetFolder, list[Path], ScoreFile], tmp_path: Path) -> None:
        scores = scored[2]
        again = read_scores(write_scores(scores, tmp_path / "scores.json"))
        for a, b in zip(place_rows([scores]), place_rows([again]), strict=True):
            assert (a.name, a.finding, a.records, a.silent) == (b.name, b.finding, b.records, b.silent)
            assert [c.value for c in a.shares] == pytest.approx([c.value for c in b.shares], abs=1e-4)
        data = json.loads((tmp_path / "scores.json").read_text())
        data["submissions"][0]["places"]["shares"].pop()
        (tmp_path / "bad.json").write_text(json.dumps(data))
        with pytest.raises(ScoringError, match="damaged"):
            read_scores(tmp_path / "bad.json")
        for entry in data["submissions"]:
            del entry["places"]
        del data["anatomy"]
        (tmp_path / "old.json").write_text(json.dumps(data))
        old = read_scores(tmp_path / "old.json")
        assert old.area_places is None
        assert place_rows([old]) == []

    def test_a_board_keeps_none(self, scored: tuple[DatasetFolder, list[Path], ScoreFile], tmp_path: Path) -> None:
        path = write_scores(public_scores(scored[2]), tmp_path / "public.json")
        assert "anatomy" not in json.loads(path.read_text())
        assert all("places" not in entry for entry in json.loads(path.read_text())["submissions"])
        read_scores(path)
