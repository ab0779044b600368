"""Wrong turns that users took: each ends where it should, or says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medground_bench.dataset.folder import open_folder
from medground_bench.scoring import read_scores
from medground_bench.sources import open_source
from tests.cli.conftest import LVLM, Places, Run, submit


def test_validate_takes_a_parent_and_the_file_itself(run: Run, inputs: Places, tmp_path: Path) -> None:
    code, out, _ = run("validate SUBS --dataset DATASET")
    assert (code, "4 of 4 submissions are valid" in out) == (0, True)
    code, out, _ = run(f"validate SUBS/{LVLM}/direct/whole/predictions.jsonl --dataset DATASET --format json")
    assert (code, json.loads(out)["valid"]) == (0, True)
    code, out, _ = run(f"validate SUBS/{LVLM}/direct SUBS/{LVLM}/direct/whole --format json")
    assert [one["valid"] for one in json.loads(out)] == [True, True], "a submission given twice counts once"
    (tmp_path / "empty").mkdir()
    for what, said in (("empty", "no submission here"), ("nowhere", "no such folder"), ("DATASET", "as --dataset")):
        code, _, err = run(f"validate {what}")
        assert (code, said in err) == (1, True)


def test_one_faulty_submission_of_a_parent_makes_it_not_valid(run: Run, inputs: Places, tmp_path: Path) -> None:
    shutil.copytree(inputs.submissions, tmp_path / "mine")
    (tmp_path / "mine" / LVLM / "direct" / "whole" / "submission.json").unlink()
    code, out, _ = run("validate mine --dataset DATASET")
    assert (code, "3 of 4 submissions are valid" in out, "the file is missing" in out) == (1, True, True)


def test_a_header_without_mode(run: Run, inputs: Places, tmp_path: Path) -> None:
    header = submit(tmp_path / "modeless", open_folder(inputs.dataset, "direct"), "whole") / "submission.json"
    header.write_text(json.dumps({k: v for k, v in json.loads(header.read_text()).items() if k != "mode"}))
    code, out, err = run("validate modeless --dataset DATASET")
    assert code == 1
    assert "mode: is missing" in out.replace("submission.json: ", "")
    assert "ids and boxes are not checked" in out
    assert not err
    code, _, err = run("score modeless --dataset DATASET")
    assert (code, "mode is missing" in err) == (1, True)
    code, out, _ = run("validate modeless --dataset DATASET --config direct")
    assert "are not checked" not in out


def test_score_finds_the_config_of_each_mode(run: Run, inputs: Places, tmp_path: Path) -> None:
    code, _, err = run(f"score SUBS/{LVLM}/reason/whole --dataset DATASET --resamples 100")
    assert code == 0, err
    assert read_scores(tmp_path / "scores.json").config == "reason"
    code, _, err = run("score SUBS --dataset DATASET --resamples 100 --out both/s.json")
    assert code == 0, err
    for mode in ("direct", "reason"):
        assert {s.method for s in read_scores(tmp_path / "both" / f"s.{mode}.json").submissions} == {"whole", "other"}
    # And the folder of what was written is taken where score files are.
    assert run("compare both --resamples 100")[0] == 0
    code, _, err = run("report SUBS --dataset DATASET --scores both --records 1 --out r.html")
    assert code == 0, err
    assert run("leaderboard both --out board.html")[0] == 0


def test_a_leaderboard_of_submissions_is_refused_and_nothing_is_overwritten(run: Run, tmp_path: Path) -> None:
    (tmp_path / "board.html").write_text("the old one")
    for command in ("leaderboard SUBS --out board.html", "compare SUBS"):
        code, _, err = run(command)
        assert (code, "no score file here, but submissions" in err, "medground-bench score" in err) == (1, True, True)
    assert (tmp_path / "board.html").read_text() == "the old one"
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "s.json").write_text('{"kind": "medground-bench scores", "format": 1}')
    code, _, err = run("leaderboard damaged --out board.html")
    assert (code, "none of the score files can be shown" in err) == (1, True)
    assert (tmp_path / "board.html").read_text() == "the old one"


def test_a_dry_run_writes_nothing(run: Run, tmp_path: Path) -> None:
    code, _, err = run(
        f"submit SUBS/{LVLM}/direct/whole --dataset DATASET --repo a/b --dry-run --write-eval-results e --benchmark a/b"
    )
    assert code == 0, err
    assert "would write" in err
    assert list(tmp_path.iterdir()) == []
    code, _, err = run(f"submit SUBS/{LVLM} --dataset DATASET --repo a/b --dry-run")
    assert (code, "4 submissions are here" in err) == (1, True)


def test_no_folder_is_made_at_the_root(run: Run) -> None:
    code, _, err = run(f"report SUBS/{LVLM}/direct --dataset DATASET --records 1 --out /no-such-folder-here/r.html")
    assert (code, "none is made at the root" in err, "/no-such-folder-here" in err) == (1, True, True)
    assert not Path("/no-such-folder-here").exists()


def test_phantom_says_which_images_have_no_candidate(run: Run) -> None:
    code, out, err = run("phantom --out p --count 6 --size 112")
    assert code == 0, err
    normal = 6 - len({c.image_id for c in open_source("phantom", "p")})
    assert normal >= 1
    assert f"6 images ({normal} without a finding" in out


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("scor x", "Did you mean 'score'"),
        ("compare x --metrc iou", "--metric"),
        ("sources nih", "did you mean 'nih_cxr14'"),
        ("filter --lvlm toy_qwen --source phantm=x --out v", "did you mean 'phantom'"),
        ("generate --dataset DATASET --lvlm toy_qwen --method oclusion --out o", "did you mean 'occlusion'"),
        ("generate --dataset DATASET --lvlm toy_qwen --method occlusion --set rws=3 --out o", "did you mean 'rows'"),
        (
            "generate --dataset DATASET --config drect --lvlm toy_qwen --method occlusion --out o",
            "did you mean 'direct'",
        ),
        ("generate --dataset DATASET --lvlm toy_qwn --method occlusion --out o", "did you mean 'toy_qwen'"),
        ("generate --dataset DATASET --lvlm toy_qwen --method occlusion,lrp --name x --out o", "one --method"),
        ("phantom --layout nih_cxr --out p", "did you mean 'nih_cxr14'"),
        ("build --config candidate --source phantom=x", "did you mean 'candidates'"),
    ],
)
def test_what_was_meant_is_guessed(run: Run, command: str, said: str) -> None:
    code, _, err = run(command)
    assert code in (1, 2)
    assert said in " ".join(err.replace("│", " ").split())


def test_boxes_of_corner_and_size_are_told_from_reversed_ones(run: Run, inputs: Places, tmp_path: Path) -> None:
    records = open_folder(inputs.dataset, "direct")
    target = submit(tmp_path / "xywh", records, "xywh")
    rows = [{"id": r.id, "boxes": [[60, 70, 30, 20]]} for r in records]
    (target / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _, out, _ = run("validate xywh --dataset DATASET")
    assert "write [x, y, x + width, y + height]" in out
    (target / "predictions.jsonl").write_text(json.dumps({"id": records[0].id, "boxes": [[110, 100, 20, 30]]}) + "\n")
    _, out, _ = run("validate xywh --dataset DATASET")
    assert "order it x1 < x2" in out
    assert "x + width" not in out, "as corner and size it would leave the image: it is reversed"
