"""CheXlocalize's scores, masks, strata and subgroups: hand values, and chance where nothing differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.core.errors import ScoringError
from medground_bench.core.schema import Candidate
from medground_bench.imaging.masks import PolygonMask
from medground_bench.scoring.protocols import subgroups as module
from medground_bench.scoring.protocols.chexlocalize import _fisher, fill_holes, otsu, shape_features
from medground_bench.scoring.protocols.masks import boundary_f, instance_f
from medground_bench.scoring.protocols.protocol import get_protocol
from medground_bench.scoring.protocols.run import run_protocols
from medground_bench.scoring.protocols.strata import stratum
from medground_bench.scoring.protocols.subgroups import age_group, permuted_gap, standardised
from medground_bench.sources.base import Source, SourceInfo
from medground_bench.sources.planted.anatomy import Localization
from medground_bench.submission import write_submission
from medground_bench.submission.masks import encode_rle
from tests.scoring.folders import header
from tests.scoring.protocols.kit import SIDE, World, mean, quadrant, run, world

INFO = SourceInfo("vindr_cxr", "", "", "", "", False, "", ())


def flat(root: Path, n: int = 8, **columns: Any) -> World:
    return world(root, lambda frame, question: 0.9, n=n, **columns)


def source_of(board: World, **fields: Any) -> list[Source]:
    """Sources that know the board's records; each field is a function of the record's number."""
    found = []
    for k, row in enumerate(board.rows):
        more = {name: value(k) for name, value in fields.items()}
        found.append(
            Candidate(k, row["dataset"], row["image_id"], row["patient_id"], row["attribute"], (), Path("x"), **more)
        )
    return [Source(INFO, Path("x"), found)]


class TestParts:
    def test_otsu_equals_scikit_image(self) -> None:
        filters = pytest.importorskip("skimage.filters")
        for seed in range(5):
            rng = np.random.default_rng(seed)
            values = np.clip(np.concatenate([rng.normal(60, 15, 900), rng.normal(170, 20, 300)]), 0, 255).astype(
                np.uint8
            )
            assert abs(otsu(values) - filters.threshold_otsu(values)) <= 1

    def test_by_hand(self) -> None:
        assert otsu(np.array([[0, 0, 10], [200, 210, 200]], np.uint8)) == 10
        ring = np.ones((5, 5), bool)
        ring[2, 2] = False
        assert fill_holes(ring).all()

    def test_shapes(self) -> None:
        mask = np.zeros((40, 60), bool)
        mask[5:15, 10:50] = True
        mask[20:24, 3:7] = True
        assert shape_features(mask) == pytest.approx(
            {"instances": 2, "area": 416 / 2400, "elongation": 4, "rectangularity": 1}
        )
        y, x = np.ogrid[:101, :101]
        disc = shape_features((y - 50) ** 2 + (x - 50) ** 2 <= 40**2)
        assert disc["elongation"] == pytest.approx(1, abs=0.03)
        assert disc["rectangularity"] == pytest.approx(np.pi / 4, abs=0.03)
        diamond = shape_features(abs(y - 50) + abs(x - 50) <= 40)
        assert diamond["rectangularity"] == pytest.approx(1, abs=0.06)
        assert np.isnan(shape_features(np.zeros((3, 3), bool))["area"])

    def test_fisher(self) -> None:
        low, high, p = _fisher(0.5, 28)
        assert low < 0.5 < high
        assert p == pytest.approx(2 * 0.00300, rel=0.05)  # atanh(.5) * 5 = 2.747
        assert _fisher(0.0, 28)[2] == pytest.approx(1)


def level(k: int) -> np.ndarray:
    return np.full((SIDE, SIDE), 140 + 5 * k, np.uint8)


class TestCheXlocalize:
    def test_the_evidence_as_a_map(self, tmp_path: Path) -> None:
        board = flat(tmp_path)
        heat = np.zeros((SIDE, SIDE))
        heat[: SIDE // 2, : SIDE // 2] = 1
        result = run(board, board.submit("truth", heat=lambda r: heat), "chexlocalize")
        for name in ("hit", "iou_otsu", "iou_0.5"):
            assert mean(result, name) == 1
        assert mean(result, "area") == 0.25
        tuned = result.tables[0].rows
        assert tuned[-1]["finding"] == "all"
        assert tuned[-1]["iou"] == 1
        assert result.tables[1].rows == []  # the evidence is the same everywhere

    def test_the_opposite_corner(self, tmp_path: Path) -> None:
        board = flat(tmp_path)
        heat = np.zeros((2, 2))
        heat[1, 1] = 1
        result = run(board, board.submit("wrong", heat=lambda r: heat), "chexlocalize")
        assert mean(result, "hit") == 0
        assert mean(result, "iou_0.7") == 0

    def test_a_random_point_hits_by_area(self, tmp_path: Path) -> None:
        board = flat(tmp_path, n=120)
        rng = np.random.default_rng(0)
        result = run(board, board.submit("random", heat=lambda r: rng.random((14, 14))), "chexlocalize")
        interval = result.find().values["hit"]  # type: ignore[union-attr]
        assert interval.low < mean(result, "area") < interval.high

    def test_the_threshold_comes_from_other_patients(self, tmp_path: Path) -> None:
        """A map of two levels: above 0.5 it is the evidence, above 0.3 twice of it."""
        board = flat(tmp_path)
        heat = np.zeros((2, 2))
        heat[0, 0], heat[0, 1] = 1, 0.45
        fine = np.kron(heat, np.ones((SIDE // 2, SIDE // 2)))
        result = run(board, board.submit("levels", heat=lambda r: fine), "chexlocalize")
        assert mean(result, "iou_0.3") == 0.5
        rows = result.tables[0].rows
        assert rows[-1]["threshold"] == pytest.approx(0.5)
        assert rows[-1]["iou"] == 1

    def test_masks_of_the_source_are_preferred(self, tmp_path: Path) -> None:
        board = flat(tmp_path)
        right = PolygonMask(((28, 28), (56, 28), (56, 56), (28, 56)), (SIDE, SIDE))
        sources = source_of(board, masks=lambda k: (right,))
        heat = np.array([[0.0, 0], [0, 1]])
        result = run(board, board.submit("masked", heat=lambda r: heat), "chexlocalize", sources=sources)
        assert mean(result, "hit") == 1

    def test_hits_go_with_the_confidence_where_an_lvlm_is_given(self, tmp_path: Path) -> None:
        """Brighter images are answered more surely, and their maps point at the evidence."""
        board = world(tmp_path, lambda frame, question: frame.mean() / 255, n=12, image=lambda k: level(k))

        def heat(record: Any) -> np.ndarray:
            found = np.zeros((2, 2))
            found[(0, 0) if np.asarray(record.image).mean() > 170 else (1, 1)] = 1
            return found

        path = board.submit("bright", heat=heat)
        rows = run(board, path, "chexlocalize").tables[1].rows
        assert {(row["score"], row["feature"]) for row in rows} == {("hit", "confidence"), ("iou_otsu", "confidence")}
        assert all(row["spearman"] > 0.8 for row in rows)
        board.root /= "alone"
        assert run(board, path, "chexlocalize", lvlm=None).tables[1].rows == []

    def test_a_second_annotator_is_judged_as_the_map_is(self, tmp_path: Path) -> None:
        """Of eight images six are read by another source, at twice the size: three as the expert does, three beside."""
        board = flat(tmp_path)
        read = [
            Candidate(
                *(k, "chestx_det", row["image_id"], "q", row["attribute"]),
                (tuple(2 * v for v in quadrant(0 if k < 3 else 3)),),
                Path("x"),
                size=(2 * SIDE, 2 * SIDE),
            )
            for k, row in enumerate(board.rows[:6])
        ]
        reader = Source(replace(INFO, key="chestx_det"), Path("x"), read)
        sources = [*source_of(board), reader]
        result = run(
            board, board.submit("half", heat=lambda r: np.array([[1.0, 1], [0, 0]])), "chexlocalize", sources=sources
        )
        assert np.isnan(result.values["iou_reader"]).sum() == 2
        assert mean(result, "iou_reader") == mean(result, "hit_reader") == 0.5
        second, mine = result.tables[-1].rows
        assert (second["row"], second["records"], second["iou"]) == ("second annotator", 6, 0.5)
        assert second["iou_low"] < 0.5 < second["iou_high"]
        assert (mine["row"], mine["records"]) == ("half", 6)
        assert mine["iou"] == pytest.approx(0.5, abs=0.05)

    def test_without_a_second_annotator_there_is_no_row(self, tmp_path: Path) -> None:
        board = flat(tmp_path)
        result = run(board, board.submit("eye", heat=lambda r: np.eye(4)), "chexlocalize", sources=source_of(board))
        assert "iou_reader" not in result.values
        assert not [table for table in result.tables if "annotator" in table.title]

    def test_regressions_of_every_finding(self, tmp_path: Path) -> None:
        """Larger evidence is found better for one finding, worse for the other: together there is nothing."""
        board = flat(
            tmp_path,
            n=24,
            attribute=lambda k: ("Nodule", "Effusion")[k % 2],
            boxes=lambda k: [[0.0, 0.0, 14.0 + k // 2, 14.0 + k // 2]],
        )

        def heat(record: Any) -> np.ndarray:
            side = round(record.boxes[0][2])
            grown = side - 14 if record.attribute == "Nodule" else 26 - side
            out = np.zeros((SIDE, SIDE))
            out[side - grown : side + 26 - 2 * grown, :side] = 1
            return out

        result = run(board, board.submit("mixed", heat=heat), "chexlocalize")
        rows = {(r["finding"], r["score"], r["feature"]): r for r in result.tables[2].rows}
        nodule, effusion = (rows[name, "iou_otsu", "area"]["spearman"] for name in ("Nodule", "Effusion"))
        assert nodule > 0.9
        assert effusion < -0.5
        (together,) = [r for r in result.tables[1].rows if (r["score"], r["feature"]) == ("iou_otsu", "area")]
        assert abs(together["spearman"]) < 0.4
        assert "finding" not in together

    def test_of_an_unsure_answer_the_mask_is_empty(self, tmp_path: Path) -> None:
        """Images of 140 to 195 grey levels are answered with a confidence of that, of 255."""
        board = world(tmp_path, lambda frame, question: frame.mean() / 255, n=12, image=level)
        path = board.submit("truth", heat=lambda r: np.array([[1.0, 0], [0, 0]]))
        result = run(board, path, "chexlocalize", {"least": 168 / 255})
        sure = np.arange(12) >= 6
        assert (result.values["iou_otsu"] > 0.5).tolist() == sure.tolist()
        assert result.values["iou_0.5"][~sure].tolist() == [0.0] * 6
        assert mean(result, "hit") == 1
        board.root /= "alone"
        alone = run(board, path, "chexlocalize", {"least": 0.5}, lvlm=None)
        assert alone.skipped == {"the answer's confidence is not known without its LVLM": 12}
        with pytest.raises(ScoringError, match="least must lie between 0 and 1"):
            get_protocol("chexlocalize").make_parameters({"least": 2})

    def test_a_few_patients_are_neither_tuned_nor_regressed(self, tmp_path: Path) -> None:
        board = flat(tmp_path, n=3)
        result = run(board, board.submit("few", heat=lambda r: np.eye(4)), "chexlocalize")
        assert result.tables[0].title == "no tuning and no regression from 3 patients"


class TestMasks:
    def test_hand_values(self) -> None:
        a = np.zeros((20, 20), bool)
        a[2:8, 2:8] = True
        b = np.roll(a, 1, axis=1)
        assert boundary_f(a, a, 0) == 1
        assert boundary_f(a, np.roll(a, 12, axis=1), 1) == 0
        assert boundary_f(a, b, 1) == 1
        far = np.roll(a, 10, axis=0)
        assert instance_f([a, far], [far, a]) == 1
        assert instance_f([a], [far, a]) == pytest.approx(2 / 3)
        assert instance_f([b], [a]) == 1  # 30 / 42
        assert instance_f([np.roll(a, 3, axis=1)], [a]) == 0  # 18 / 54
        assert instance_f([], []) == 1

    def submit(self, board: World, masks: Any) -> Path:
        rows = [{"id": r.id, "boxes": [], "masks": masks(k)} for k, r in enumerate(board.folder)]
        head = header(board.rows, method="drawn", settings={"frame_side": SIDE})
        return write_submission(board.root / "drawn", head, rows)

    def test_the_evidence_drawn(self, tmp_path: Path) -> None:
        board = flat(tmp_path)
        truth = np.zeros((SIDE, SIDE), bool)
        truth[: SIDE // 2, : SIDE // 2] = True
        result = run(board, self.submit(board, lambda k: [encode_rle(truth)]), "masks")
        for name in ("iou", "dice", "boundary_f", "instance_f1", "centroid_hit", "box_iou"):
            assert mean(result, name) == 1
        half = np.zeros((SIDE, SIDE), bool)
        half[: SIDE // 2] = True
        result = run(board, self.submit(board, lambda k: [encode_rle(half)]), "masks")
        assert mean(result, "iou") == 0.5
        assert mean(result, "dice") == pytest.approx(2 / 3)

    def test_masks_of_another_size_are_counted(self, tmp_path: Path) -> None:
        board = flat(tmp_path)
        masks = [encode_rle(np.ones((4, 4), bool)), encode_rle(np.ones((SIDE, SIDE), bool))]
        result = run(board, self.submit(board, lambda k: [masks[k > 0]]), "masks")
        assert result.skipped == {"a mask of 4 x 4 pixels (expected: the native size, 56 x 56)": 1}
        assert mean(result, "iou") == 0.25

    def test_masks_of_more_than_two_values_are_counted(self, tmp_path: Path) -> None:
        board = flat(tmp_path)
        drawn = tmp_path / "drawn"
        drawn.mkdir()
        levels = np.zeros((SIDE, SIDE), np.uint8)
        levels[:20], levels[20:40] = 255, 128
        Image.fromarray(levels).save(drawn / "grey.png")
        Image.fromarray(np.where(levels == 128, 0, levels)).save(drawn / "two.png")
        result = run(board, self.submit(board, lambda k: ["two.png" if k else "grey.png"]), "masks")
        (reason,) = result.skipped
        assert "value" in reason
        assert result.skipped[reason] == 1
        assert mean(result, "area") == 0.25

    def test_boxes_alone(self, tmp_path: Path) -> None:
        board = flat(tmp_path)
        path = board.submit("boxes", lambda r: [quadrant(0)])
        report = run_protocols([path], board.folder, ["masks"], tmp_path / "out")
        assert report.missing == ["masks on boxes: the submission has no masks"]


class TestStrata:
    def test_where_the_edges_are(self) -> None:
        assert [stratum(s) for s in (0.0099, 0.01, 0.049, 0.05, 0.15)] == [
            "below 1 %",
            "1 to 5 %",
            "1 to 5 %",
            "5 to 15 %",
            "above 15 %",
        ]

    def test_by_size(self, tmp_path: Path) -> None:
        """Small evidence missed, large evidence found."""
        small, large = [0.0, 0.0, 5.0, 5.0], [0.0, 0.0, 28.0, 28.0]
        board = flat(tmp_path, boxes=lambda k: [small if k % 2 else large])
        result = run(board, board.submit("large", lambda r: [large]), "strata", lvlm=None)
        rows = {row["evidence"]: row for row in result.tables[0].rows}
        assert rows["above 15 %"]["iou"] == 1
        assert rows["below 1 %"]["iou"] == pytest.approx(25 / 784)
        assert rows["below 1 %"]["records"] == 4
        assert len(result.tables) == 1  # no maps, no thresholds

    def test_by_threshold(self, tmp_path: Path) -> None:
        board = flat(tmp_path)
        heat = np.zeros((SIDE, SIDE))
        heat[:28, :28] = 1
        heat[:20, :20] = 2
        result = run(board, board.submit("steps", heat=lambda r: heat), "strata")
        assert mean(result, "iou_q0.5") == pytest.approx(400 / 784)  # more than half of what is hot is hottest
        assert mean(result, "best_threshold_gain") >= 0
        assert [row["quantile"] for row in result.tables[1].rows] == [0.5, 0.7, 0.8, 0.9, 0.95, 0.99]
        assert result.tables[1].rows[0]["dice"] == pytest.approx(2 * 400 / (400 + 784))


class TestSubgroups:
    def test_ages(self) -> None:
        assert [age_group(a) for a in (0, 17, 18, 39, 40, 79, 80, 120)] == [
            "below 18",
            "below 18",
            "18 to 39",
            "18 to 39",
            "40 to 59",
            "60 to 79",
            "80 and older",
            "80 and older",
        ]

    def test_equal_groups_give_uniform_p_values(self) -> None:
        rng = np.random.default_rng(0)
        groups = np.array(["F", "M"] * 30)
        p = [permuted_gap(rng.random(60), groups, np.arange(60), 199, seed) for seed in range(100)]
        assert 0.4 < np.mean(p) < 0.6
        assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.08)

    def test_a_shift_is_found(self) -> None:
        rng = np.random.default_rng(1)
        groups = np.array(["F", "M"] * 30)
        scores = 0.1 * rng.random(60) + 0.3 * (groups == "F")
        assert permuted_gap(scores, groups, np.arange(60), 999) == 0.001

    def test_a_gap_that_is_the_mix_of_findings(self) -> None:
        """Both groups have 0.8 on effusions and 0.2 on nodules, and other shares of them."""
        groups = np.array(["F"] * 10 + ["M"] * 10)
        kinds = ["effusion"] * 8 + ["nodule"] * 2 + ["effusion"] * 2 + ["nodule"] * 8
        scores = np.array([0.8 if kind == "effusion" else 0.2 for kind in kinds])
        assert scores[:10].mean() - scores[10:].mean() == pytest.approx(0.36)
        assert standardised(scores, groups, kinds) == pytest.approx({"F": 0.5, "M": 0.5})
        assert standardised(scores, groups, list(range(20))) == {}

    def test_tables(self, tmp_path: Path) -> None:
        board = flat(tmp_path, n=40)
        sources = source_of(board, sex=lambda k: "FM"[k % 2], age=lambda k: 30 if k < 39 else 90)
        right = lambda r: [quadrant(0)] if int(r.image_id[3:]) % 2 else [quadrant(3)]  # noqa: E731
        path = board.submit("unfair", right)
        result = run(board, path, "subgroups", {"least": 10, "permutations": 499}, sources=sources, lvlm=None)
        rows = {(r["field"], r["group"], r["metric"]): r for r in result.tables[0].rows}
        assert rows["sex", "M", "iou"]["mean"] == 1
        assert rows["sex", "F", "iou"]["mean"] == 0
        assert rows["age", "80 and older", "iou"]["note"] == "fewer than 10 patients"
        assert rows["age", "80 and older", "iou"]["mean"] is None
        gaps = {(g["field"], g["metric"]): g for g in result.tables[1].rows}
        assert gaps["sex", "iou"]["gap"] == 1
        assert gaps["sex", "iou"]["worst"] == "F"
        assert gaps["sex", "iou"]["p_holm"] == pytest.approx(2 * 0.002)
        assert gaps["age", "iou"]["worst"] == "fewer than two large groups"
        assert gaps["view", ""]["worst"] == "no record has it"

    def test_heat_on_the_breasts_of_women_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Evidence is above; maps of women lie on the lower lungs, maps of men and those of noise do not."""
        masks = {f"{side} lung": np.zeros((SIDE, SIDE), bool) for side in ("right", "left")}
        masks["right lung"][6:46, 4:26], masks["left lung"][6:46, 30:52] = True, True
        monkeypatch.setattr(module, "_localizer", lambda name: lambda image: Localization(masks, 1.0))
        board = flat(tmp_path, n=40, boxes=lambda k: [[8.0, 8.0, 20.0, 20.0]])
        sources = source_of(board, sex=lambda k: "FM"[k % 2])
        low, high = np.zeros((8, 8)), np.zeros((8, 8))
        low[6:, 1:3], high[1:3, 1:3] = 1, 1
        heat = lambda r: high if int(r.image_id[3:]) % 2 else low  # noqa: E731
        settings = {"least": 10, "permutations": 499, "anatomy": "multi_atlas"}
        path = board.submit("unfair", lambda r: [quadrant(0)], heat)
        result = run(board, path, "subgroups", settings, sources=sources, lvlm=None)
        rows = {(r["group"], r["metric"]): r["mean"] for r in result.tables[0].rows if r["field"] == "sex"}
        assert rows["F", "heat_breasts"] > 0.6
        assert rows["M", "heat_breasts"] == 0
        (gap,) = [g for g in result.tables[1].rows if g["metric"] == "heat_breasts"]
        assert (gap["worst"], gap["p"]) == ("F", 0.002)
        assert gap["p_holm"] == pytest.approx(3 * 0.002)
        rng = np.random.default_rng(0)
        path = board.submit("noise", lambda r: [quadrant(0)], lambda r: rng.random((8, 8)))
        noise = run(board, path, "subgroups", settings, sources=sources, lvlm=None).find().values  # type: ignore[union-attr]
        assert noise["heat_breasts"].low < noise["area_breasts"].value < noise["heat_breasts"].high
        (gap,) = [g for g in result.tables[1].rows if g["metric"] == "f1" and g["field"] == "sex"]
        assert gap["gap"] == 0

    def test_evidence_on_the_breasts_says_nothing_of_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lung = np.zeros((SIDE, SIDE), bool)
        lung[6:46, 4:26] = True
        monkeypatch.setattr(module, "_localizer", lambda name: lambda image: Localization({"right lung": lung}, 1.0))
        board = flat(tmp_path, boxes=lambda k: [[8.0, 40.0, 20.0, 50.0]])
        path = board.submit("boxes", lambda r: [quadrant(0)])
        sources = source_of(board, sex=lambda k: "FM"[k % 2])
        result = run(board, path, "subgroups", {"anatomy": "multi_atlas"}, sources=sources, lvlm=None)
        assert "heat_breasts" not in result.values
        board.root /= "unknown"  # sources that are no phantoms do not tell the anatomy
        result = run(board, path, "subgroups", {"anatomy": "source"}, sources=sources, lvlm=None)
        assert "heat_breasts" not in result.values
        with pytest.raises(ScoringError, match="anatomy must be one of source, "):
            get_protocol("subgroups").make_parameters({"anatomy": "nobody"})

    def test_sources_that_know_nothing(self, tmp_path: Path) -> None:
        board = flat(tmp_path)
        path = board.submit("any", lambda r: [quadrant(0)])
        report = run_protocols([path], board.folder, ["subgroups"], tmp_path / "out")
        assert report.missing == ["subgroups on any: no source knows its records (--source NAME=DIR)"]
        result = run(board, path, "subgroups", sources=source_of(board), lvlm=None)
        assert result.skipped == {"its source tells neither sex nor age nor view": 8}
