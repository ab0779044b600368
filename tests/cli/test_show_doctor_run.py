"""``show``, ``doctor``, ``run`` and the exports of ``compare``, ``score`` and ``report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from medground_bench.dataset.folder import open_folder
from tests.cli.conftest import LVLM, Places, Run


def test_show(run: Run, inputs: Places, tmp_path: Path) -> None:
    record = open_folder(inputs.dataset, "reason")[0]
    code, out, err = run(f"show {record.id}x --dataset DATASET")
    assert (code, "no record has" in err) == (1, True)
    ending = "/".join(record.id.split("/")[1:])
    code, out, err = run(f"show {ending} --dataset DATASET --submission SUBS/{LVLM}/reason --out r.png")
    assert code == 0, err
    for said in (record.id, record.question, record.image_id, "whole        1 boxes, IoU 0.", "is not known"):
        assert said in out
    for name in ("r.whole.png", "r.other.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width >= record.width
    source = inputs.dataset.parent / "source"
    code, out, err = run(f"show {ending} --dataset DATASET --submission SUBS/{LVLM}/reason --source phantom={source}")
    assert code == 0, err
    assert "% of the evidence lies" in out
    assert "% of the boxes' area lies elsewhere" in out
    code, _, err = run("show nodule --dataset DATASET")
    assert (code, "records have 'nodule' in their id" in err) == (1, True)


def test_doctor(run: Run) -> None:
    code, out, _ = run("doctor --format json")
    assert code == 0
    found = json.loads(out)
    assert found["extras"]["core"] == "installed"
    assert {"versions", "device", "methods", "weights", "caches", "free space"} <= set(found)
    assert found["weights"]["toy_qwen"] == "ships"
    assert found["methods"]["usable"] >= 20
    code, out, _ = run("doctor")
    assert "free space" in out


def test_a_run_file_runs_and_is_recorded(run: Run, inputs: Places, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "steps:\n"
        f"  - validate: {{submissions: {inputs.submissions}, dataset: {inputs.dataset}, strict: false}}\n"
        f"  - score:\n      submissions: [{inputs.submissions}/{LVLM}/direct]\n      dataset: {inputs.dataset}\n"
        "      resamples: 100\n      out: [scores.json, scores.md]\n      no_heatmaps: true\n"
        "  - compare: {scores: scores.json, resamples: 100, level: all}\n"
    )
    code, out, err = run("run study.yaml --check")
    assert code == 1
    assert "no option 'no_heatmaps'" in err
    (tmp_path / "study.yaml").write_text(
        (tmp_path / "study.yaml").read_text().replace("no_heatmaps: true", "heatmaps: false")
    )
    code, out, err = run("run study.yaml --check")
    assert code == 0, err
    assert len(out.splitlines()) == 3
    assert "--no-heatmaps" in out
    assert not (tmp_path / "scores.json").exists()
    code, out, err = run("run study.yaml")
    assert code == 0, err
    assert (tmp_path / "scores.json").is_file()
    assert "| direct | all records |" in (tmp_path / "scores.md").read_text()
    record = json.loads((tmp_path / "study.yaml.record.json").read_text())
    assert [step["outcome"] for step in record["steps"]] == ["done"] * 3
    assert record["steps"][1]["options"]["resamples"] == 100
    assert record["steps"][1]["options"]["tolerance"] == 0.05, "defaults are recorded, too"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("steps: []", "this is no run file"),
        ("steps: [scor: {}]", "did you mean 'score'"),
        ("steps: [run: {file: x}]", "there is no command 'run'"),
        ("steps: [compare: {scores: x, metrc: iou}]", "did you mean 'metric'"),
        ("steps: [compare: {scores: x, resamples: 3}]", "step 1 (compare)"),
        ("steps: [compare: {}]", "step 1 (compare)"),
        ("steps: [{phantom: {out: p, count: 1}, compare: {}}]", "a step is one command"),
        ("steps: [compare: {scores: x, scores: y}]", "is there twice"),
        ("steps: {", "this is not YAML"),
        ("steps: [compare: {scores: !!python/object/apply:os.system [x]}]", "this is not YAML"),
    ],
)
def test_a_wrong_run_file_runs_nothing(run: Run, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "f.yaml").write_text(text)
    code, _, err = run("run f.yaml")
    assert (code, said in err) == (1, True), err
    assert [p.name for p in tmp_path.iterdir()] == ["f.yaml"]


def test_a_step_that_fails_ends_the_run_and_is_recorded(run: Run, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(
        "steps:\n  - compare: {scores: nothing.json}\n  - compare: {scores: nothing.json}\n"
    )
    code, _, err = run("run f.yaml")
    assert (code, "there is no such file or folder" in err) == (1, True)
    record = json.loads((tmp_path / "f.yaml.record.json").read_text())
    assert [step["outcome"] for step in record["steps"]] == ["failed"]


def test_exports(run: Run, tmp_path: Path) -> None:
    code, _, err = run(
        f"score SUBS/{LVLM}/direct --dataset DATASET --resamples 100 --out s.json --out s.tex --out s.svg"
    )
    assert code == 0, err
    assert r"\toprule" in (tmp_path / "s.tex").read_text()
    code, out, err = run("compare s.json --resamples 100 --out c.md --out c.csv --out c.pdf --published")
    assert code == 0, err
    assert (tmp_path / "c.pairs.csv").is_file()
    assert "gradcam++, imagenome, direct: iou 0.3054" in out
    assert "Rethinking Visual Attribution" in out
    code, _, err = run(f"report SUBS/{LVLM}/direct --dataset DATASET --scores s.json --out r.html --out r.csv")
    assert code == 0, err
    assert (tmp_path / "r.html").is_file()
    assert "centre_prior" in (tmp_path / "r.csv").read_text()
    code, _, err = run("compare s.json --out c.docx")
    assert (code, "no format" in err) == (1, True)
