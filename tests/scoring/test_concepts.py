"""Scores of named concepts: hand-made anatomies, exact phantoms, chance in closed form."""

from __future__ import annotations

import io
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from medground_bench.cli._score_tables import print_scores
from medground_bench.core.anatomy import COMPOSITES, CONCEPTS, PART_OF, ZONES, within
from medground_bench.dataset.columns import Record
from medground_bench.dataset.folder import open_folder
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.write import build_folder
from medground_bench.imaging import Letterbox
from medground_bench.pages.report.tables import outputs_table
from medground_bench.scoring import (
    Anatomy,
    compare_scores,
    concept_reference,
    score_concepts,
    score_submissions,
    submission_rows,
)
from medground_bench.scoring.concepts import heat_in_concepts, holding
from medground_bench.scoring.rows import output_rows
from medground_bench.sources import open_source
from medground_bench.sources.phantom import write_source
from medground_bench.sources.phantom.source import phantom_for
from medground_bench.sources.planted.anatomy import Localization
from medground_bench.submission import write_submission
from tests.scoring.folders import header, make_rows, perfect, write_folder


def halves(height: int = 128, width: int = 256) -> dict[str, np.ndarray]:
    """The patient's right lung on the viewer's left half, the left lung on the other, its angle in the corner."""
    masks = {name: np.zeros((height, width), bool) for name in ("right lung", "left lung", "left costophrenic angle")}
    masks["right lung"][:, : width // 2] = True
    masks["left lung"][:, width // 2 :] = True
    masks["left costophrenic angle"][height * 3 // 4 :, width * 3 // 4 :] = True
    return masks


def record(k: int = 0, patient: str = "p", attribute: str = "nodule", **more: Any) -> Record:
    given: dict[str, Any] = {"boxes": ((10, 10, 20, 20),), "width": 256, "height": 128, **more}
    return Record(
        id=f"r{k}", dataset="d", image_id=f"i{k}", patient_id=patient, attribute=attribute, question="?", **given
    )


class TestVocabulary:
    def test_every_part_belongs_to_a_concept(self):
        assert set(PART_OF.values()) <= set(CONCEPTS)
        assert len(set(ZONES)) == len(ZONES) >= 18
        assert within("right atrium") == ("right atrium", "cardiac silhouette", "mediastinum")
        assert within("abdomen") == ("abdomen",)
        assert all(within(z)[1] == f"{z.split()[0]} lung" for z in ZONES if "lung zone" in z or "apical" in z)


class TestHolding:
    def test_the_concept_with_most_of_each_box(self):
        anatomy, size = Anatomy.of(halves()), (256, 128)
        assert holding(anatomy, [(10, 10, 40, 40)], size) == {"right lung"}
        assert holding(anatomy, [(100, 10, 136, 40)], size) == {"right lung"}  # 28 of 36 columns
        assert holding(anatomy, [(10, 10, 40, 40), (200, 10, 240, 40)], size) == {"right lung", "left lung"}

    def test_a_smaller_concept_that_holds_as_much_is_right_too(self):
        anatomy, size = Anatomy.of(halves()), (256, 128)
        assert holding(anatomy, [(200, 100, 250, 120)], size) == {"left lung", "left costophrenic angle"}
        assert holding(anatomy, [(200, 60, 250, 120)], size) == {"left lung"}  # the angle holds 40 %

    def test_evidence_outside_of_all_concepts_is_not_known(self):
        masks = {"left clavicle": np.zeros((64, 64), bool)}
        masks["left clavicle"][:8] = True
        assert holding(Anatomy.of(masks), [(10, 30, 20, 40)], (64, 64)) == frozenset()
        assert holding(Anatomy.of({}), [(10, 30, 20, 40)], (64, 64)) == frozenset()

    def test_regions_of_the_source_come_before_geometry(self):
        rows = [record(regions=("left mid lung zone", "aortic arch")), record(1, regions=("abdomen",))]
        found = concept_reference(rows)
        assert found is not None
        assert found.holding[0] == {"left lung", "upper mediastinum", "mediastinum"}
        assert found.holding[1] == frozenset()
        assert concept_reference([record()]) is None

    def test_a_localizer_tells_other_images(self):
        image = Image.fromarray(np.zeros((128, 256), np.uint8))
        rows = [replace(record(), load_image=lambda: image)]
        found = concept_reference(rows, localizer=lambda pixels: Localization(halves(*pixels.shape), 1.0))
        assert found is not None
        assert found.holding == ({"right lung"},)

    def test_phantoms_tell_their_own(self, tmp_path: Path):
        """Against the generator's own word for where it drew each finding."""
        source = open_source("phantom", write_source("phantom", tmp_path, 6, size=224).root)
        rows = [
            Record(
                id=c.id,
                dataset="phantom",
                image_id=c.image_id,
                patient_id=c.patient_id,
                attribute=c.attribute,
                question="?",
                boxes=c.boxes,
                width=224,
                height=224,
            )
            for c in source
        ]
        found = concept_reference(rows, [source])
        assert found is not None
        agree = []
        for candidate, holds in zip(source, found.holding, strict=True):
            drawn = next(f for f in phantom_for(candidate).findings if f.attribute == candidate.attribute)
            agree.append(set(COMPOSITES.get(drawn.concept, (drawn.concept,))) & holds != set())
        assert len(agree) > 5
        assert np.mean(agree) > 0.7


class TestScores:
    def test_right_concept_of_highest_score(self):
        out = score_concepts("left lung", {"left lung": 3.0, "right lung": 1.0}, frozenset({"left lung"}))
        assert out == {
            "concept_accuracy": 1.0,
            "concept_rank": 1.0,
            "concept_confidence": 0.75,
            "concept_brier": 0.0625,
        }

    def test_wrong_concept(self):
        scores = {"left lung": 3.0, "right lung": 1.0, "mediastinum": 0.0, "left clavicle": -2.0}
        out = score_concepts("left lung", scores, frozenset({"mediastinum"}))
        assert (out["concept_accuracy"], out["concept_rank"]) == (0.0, pytest.approx(1 / 3))
        assert out["concept_brier"] == pytest.approx(0.75**2)

    def test_equals_share_their_ranks(self):
        scores = dict.fromkeys(("left lung", "right lung", "mediastinum"), 1.0)
        assert score_concepts("left lung", scores, frozenset({"mediastinum"}))["concept_rank"] == 1 / 2

    def test_groups_are_right_if_all_members_are(self):
        both = frozenset({"left lung", "right lung"})
        scores = {"left lung": 1.0, "right lung": 2.0, "both lungs": 9.0, "mediastinum": 1.0}
        assert score_concepts("both lungs", scores, both)["concept_accuracy"] == 1.0
        out = score_concepts("both lungs", scores, frozenset({"left lung"}))
        assert out["concept_accuracy"] == 0.0
        assert out["concept_confidence"] == 0.75  # the group's own score is that of no concept

    def test_zones_count_as_their_concept(self):
        scores = {"left upper lung zone": 1.0, "left mid lung zone": 3.0, "svc": 1.0}
        out = score_concepts("left mid lung zone", scores, frozenset({"left lung"}))
        assert (out["concept_accuracy"], out["concept_rank"], out["concept_confidence"]) == (1.0, 1.0, 0.75)

    def test_no_name_is_wrong_and_no_scores_have_no_rank(self):
        out = score_concepts(None, {}, frozenset({"left lung"}))
        assert out["concept_accuracy"] == 0.0
        assert np.isnan([out["concept_rank"], out["concept_brier"]]).all()


class TestHeat:
    def test_shares_of_the_heat(self):
        anatomy, frame = Anatomy.of(halves()), Letterbox.fit(256, 128)
        heat = np.zeros((224, 224))
        x1, y1, x2, y2 = (int(v) for v in frame.content)
        heat[y1:y2, x1 : (x1 + x2) // 2] = 3.0
        heat[y1:y2, (x1 + x2) // 2 : x2] = 1.0
        heat[:y1] = 50.0  # heat in the padding is no concept's
        out = heat_in_concepts(heat, frame, anatomy)
        assert out["right lung"] == pytest.approx(0.75, abs=0.01)
        assert out["left lung"] == pytest.approx(0.25, abs=0.01)

    @pytest.mark.parametrize("heat", [np.ones((8, 8)), np.full((8, 8), nan)])
    def test_a_map_that_says_nothing(self, heat: np.ndarray):
        assert heat_in_concepts(heat, Letterbox.fit(256, 128), Anatomy.of(halves())) == {}

    def test_a_coarse_map(self):
        anatomy, frame = Anatomy.of(halves(128, 128)), Letterbox.fit(128, 128)
        out = heat_in_concepts(np.array([[0.0, 1.0], [0.0, 1.0]]), frame, anatomy)
        assert out["left lung"] == pytest.approx(1.0)
        assert out["left costophrenic angle"] == pytest.approx(1 / 8)


class TestChance:
    def test_against_draws(self):
        regions = [("left lung",), ("left lung", "right lung", "cardiac silhouette"), ("aortic arch",)]
        rows = [record(k, f"p{k}", regions=r) for k, r in enumerate(regions)]
        found = concept_reference(rows)
        assert found is not None
        rng = np.random.default_rng(0)
        for k, holds in enumerate(found.holding):
            right, ranks = [], []
            for _ in range(4000):
                order = rng.permutation(CONCEPTS)
                right.append(order[0] in holds)
                ranks.append(1 / (1 + min(int(np.flatnonzero(order == name)[0]) for name in holds)))
            assert found.chance["concept_accuracy_uniform"][k] == pytest.approx(np.mean(right), abs=0.03)
            assert found.chance["concept_rank_uniform"][k] == pytest.approx(np.mean(ranks), abs=0.03)
        assert np.isnan(found.chance["concept_accuracy_largest"]).all()

    def test_the_prior_leaves_the_patient_out(self):
        left, heart = {"regions": ("left lung",)}, {"regions": ("cardiac silhouette",)}
        rows = [
            record(0, "a", **left),
            record(1, "b", **left),
            record(2, "c", "mass", **heart),
            record(3, "c", "mass", **heart),
        ]
        found = concept_reference(rows)
        assert found is not None
        # Nodules elsewhere are in the left lung; no other patient has a mass, and other findings are in the left lung.
        assert found.chance["concept_accuracy_prior"].tolist() == [1, 1, 0, 0]


def concept_rows() -> list[dict[str, Any]]:
    rows = make_rows(24, lvlms=("tiny_a",), size=(400, 300))
    for k, row in enumerate(rows):
        row["regions"] = [("left lung", "right mid lung zone")[k % 2]] * len(row["boxes"])
    return rows


def test_scored_beside_chance_in_tables_and_pages(tmp_path: Path) -> None:
    rows = concept_rows()
    folder = open_folder(write_folder(tmp_path / "data", rows))
    assert folder[1].regions[0] == "right mid lung zone"
    right = [{**p, "concept": "left lung", "concept_scores": {"left lung": 1, "right lung": 0}} for p in perfect(rows)]
    one = write_submission(tmp_path / "one", header(rows, method="left"), right)
    two = write_submission(tmp_path / "two", header(rows, method="boxes"), perfect(rows))
    scores = score_submissions([one, two], folder, resamples=200)
    values = scores.submissions[0].find().values  # type: ignore[union-attr]
    assert values["concept_accuracy"].value == 0.5
    assert values["concept_rank"].value == 0.75
    assert values["concept_confidence"].value == 1.0
    assert values["concept_brier"].value == 0.5
    assert values["concept_accuracy_uniform"].value == pytest.approx(1 / 11)
    assert "concept_accuracy" not in scores.submissions[1].scores
    found = {row.title: row for row in output_rows(submission_rows([scores]))}
    assert list(found) == ["left", "chance: any concept", "chance: usual concept of the finding"]
    table = outputs_table(submission_rows([scores]))
    assert table is not None
    assert table["columns"] == ["concept accuracy", "1 / rank", "confidence", "Brier"]
    console = Console(width=200, record=True, file=io.StringIO())
    print_scores(scores, console)
    assert "concept accuracy" in console.export_text()
    assert any("concept_accuracy" in row.aggregate.values for row in compare_scores([scores], resamples=200).rows)


def test_heat_maps_name_the_concept_where_the_anatomy_is_known(tmp_path: Path) -> None:
    source = open_source("phantom", write_source("phantom", tmp_path / "source", 4, size=112).root)
    folder = open_folder(
        build_folder(BuildSettings("candidates", {"phantom": str(source.root)}), tmp_path / "data")[0], "candidates"
    )
    rows = []
    (tmp_path / "one" / "heatmaps").mkdir(parents=True)
    for k, candidate in enumerate(source):
        mask = phantom_for(candidate).masks["left lung"]
        np.save(tmp_path / "one" / "heatmaps" / f"{k}.npy", np.asarray(mask, np.float32))
        rows.append({"id": candidate.id, "boxes": [list(b) for b in candidate.boxes], "heatmap": f"heatmaps/{k}.npy"})
    head = {**header([{**folder[0].to_row(), "mode": "direct"}]), "dataset_fingerprint": folder.fingerprint}
    head["settings"] = {"frame_side": 112}
    one = write_submission(tmp_path / "one", head, rows)
    scores = score_submissions([one], folder, resamples=100, sources=[source]).submissions[0].scores
    reference = concept_reference(list(folder), [source])
    assert reference is not None
    for right, rank, holds in zip(
        scores["concept_accuracy"].tolist(), scores["concept_rank"].tolist(), reference.holding, strict=True
    ):
        if holds:
            assert right == float("left lung" in holds)
            assert rank == 1.0 if right else rank < 1.0
