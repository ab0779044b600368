"""Submit: what reaches the hub, and above all what does not; results in the Hub's own format."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medground_bench.core.errors import BuildError, PublishError, SubmissionError
from medground_bench.core.schema import masked_id
from medground_bench.dataset.columns import row_digests
from medground_bench.dataset.folder import DatasetFolder, open_folder
from medground_bench.dataset.masking import dataset_key
from medground_bench.pages.leaderboard.app import ingest
from medground_bench.scoring import score_submissions
from medground_bench.scoring.eval_results import write_eval_results
from medground_bench.submission import validate_submission, write_submission
from medground_bench.submission.submit import Handover, outgoing_copy, repository_folder, restored_ids, submit
from tests.local_hub import LocalHub
from tests.scoring.folders import header, make_rows, perfect, write_folder

REPO = "lab/results"
SECRET = "small left effusion, as compared with the prior study"


def make(root: Path, sources: tuple[str, ...]) -> tuple[DatasetFolder, Path, list[dict[str, Any]]]:
    """A dataset of these sources, and a submission whose rows carry everything a row can."""
    rows = make_rows(4, lvlms=("tiny_a",))
    for k, row in enumerate(rows):
        old, row["dataset"] = row["dataset"], sources[k % len(sources)]
        row["id"] = row["id"].replace(f"/{old}/", f"/{row['dataset']}/")
    dataset = open_folder(write_folder(root / "dataset", rows), "direct")
    answers = []
    for k, row in enumerate(perfect(rows)):
        heat = root / "submission" / "heatmaps" / f"{row['id'].replace('/', '_')}.npy"
        heat.parent.mkdir(parents=True, exist_ok=True)
        np.save(heat, np.full((8, 8), k, np.float32))
        answers.append(
            {
                **row,
                "concept": "left lung",
                "concept_scores": {"left lung": 1.0, "right lung": 0.5},
                "tokens": [0.5, 0.25],
                "fallback": False,
                "heatmap": f"heatmaps/{heat.name}",
                "extras": {"token_texts": [SECRET, "."], "reply": SECRET},
                "error": SECRET,
                "note": SECRET,
            }
        )
    settings = {"frame_side": 224, "atlas": "/home/alice/pools/atlas", "nested": [{"pool": "C:\\Users\\alice\\p.npz"}]}
    facts = header(rows, method="grad cam/++", settings=settings, hostname="alice-laptop")
    submission = write_submission(root / "submission", facts, answers)
    (submission / "radiograph.png").write_bytes(b"\x89PNG image")
    (submission / "heatmaps" / "stray.npy").write_bytes(b"image")
    return dataset, submission, rows


@pytest.fixture
def closed(tmp_path: Path) -> tuple[DatasetFolder, Path, list[dict[str, Any]]]:
    return make(tmp_path, ("imagenome",))


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[DatasetFolder, Path, list[dict[str, Any]]]:
    return make(tmp_path, ("phantom", "imagenome"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with LocalHub() as server:
        server.add("dataset", REPO)
        yield server


def send(hub: LocalHub, submission: Path, dataset: DatasetFolder, **options: Any) -> Handover:
    return submit(submission, REPO, dataset, endpoint=hub.url, token=hub.token, **options)


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def test_opens_a_pull_request_with_two_files(hub: LocalHub, mixed: Any) -> None:
    dataset, submission, _ = mixed
    before = {p: p.read_bytes() for p in submission.rglob("*") if p.is_file()}
    done = send(hub, submission, dataset)
    repository = hub.dataset(REPO)
    assert repository.pull_requests == ["Submit grad cam/++ for tiny_a, direct"]
    assert done.url == f"{hub.url}/datasets/{REPO}/discussions/1"
    folder = "submissions/tiny_a/direct/grad_cam_++"
    assert set(repository.revisions["refs/pr/1"]) == {f"{folder}/submission.json", f"{folder}/predictions.jsonl"}
    assert repository.files == {}, "nothing goes to main"
    assert {p: p.read_bytes() for p in submission.rglob("*") if p.is_file()} == before


def test_texts_images_and_ids_of_credentialed_records_stay(hub: LocalHub, closed: Any) -> None:
    dataset, submission, rows = closed
    done = send(hub, submission, dataset, heatmaps=True)
    sent = hub.dataset(REPO).revisions["refs/pr/1"]
    everything = b"".join(sent.values()) + json.dumps([r.body for r in hub.requests]).encode()
    assert set(done.files) == set(sent)
    assert all(name.endswith(("submission.json", "predictions.jsonl")) for name in sent), "no heat map: it may show it"
    for secret in (SECRET, "PNG", "/home/alice", "Users", "alice-laptop", *(row["id"] for row in rows)):
        assert secret.encode() not in everything
    assert not any(row["image_id"].encode() in everything for row in rows)
    (predictions,) = (lines(data) for name, data in sent.items() if name.endswith("jsonl"))
    assert predictions == [
        {
            "id": masked_id(row["id"], dataset_key(dataset)),
            "boxes": row["boxes"],
            "concept": "left lung",
            "concept_scores": {"left lung": 1.0, "right lung": 0.5},
            "tokens": [0.5, 0.25],
            "fallback": False,
        }
        for row in rows
    ]
    (facts,) = (json.loads(data) for name, data in sent.items() if name.endswith("submission.json"))
    assert facts["settings"] == {"frame_side": 224, "atlas": "atlas", "nested": [{"pool": "p.npz"}]}
    assert facts["method"] == "grad cam/++"
    assert done.left_out["heat map of a credentialed image"] == 4
    assert done.left_out["extras of a credentialed record"] == 4


def test_open_records_keep_their_texts_and_on_wish_their_maps(hub: LocalHub, mixed: Any) -> None:
    dataset, submission, rows = mixed
    send(hub, submission, dataset, heatmaps=True)
    sent = hub.dataset(REPO).revisions["refs/pr/1"]
    maps = sorted(name for name in sent if name.endswith(".npy"))
    assert [name.rsplit("/", 2)[1:] for name in maps] == [["heatmaps", "000000.npy"], ["heatmaps", "000001.npy"]]
    assert not any(b"stray" in name.encode() or b"PNG" in data for name, data in sent.items())
    (predictions,) = (lines(data) for name, data in sent.items() if name.endswith("jsonl"))
    assert [("extras" in row, "heatmap" in row) for row in predictions] == [(True, True), (False, False)] * 2
    assert predictions[0]["id"] == rows[0]["id"]
    assert not any("note" in row for row in predictions)


def test_free_text_in_the_place_of_concepts_stays(closed: Any, tmp_path: Path) -> None:
    dataset, _, rows = closed
    answers = [{**row, "concept": SECRET, "concept_scores": {SECRET: 1.0}} for row in perfect(rows)]
    submission = write_submission(tmp_path / "free", header(rows), answers)
    outgoing_copy(submission, dataset, tmp_path / "copy")
    assert SECRET not in (tmp_path / "copy" / "predictions.jsonl").read_text()


def test_the_copy_can_be_scored_by_who_holds_the_dataset(hub: LocalHub, mixed: Any, tmp_path: Path) -> None:
    dataset, submission, _ = mixed
    send(hub, submission, dataset, heatmaps=True)
    repository = hub.dataset(REPO)
    repository.merge(1)
    clone = tmp_path / "clone"
    for name, data in repository.files.items():
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes(data)
    copy = clone / "submissions" / "tiny_a" / "direct" / "grad_cam_++"
    assert not validate_submission(copy, dataset).valid
    with restored_ids(copy, dataset) as restored:
        assert validate_submission(restored, dataset).valid
        ours = score_submissions([restored], dataset, resamples=100).submissions[0]
    theirs = score_submissions([submission], dataset, resamples=100).submissions[0]
    np.testing.assert_array_equal(ours.scores["iou"], theirs.scores["iou"])
    # The name cannot be shown on a leaderboard as it is: refused there, and named.
    _, refused = ingest(clone, tmp_path / "results", dataset.path, resamples=100)
    assert refused == ["submissions/tiny_a/direct/grad_cam_++: submission.json: method 'grad cam/++' cannot be shown"]
    facts = json.loads((copy / "submission.json").read_text())
    (copy / "submission.json").write_text(json.dumps({**facts, "method": "labcam"}))
    receipts, refused = ingest(clone, tmp_path / "results", dataset.path, resamples=100)
    assert [(r.method, r.iou and r.iou[0]) for r in receipts] == [("labcam", None)], (
        "four records are too few to be shown"
    )
    assert not refused
    again, refused = ingest(clone, tmp_path / "results", dataset.path, resamples=100)
    assert not again
    assert "already" in refused[0]


def test_the_dictionary_attack_on_what_is_sent_recovers_nothing(closed: Any, tmp_path: Path) -> None:
    """All images, findings and LVLMs are known to the attacker, everything that was sent, and the code."""
    dataset, submission, rows = closed
    outgoing_copy(submission, dataset, tmp_path / "copy")
    sent = {row["id"] for row in lines((tmp_path / "copy" / "predictions.jsonl").read_bytes())}
    guesses = {row["id"] for row in rows}
    keys = [b"", dataset.fingerprint.encode(), bytes.fromhex(dataset.fingerprint.removeprefix("sha256:"))]
    keys += [b"".join(row_digests([{**row, "boxes": [], "response": "Yes"} for row in rows]))]
    assert not {hashlib.sha256(g.encode()).hexdigest() for g in guesses} & {s.split(":")[1] for s in sent}
    assert not {masked_id(g, key) for g in guesses for key in keys} & sent
    assert {masked_id(g, dataset_key(dataset)) for g in guesses} == sent, "the guesses are right: only the key lacks"


def test_a_dataset_that_contradicts_itself_is_not_sent(tmp_path: Path) -> None:
    """Rows of a credentialed source, relabelled as an open one."""
    rows = make_rows(4, lvlms=("tiny_a",))
    for row in rows:
        row["dataset"] = "phantom"
    dataset = open_folder(write_folder(tmp_path / "dataset", rows), "direct")
    submission = write_submission(tmp_path / "submission", header(rows), perfect(rows))
    with pytest.raises(PublishError, match="does not follow"):
        submit(submission, REPO, dataset, dry_run=True)
    build = json.loads((dataset.path / "build.json").read_text())
    (facts,) = build["configs"]["direct"]["files"].values()
    facts["sha256"] = "0" * 64
    (dataset.path / "build.json").write_text(json.dumps(build))
    with pytest.raises(BuildError, match="damaged"):
        submit(submission, REPO, open_folder(dataset.path, "direct"), dry_run=True)


def test_texts_of_open_records_lose_paths_and_undocumented_keys(tmp_path: Path) -> None:
    dataset, submission, _ = make(tmp_path, ("phantom",))
    answers = [
        {
            **row,
            "error": "cannot open /home/alice smith/x/y.png, nor C:\\Users\\alice\\z; see https://a.org/b",
            "extras": {"reply": "none in ~/notes/b.txt", "cwd": SECRET, "layer": 3},
        }
        for row in lines((submission / "predictions.jsonl").read_bytes())
    ]
    facts = json.loads((submission / "submission.json").read_text())
    facts["authors"] = "Alice, /home/alice/cv.pdf"
    facts["settings"][SECRET] = 1
    write_submission(submission, facts, answers)
    copy = tmp_path / "payload"
    done = submit(submission, REPO, dataset, dry_run=True, payload=copy)
    text = "".join(p.read_text() for p in sorted(copy.rglob("*")) if p.is_file())
    assert not any(word in text for word in ("smith", "Users", "notes", SECRET, "cv.pdf"))
    assert "https://a.org/b" not in text, "what follows a path with spaces is cut with it"
    first = lines((copy / "predictions.jsonl").read_bytes())[0]
    assert first["extras"] == {"reply": "none in [path]", "layer": 3}
    assert sorted(p.name for p in copy.iterdir()) == ["predictions.jsonl", "submission.json"]
    assert [name.rsplit("/", 1)[1] for name in done.files] == ["predictions.jsonl", "submission.json"]
    with pytest.raises(PublishError, match="not empty"):
        submit(submission, REPO, dataset, dry_run=True, payload=copy)


def test_an_invalid_submission_is_not_sent(hub: LocalHub, closed: Any) -> None:
    dataset, submission, rows = closed
    (submission / "predictions.jsonl").write_text(json.dumps({"id": rows[0]["id"], "boxes": [[9, 9, 1, 1]]}) + "\n")
    with pytest.raises(SubmissionError, match=r"not valid: 4 faults") as caught:
        send(hub, submission, dataset)
    assert "reversed" in str(caught.value)
    assert not hub.requests


def test_a_dry_run_sends_nothing(hub: LocalHub, closed: Any) -> None:
    dataset, submission, _ = closed
    done = send(hub, submission, dataset, dry_run=True)
    assert (done.url, len(done.files)) == ("", 2)
    assert not hub.requests


@pytest.mark.parametrize("repo", ["results", "a/b/c", "../x", "a/..", "http://x/y", ""])
def test_what_is_no_repository_is_refused(closed: Any, repo: str) -> None:
    dataset, submission, _ = closed
    with pytest.raises(PublishError, match="not a repository"):
        submit(submission, repo, dataset)


def test_a_missing_repository_or_login_is_explained(hub: LocalHub, closed: Any) -> None:
    dataset, submission, _ = closed
    with pytest.raises(PublishError, match="refused or could not be reached") as caught:
        submit(submission, "lab/none", dataset, endpoint=hub.url, token=hub.token)
    assert "organisation" in str(caught.value)
    with pytest.raises(PublishError) as caught:
        submit(submission, REPO, dataset, endpoint=hub.url, token="hf_wrong")
    assert "hf auth login" in str(caught.value)


def test_the_path_in_the_repository_is_harmless() -> None:
    names = {"lvlm": "../../org/model", "mode": "direct", "method": "/etc/passwd"}
    assert repository_folder(names) == "submissions/org_model/direct/etc_passwd"
    with pytest.raises(SubmissionError, match="cannot be used in a path"):
        repository_folder({"lvlm": "..", "mode": "direct", "method": "x"})


def test_the_command_prints_the_url(hub: LocalHub, closed: Any, tmp_path: Path) -> None:
    dataset, submission, _ = closed
    command = [sys.executable, "-m", "medground_bench", "submit", str(submission), "--dataset", str(dataset.path)]
    badges = ["--write-eval-results", str(tmp_path / "badges"), "--benchmark", "lab/medground-bench"]
    done = subprocess.run(
        [*command, "--repo", REPO, *badges],
        env={**os.environ, **hub.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/datasets/{REPO}/discussions/1"
    assert "stays here: error of a credentialed record (4)" in done.stderr
    (result,) = yaml.safe_load((tmp_path / "badges/.eval_results/medground_bench_direct_grad_cam_++.yaml").read_text())
    assert result["source"] == {"url": done.stdout.strip()}


def test_results_in_the_hubs_format(closed: Any, tmp_path: Path) -> None:
    try:
        from huggingface_hub import parse_eval_result_entries
    except ImportError:
        pytest.skip("this huggingface_hub has no reader of evaluation results yet")

    dataset, submission, _ = closed
    scores = score_submissions([submission], dataset, resamples=100)
    eval_file, result_file = write_eval_results(scores, "lab/medground-bench", tmp_path)
    assert eval_file == tmp_path / "eval.yaml"
    content = yaml.safe_load(eval_file.read_text())
    assert content["tasks"] == [{"id": "direct", "config": "direct", "split": "test"}]
    (entry,) = parse_eval_result_entries(yaml.safe_load(result_file.read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("lab/medground-bench", "direct", 1.0)
    assert "attribution by grad cam/++; mean IoU of 4 records" in (entry.notes or "")
    assert entry.task_id in {task["id"] for task in content["tasks"]}
    with pytest.raises(PublishError, match="not a repository"):
        write_eval_results(scores, "lab", tmp_path)
