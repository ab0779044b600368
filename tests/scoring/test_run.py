"""From submissions to score files, aggregates, comparisons and the three commands."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from medground_bench.cli import app
from medground_bench.core.errors import MedGroundError, ScoringError, SubmissionError
from medground_bench.dataset.columns import Record
from medground_bench.dataset.folder import open_folder
from medground_bench.imaging import Letterbox
from medground_bench.scoring import (
    CHANCE_ROWS,
    METRICS,
    ScoreFile,
    compare_scores,
    evaluate_boxes,
    load_reference,
    read_scores,
    score_boxes,
    score_submissions,
    size_tertiles,
    write_scores,
)
from medground_bench.submission import validate_submission, write_submission
from tests.scoring.folders import header, make_rows, perfect, write_folder, write_perfect

Row = dict[str, Any]
FAST = {"resamples": 300}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return make_rows(24)


@pytest.fixture(scope="module")
def dataset(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "medground-bench", rows)


def shifted(rows: list[Row], lvlm: str, by: float) -> list[Row]:
    """Predictions that are the evidence moved right, kept inside the image."""
    out = []
    for row in rows:
        if row["model"] == lvlm:
            boxes = [
                [min(x1 + by, row["width"] - 2), y1, min(x2 + by, row["width"]), y2] for x1, y1, x2, y2 in row["boxes"]
            ]
            out.append({"id": row["id"], "boxes": boxes})
    return out


@pytest.fixture(scope="module")
def scored(rows: list[Row], dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> ScoreFile:
    """Two methods for two LVLMs each."""
    root = tmp_path_factory.mktemp("subs")
    folders = [write_perfect(root / f"oracle-{lvlm}", rows, lvlm) for lvlm in ("tiny_a", "tiny_b")]
    for lvlm in ("tiny_a", "tiny_b"):
        folders.append(write_submission(root / f"shift-{lvlm}", header(rows, lvlm, "shift"), shifted(rows, lvlm, 60)))
    return score_submissions(folders, open_folder(dataset, "direct"), **FAST)


def test_three_records_by_hand(tmp_path: Path) -> None:
    """The whole pipeline against numbers worked out on paper."""
    rows = make_rows(3, lvlms=("m",))
    for k, (row, box) in enumerate(zip(rows, ([0, 0, 20, 10], [10, 10, 30, 30], [0, 0, 100, 25]), strict=True)):
        row.update(boxes=[[float(v) for v in box]], width=100, height=50)
        row.update(dataset="nih_cxr14", patient_id=f"p{k}", attribute="A")
    data = write_folder(tmp_path / "data", rows)
    predictions = [
        {"id": rows[0]["id"], "boxes": [[0, 0, 10, 10], [5, 0, 15, 10]]},  # 150 of 200 px, all inside
        {"id": rows[1]["id"], "boxes": [[20, 10, 40, 30]], "fallback": True},  # half of it outside
        {"id": rows[2]["id"], "boxes": []},  # no answer
    ]
    folder = write_submission(tmp_path / "sub", header(rows, "m"), predictions)
    one = score_submissions([folder], open_folder(data), resamples=200).submissions[0]
    np.testing.assert_allclose(one.scores["iou"], [0.75, 200 / 600, 0])
    np.testing.assert_allclose(one.scores["precision"], [1, 0.5, 0])
    np.testing.assert_allclose(one.scores["recall"], [0.75, 0.5, 0])
    np.testing.assert_allclose(one.scores["f1"], [1.5 / 1.75, 0.5, 0])
    np.testing.assert_allclose(one.scores["area_ratio"], [0.75, 1, 0])
    np.testing.assert_allclose(one.scores["precision_lift"], [1 / (200 / 5000), 0.5 / (400 / 5000), 0])
    whole = one.find()
    assert whole is not None
    values = {name: interval.value for name, interval in whole.values.items()}
    assert values["iou"] == pytest.approx((0.75 + 1 / 3) / 3)
    assert values["coverage"] == pytest.approx(2 / 3)
    assert values["fallback"] == pytest.approx(1 / 3)
    assert values["degenerate"] == 0
    assert values["area_ratio"] == pytest.approx((150 + 400) / (200 + 400 + 2500))
    assert values["precision_lift"] == pytest.approx(1.5 / ((200 + 400 + 2500) / 5000))
    chance = one.find(chance="whole_image")
    assert chance is not None
    assert chance.values["iou"].value == pytest.approx((0.04 + 0.08 + 0.5) / 3)
    assert chance.values["f1"].value == pytest.approx((0.08 / 1.04 + 0.16 / 1.08 + 1 / 1.5) / 3)
    mean = (0.04 + 0.08 + 0.5) / 3
    assert values["skill_iou_whole_image"] == pytest.approx((values["iou"] - mean) / (1 - mean))
    assert (whole.records, whole.clusters) == (3, 3)


def test_a_perfect_submission_scores_one_and_beats_chance(scored: ScoreFile) -> None:
    oracle = scored.submissions[0]
    assert all((oracle.scores[m] == 1).all() for m in METRICS)
    whole = oracle.find()
    assert whole is not None
    least = 12 / (12 + 1.959964**2)  # Wilson's end for all of twelve patients
    for name in (*METRICS, "coverage"):
        assert whole.values[name] == pytest.approx((1, least, 1))
    for name in ("area_ratio", "skill_iou_centre_prior"):  # not bounded by 1
        assert whole.values[name] == pytest.approx((1, 1, 1))
    for row in CHANCE_ROWS:
        chance = oracle.find(chance=row)
        assert chance is not None
        assert 0 < chance.values["iou"].low <= chance.values["iou"].value <= chance.values["iou"].high < 0.5


def test_aggregates_are_means_over_their_groups(scored: ScoreFile) -> None:
    one = scored.submissions[2]
    table = scored.table.take(one.positions)
    for a in one.aggregates:
        mask = {
            "all": np.ones(len(table), bool),
            "dataset": table.dataset == a.group,
            "size": table.size == a.group,
            "attribute": table.attribute == a.group,
        }[a.level]
        assert a.records == mask.sum()
        assert a.clusters == len(set(table.cluster[mask].tolist()))
        for metric in METRICS:
            assert a.values[metric].value == pytest.approx(one.scores[metric][mask].mean())
            assert a.values[metric].low <= a.values[metric].value <= a.values[metric].high
    assert {a.group for a in one.aggregates if a.level == "size"} == {"small", "medium", "large"}
    assert {a.group for a in one.aggregates if a.level == "attribute"} == {"Cardiomegaly", "Effusion", "Nodule"}


def test_a_group_of_few_patients_has_no_interval(tmp_path: Path) -> None:
    rows = make_rows(4, lvlms=("m",))
    rows[0].update(dataset="nih_cxr14", patient_id="alone")
    data = write_folder(tmp_path / "data", rows)
    folder = write_submission(tmp_path / "sub", header(rows, "m"), shifted(rows, "m", 10))
    lone = score_submissions([folder], open_folder(data), **FAST).submissions[0].find("dataset", "nih_cxr14")
    assert lone is not None
    assert lone.clusters == 1
    assert np.isnan([lone.values["iou"].low, lone.p_chance]).all()
    assert lone.to_json()["values"]["iou"][1:] == [None, None]


def test_evidence_beyond_the_image_is_cut_for_methods_as_for_chance(tmp_path: Path) -> None:
    """The whole image as prediction scores exactly what the whole-image row says."""
    rows = make_rows(8, lvlms=("m",))
    for row in rows:
        row["boxes"] = [[-40.0, row["height"] / 2, row["width"] + 25.0, row["height"] + 90.0]]
    data = open_folder(write_folder(tmp_path / "data", rows))
    whole = [{"id": r["id"], "boxes": [[0, 0, r["width"], r["height"]]]} for r in rows]
    one = score_submissions([write_submission(tmp_path / "sub", header(rows, "m"), whole)], data, **FAST).submissions[0]
    chance = one.find(chance="whole_image")
    found = one.find()
    assert found is not None
    assert chance is not None
    for name in METRICS:
        assert found.values[name].value == pytest.approx(chance.values[name].value)
    assert found.values["iou"].value == pytest.approx(0.5)
    assert found.values["recall"].value == 1


def test_the_metric_module_and_score_say_the_same(rows: list[Row], scored: ScoreFile) -> None:
    """Every number that plain lists allow, from the same records."""
    one = scored.submissions[2]
    mine = [r for r in rows if r["model"] == one.lvlm]
    boxes = {p["id"]: p["boxes"] for p in shifted(rows, one.lvlm, 60)}
    said = evaluate_boxes(
        [boxes[r["id"]] for r in mine],
        [r["boxes"] for r in mine],
        datasets=[r["dataset"] for r in mine],
        groups=[r["patient_id"] for r in mine],
        image_sizes=[[r["width"], r["height"]] for r in mine],
        attributes=[r["attribute"] for r in mine],
        resamples=300,
    )
    whole = one.find()
    assert whole is not None
    for name in METRICS:
        assert said[name] == whole.values[name].value
        assert said["intervals"][name] == list(whole.values[name][1:])
        for dataset in ("imagenome", "vindr_cxr"):
            part = one.find("dataset", dataset)
            assert part is not None
            assert said["by_dataset"][dataset][name] == part.values[name].value
        for row in ("whole_image", "centre_prior"):
            chance = one.find(chance=row)
            assert chance is not None
            assert said["chance"][row][name] == pytest.approx(chance.values[name].value, abs=1e-12)
    for name in ("area_ratio", "precision_lift", "coverage"):
        assert said[name] == pytest.approx(whole.values[name].value, abs=1e-12)
    assert said["clusters"] == whole.clusters == 12
    assert said["against_chance"] == {"row": whole.best_chance, "p_value": pytest.approx(whole.p_chance)}


def test_tertiles() -> None:
    assert size_tertiles([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]).tolist() == ["small"] * 2 + ["medium"] * 2 + ["large"] * 2
    assert size_tertiles([]).tolist() == []
    assert set(size_tertiles([0.2] * 5).tolist()) == {"small"}


def test_score_file_survives_the_round_trip(scored: ScoreFile, tmp_path: Path) -> None:
    path = write_scores(scored, tmp_path / "scores.json")
    back = read_scores(path)
    assert (back.config, back.fingerprint, back.dataset_records) == ("direct", scored.fingerprint, 48)
    for name in scored.table.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(back.table, name), getattr(scored.table, name))
    for a, b in zip(scored.submissions, back.submissions, strict=True):
        assert a.provenance == b.provenance
        assert a.aggregates == b.aggregates
        for name, values in a.scores.items():
            np.testing.assert_array_equal(values, b.scores[name])
    assert "pat0" not in path.read_text()  # patients are numbers only


def test_scores_of_the_first_version_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text('{"kind": "medground-bench scores", "format": 1, "submissions": []}')
    with pytest.raises(ScoringError, match=r"version 0\.1\.0") as caught:
        read_scores(path)
    assert "medground-bench score SUBMISSION" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"kind": "medground-bench scores", "format": 99}',
        '{"kind": "medground-bench scores", "format": 2}',
    ],
)
def test_what_is_not_a_score_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(content)
    with pytest.raises(ScoringError) as caught:
        read_scores(path)
    assert caught.value.where == str(path)
    with pytest.raises(ScoringError):
        read_scores(tmp_path / "none.json")


def test_damaged_columns_are_noticed(scored: ScoreFile, tmp_path: Path) -> None:
    data = json.loads(write_scores(scored, tmp_path / "scores.json").read_text())
    data["submissions"][0]["rows"][0] = 10_000
    (tmp_path / "scores.json").write_text(json.dumps(data))
    with pytest.raises(ScoringError, match="damaged"):
        read_scores(tmp_path / "scores.json")


def test_invalid_submissions_and_other_datasets_are_refused(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    opened = open_folder(dataset)
    other = write_submission(tmp_path / "other", {**header(rows), "dataset_fingerprint": "sha256:1"}, perfect(rows))
    with pytest.raises(SubmissionError, match="made for dataset"):
        score_submissions([other], opened, **FAST)
    faulty = write_submission(tmp_path / "faulty", header(rows), [*perfect(rows)[:-1], {"id": "x", "boxes": [[1]]}])
    with pytest.raises(SubmissionError, match=r"predictions\.jsonl:24"):
        score_submissions([faulty], opened, partial=True, **FAST)
    good = write_perfect(tmp_path / "good", rows)
    again = write_perfect(tmp_path / "again", rows)
    with pytest.raises(ScoringError, match="two submissions"):
        score_submissions([good, again], opened, **FAST)


def test_missing_records_count_as_not_answered(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    folder = write_submission(tmp_path / "sub", header(rows), perfect(rows)[:6])
    with pytest.raises(SubmissionError, match="18 faults") as caught:
        score_submissions([folder], open_folder(dataset), **FAST)
    assert "--partial" in (caught.value.remedy or "")
    whole = score_submissions([folder], open_folder(dataset), partial=True, **FAST).submissions[0].find()
    assert whole is not None
    assert whole.records == 24
    assert whole.values["iou"].value == whole.values["coverage"].value == pytest.approx(0.25)


def test_heatmaps_are_scored_in_their_frame(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    predictions = perfect(rows)
    by_id = {row["id"]: row for row in rows}
    for k, p in enumerate(predictions[:5]):
        row = by_id[p["id"]]
        heat = np.zeros((224, 224), np.float32)
        for x1, y1, x2, y2 in Letterbox.fit(row["width"], row["height"]).to_frame(row["boxes"]):
            heat[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1] = 1
        np.save(folder / f"{k}.npy", heat)
        p["heatmap"] = f"{k}.npy"
    np.save(folder / "flat.npy", np.ones((8, 8)))
    predictions[5].update(heatmap="flat.npy", degenerate=True)
    write_submission(folder, header(rows), predictions)
    one = score_submissions([folder], open_folder(dataset), **FAST).submissions[0]
    assert np.isnan(one.scores["auprc"][6:]).all()
    assert (one.scores["pointing"][:5] >= 0.9).all()
    assert (one.scores["auprc"][:5] > 0.8).all()  # the map's whole pixels reach a little beyond the evidence
    assert (one.scores["auprc"][:5] > one.scores["auprc_chance"][:5] + 0.4).all()
    assert one.scores["auprc"][5] == pytest.approx(one.scores["auprc_chance"][5])
    whole = one.find()
    assert whole is not None
    assert whole.values["auprc"].value == pytest.approx(one.scores["auprc"][:6].mean())
    assert whole.values["degenerate"].value == pytest.approx(1 / 24)
    without = score_submissions([folder], open_folder(dataset), heatmaps=False, **FAST).submissions[0]
    assert "auprc" not in without.scores


def test_a_heat_map_that_is_not_finite_is_an_error_of_its_row(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    predictions = perfect(rows)
    np.save(folder / "nan.npy", np.full((14, 14), np.nan))
    predictions[3]["heatmap"] = "nan.npy"
    write_submission(folder, header(rows), predictions)
    (fault,) = validate_submission(folder, open_folder(dataset)).faults
    assert (fault.code, fault.line, fault.field) == ("heatmap", 4, "heatmap")
    with pytest.raises(SubmissionError, match="not finite"):
        score_submissions([folder], open_folder(dataset), **FAST)


def test_native_maps_in_a_square_frame_are_warned_of(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    row = next(r for r in rows if r["model"] == "tiny_a")
    for name, settings, warned in (("square", {"frame_side": 224}, True), ("native", {"frame_side": None}, False)):
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "0.npy", np.eye(row["height"], row["width"]))
        predictions = [{**p, **({"heatmap": "0.npy"} if p["id"] == row["id"] else {})} for p in perfect(rows)]
        write_submission(folder, header(rows, settings=settings), predictions)
        report = validate_submission(folder, open_folder(dataset))
        assert report.valid
        assert ("heatmap-shape" in {w.code for w in report.warnings}) == warned


def test_native_heatmaps_need_no_letterbox(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    predictions = perfect(rows)
    row = next(r for r in rows if r["id"] == predictions[0]["id"])
    heat = np.zeros((row["height"], row["width"]), np.float32)
    for x1, y1, x2, y2 in row["boxes"]:
        heat[int(y1) : int(y2), int(x1) : int(x2)] = 1
    np.save(folder / "0.npy", heat)
    predictions[0]["heatmap"] = "0.npy"
    write_submission(folder, header(rows, settings={"frame_side": None}), predictions)
    one = score_submissions([folder], open_folder(dataset), **FAST).submissions[0]
    assert one.scores["energy"][0] == one.scores["auprc"][0] == pytest.approx(1)


def test_candidates_belong_to_every_lvlm(tmp_path: Path) -> None:
    rows = make_rows(6, lvlms=("x",))
    for row in rows:
        row.update(model=None, mode=None, id=row["id"].removeprefix("x/direct/"))
    data = write_folder(tmp_path / "data", rows, "candidates")
    folders = []
    for lvlm in ("a", "b"):
        predictions = [{"id": row["id"], "boxes": row["boxes"]} for row in rows]
        head = header(rows, lvlm, mode="direct")
        folders.append(write_submission(tmp_path / lvlm, head, predictions))
    scores = score_submissions(folders, open_folder(data, "candidates"), **FAST)
    report = compare_scores([scores], **FAST)
    levels = {(r.aggregate.level, r.aggregate.group): r.aggregate for r in report.rows if r.name == "oracle"}
    assert levels["all", ""].records == 12
    assert levels["lvlm", "a"].records == levels["lvlm", "b"].records == 6


def test_reference_leaves_patients_out_and_numbers_them(rows: list[Row]) -> None:
    reference = load_reference(map(Record.from_row, rows), config="direct")
    table = reference.table
    assert table.cluster.max() == 11  # 24 images, two per patient
    assert (table.cluster[::2] == table.cluster[1::2]).all()  # the same image for both LVLMs
    chance = score_boxes([[[0, 0, r["width"], r["height"]]] for r in rows], [r["boxes"] for r in rows])
    np.testing.assert_allclose(reference.chance["whole_image"].iou, chance.iou)
    # The prior does not depend on how many LVLMs were asked.
    single = load_reference(Record.from_row(r) for r in rows if r["model"] == "tiny_a")
    np.testing.assert_allclose(reference.chance["centre_prior"].iou[::2], single.chance["centre_prior"].iou)
    with pytest.raises(ScoringError, match="no records"):
        load_reference([])


# --- comparison


def test_pooled_and_macro(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    """LVLMs with different numbers of records: pooled weighs records, macro weighs LVLMs."""
    fewer = [r for r in rows if r["model"] == "tiny_a" or r["image_id"] < "img008"]
    data = write_folder(tmp_path / "data", fewer)
    folders = [
        write_perfect(tmp_path / "a", fewer, "tiny_a", "m"),
        write_submission(
            tmp_path / "b", header(fewer, "tiny_b", "m"), [{**p, "boxes": []} for p in perfect(fewer, "tiny_b")]
        ),
    ]
    report = compare_scores([score_submissions(folders, open_folder(data), **FAST)], **FAST)
    found = {(r.aggregate.level, r.aggregate.group): r.aggregate for r in report.rows if r.name == "m"}
    assert found["all", ""].values["iou"].value == pytest.approx(24 / 32)
    assert found["macro", ""].values["iou"].value == pytest.approx(0.5)
    assert found["macro", ""].values["iou"].low == pytest.approx(0.5)
    assert found["lvlm", "tiny_a"].values["iou"].value == 1
    assert found["dataset_macro", "imagenome"].values["iou"].value == pytest.approx(0.5)


def test_comparison_of_methods(scored: ScoreFile) -> None:
    report = compare_scores([scored], **FAST)
    names = {row.name: row.kind for row in report.rows}
    ceilings = dict.fromkeys(("tiles", "pixels"), "ceiling")
    assert names == {**dict.fromkeys(CHANCE_ROWS, "chance"), **ceilings, "oracle": "method", "shift": "method"}
    pairs = {p.metric: p for p in report.pairs}
    assert set(pairs) == set(METRICS)
    beaten = {(p.metric, p.result.first): p.result for p in report.against_chance}
    assert set(beaten) == {(m, name) for m in METRICS for name in ("oracle", "shift")}
    assert beaten["iou", "oracle"].second.startswith("chance: ")
    assert beaten["iou", "oracle"].p_value == 2 / 2**12
    assert beaten["iou", "oracle"].p_holm == 4 / 2**12
    assert next(r for r in report.rows if r.name == "oracle").aggregate.p_chance == 2 / 2**12
    iou = pairs["iou"]
    assert (iou.records, iou.clusters) == (48, 12)
    by_hand = np.concatenate([1 - s.scores["iou"] for s in scored.submissions[2:]]).mean()
    assert iou.result.difference.value == pytest.approx(by_hand)
    assert iou.result.p_holm < 0.05


def test_methods_are_compared_on_the_records_they_share(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    folders = [
        write_perfect(tmp_path / "a", rows, "tiny_a", "first"),
        write_perfect(tmp_path / "b", rows, "tiny_b", "first"),
        write_submission(tmp_path / "c", header(rows, "tiny_b", "second"), shifted(rows, "tiny_b", 40)),
        write_submission(tmp_path / "d", header(rows, "tiny_a", "third"), shifted(rows, "tiny_a", 40)),
    ]
    report = compare_scores([score_submissions(folders, open_folder(dataset), **FAST)], metrics=["iou"], **FAST)
    found = {(p.result.first, p.result.second): p for p in report.pairs}
    assert set(found) == {("first", "second"), ("first", "third")}  # second and third share no record
    assert all(p.records == 24 for p in report.pairs)
    assert all(p.result.p_holm >= p.result.p_value for p in report.pairs)


def test_files_that_do_not_belong_together(scored: ScoreFile, tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="twice"):
        compare_scores([scored, scored], **FAST)
    rows = make_rows(6, seed=9)
    data = write_folder(tmp_path / "data", rows)
    other = score_submissions([write_perfect(tmp_path / "sub", rows, method="x")], open_folder(data), **FAST)
    with pytest.raises(ScoringError, match="another dataset"):
        compare_scores([scored, other], **FAST)


# --- commands


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_commands(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    good = write_perfect(tmp_path / "good", rows)
    shift = write_submission(tmp_path / "shift", header(rows, method="shift"), shifted(rows, "tiny_a", 60))
    result = run("validate", good, "--dataset", dataset, "--config", "direct")
    assert result.exit_code == 0
    assert result.stdout.startswith("valid: 24 rows, 0 faults")
    out = tmp_path / "scores.json"
    result = run("score", good, shift, "--dataset", dataset, "--out", out, "--resamples", 200)
    assert result.exit_code == 0, result.output
    for text in ("oracle", "whole image", "random box", "centre prior", "1.000 [0.758, 1.000]", "coverage 1.000"):
        assert text in result.stdout
    table, data = tmp_path / "c.csv", tmp_path / "c.json"
    result = run("compare", out, "--out", table, "--out", data, "--resamples", 200, "--level", "all,dataset,size")
    assert result.exit_code == 0, result.output
    assert "paired differences in iou (Holm over 1)" in result.stdout
    assert "differences in iou from the best chance row (Holm over 2)" in result.stdout
    assert "patients" in result.stdout
    with open(table, newline="") as file:
        lines = list(csv.DictReader(file))
    oracle = next(r for r in lines if r["name"] == "oracle" and r["level"] == "all")
    assert (float(oracle["iou"]), float(oracle["iou_low"]), oracle["records"]) == (1.0, pytest.approx(0.757506), "24")
    saved = json.loads(data.read_text())
    assert {r["name"] for r in saved["rows"]} == {*CHANCE_ROWS, "tiles", "pixels", "oracle", "shift"}
    assert {p["metric"] for p in saved["pairs"]} == set(METRICS)
    with open(tmp_path / "c.pairs.csv", newline="") as file:
        pairs = list(csv.DictReader(file))
    assert [p["family"] for p in pairs] == ["chance"] * 2 * len(METRICS) + ["methods"] * len(METRICS)
    assert {p["clusters"] for p in pairs} == {"12"}


def test_few_patients_are_said_in_every_table(tmp_path: Path) -> None:
    rows = make_rows(8, lvlms=("m",))  # four patients
    data = write_folder(tmp_path / "data", rows)
    folders = [
        write_perfect(tmp_path / "a", rows, "m", "one"),
        write_submission(tmp_path / "b", header(rows, "m", "two"), shifted(rows, "m", 60)),
    ]
    out = tmp_path / "scores.json"
    result = run("score", *folders, "--dataset", data, "--out", out)
    assert result.exit_code == 0, result.output
    assert "too few patients (4)" in result.stdout
    assert "too few patients (2)" in result.stdout  # of one source
    assert "[" not in result.stdout.replace("[dim]", "")
    result = run("compare", out, "--out", tmp_path / "c.json")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("too few patients (4)") == 2 + 2 * 2 + 2  # a cell per method and test
    saved = json.loads((tmp_path / "c.json").read_text())
    assert {p["p_value"] for p in saved["pairs"]} == {None}
    assert {p["clusters"] for p in saved["pairs"]} == {4}
    assert {r["iou_low"] for r in saved["rows"]} == {None}
    assert {r["clusters"] for r in saved["rows"]} == {4, 2, 1, 3} & {r["clusters"] for r in saved["rows"]}


def test_validate_reports_for_machines(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    predictions = perfect(rows)
    predictions[7]["boxes"] = [[1, 2, 3]]
    folder = write_submission(tmp_path / "sub", header(rows), predictions)
    result = run("validate", folder, "--dataset", dataset, "--format", "json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["valid"] is False
    (fault,) = report["faults"]
    assert (fault["line"], fault["id"], fault["field"]) == (8, predictions[7]["id"], "boxes[0]")
    result = run("validate", folder, "--dataset", dataset)
    assert result.exit_code == 1
    assert f"predictions.jsonl:8: {predictions[7]['id']}: boxes[0]" in result.stdout
    small = write_submission(tmp_path / "odd", header(rows), [{**p, "colour": 1} for p in perfect(rows)])
    assert run("validate", small, "--dataset", dataset).exit_code == 0
    assert run("validate", small, "--dataset", dataset, "--strict").exit_code == 1


def test_commands_refuse_with_our_errors(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    good = write_perfect(tmp_path / "good", rows)
    (tmp_path / "empty").mkdir()
    for arguments in (
        ("validate", tmp_path / "nowhere"),
        ("validate", good, "--dataset", tmp_path),
        ("score", good, "--dataset", tmp_path / "nowhere"),
        ("score", tmp_path / "empty", "--dataset", dataset),
        ("compare", tmp_path / "none.json"),
        ("compare", good / "submission.json"),
        ("compare", good / "submission.json", "--metric", "dice"),
        ("compare", good / "submission.json", "--out", tmp_path / "x.txt"),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, MedGroundError), arguments


def test_the_order_of_a_file_does_not_matter(rows: list[Row], dataset: Path, tmp_path: Path) -> None:
    """Rows are read one by one; only in the dataset's order is a record's place known without a look."""
    folder = open_folder(dataset)
    said = shifted(rows, "tiny_a", 30)
    said[5]["fallback"] = True
    found = []
    for k, mixed in enumerate((said, said[::-1], said[3:] + said[:3])):
        submission = write_submission(tmp_path / str(k), header(rows), mixed)
        (one,) = score_submissions([submission], folder, **FAST).submissions  # type: ignore[arg-type]
        found.append({name: column.tolist() for name, column in one.scores.items()})
    assert found[0]["fallback"].index(1.0) == 5
    assert found[0] == found[1] == found[2]


@pytest.mark.heavy
def test_memory_does_not_follow_the_rows(tmp_path: Path) -> None:
    """A row keeps its scores, an id and few numbers more; as objects it kept over 1 and 2.5 thousand bytes."""
    counts = (25_000, 55_000)  # the boxes whose coordinates are looked at are 20,000 at most
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_rows", "--out", tmp_path / "rows", "--rows", *map(str, counts)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    peaks = {(command, int(rows.replace(",", ""))): float(peak) for rows, command, _, _, peak in cells}
    growth = {name: (peaks[name, 55_000] - peaks[name, 25_000]) * 2**20 / 30_000 for name in ("validate", "score")}
    assert 0 < growth["validate"] < 800
    assert 0 < growth["score"] < 1400
