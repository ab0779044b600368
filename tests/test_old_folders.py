"""Folders that version 0.1.0 wrote are read, or refused with what to do.

The lines are what that version wrote (the second verdict a variation of the first). Its score files are in
``tests/scoring/test_run.py``, its runs of ``generate`` in ``tests/attribution/test_generate.py``, its dataset folders
in ``tests/dataset/test_folder.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

from medground_bench.causal.funnel import read_funnel
from medground_bench.causal.verdicts import read_verdicts
from medground_bench.submission import open_submission, validate_submission

KEPT = {
    "model": "toy_qwen",
    "mode": "direct",
    "dataset": "phantom",
    "image_id": "phantom-000-000000",
    "attribute": "aortic enlargement",
    "index": 0,
    "gate": None,
    "verdict": "kept",
    "answers": {"original": "Yes", "foreground": "No", "background": "Yes", "background_normal": "Yes"},
    "read": {"original": "yes", "foreground": "no", "background": "yes", "background_normal": "yes"},
    "quality": {"foreground": {"change": 0.21723, "leakage": 0.0, "leaked": 0.0, "seam": 1.489}},
    "flags": [],
}
FELL = {**KEPT, "attribute": "nodule", "index": 1, "gate": "foreground", "verdict": "foreground"}
HEADER = {
    "method": "occlusion",
    "lvlm": "toy_qwen",
    "lvlm_revision": "sha256:ee927df4e1240263661bdb0907fcdd06bdbd4955caab20599d9e0e5398d07df8",
    "mode": "direct",
    "dataset_fingerprint": "sha256:3dd27fe1f2d24dd9e1dd956357ea6dae188cf676cc11c0bb34a2fc9b101a3fb0",
    "settings": {"rows": 8, "cols": 8, "fill": 0, "frame_side": 224, "dtype": "float32", "limit": None},
    "seed": None,
    "versions": {"python": "3.11.7", "medground-bench": "0.1.0"},
    "authors": "medground-bench demo",
    "licence": "Apache-2.0",
    "created": "2026-11-25T11:13:11+00:00",
}
ROW = {
    "id": "toy_qwen/direct/phantom/phantom-000-000000/aortic enlargement",
    "boxes": [[162.286, 64.0, 352.0, 249.143], [409.143, 118.857, 429.714, 137.143]],
    "fallback": False,
    "degenerate": False,
}


def test_verdicts(tmp_path: Path) -> None:
    answers = {**KEPT["answers"], "foreground": "Yes"}  # type: ignore[dict-item]
    lines = [KEPT, {**FELL, "answers": answers, "read": {**KEPT["read"], "foreground": "yes"}}]  # type: ignore[dict-item]
    (tmp_path / "verdicts-00000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = read_verdicts(tmp_path)
    assert (first.model, first.attribute, first.gate) == ("toy_qwen", "aortic enlargement", None)
    assert (second.attribute, second.gate) == ("nodule", "foreground")
    (row,) = read_funnel([tmp_path], "lvlm")
    assert [count for _, count in row.steps()] == [2, 2, 1, 1, 1]


def test_submissions(tmp_path: Path) -> None:
    (tmp_path / "submission.json").write_text(json.dumps(HEADER))
    (tmp_path / "predictions.jsonl").write_text(json.dumps(ROW) + "\n")
    report = validate_submission(tmp_path)
    assert report.valid, report.faults
    (prediction,) = open_submission(tmp_path)
    assert prediction.id == ROW["id"]
    assert [list(box) for box in prediction.boxes] == ROW["boxes"]
