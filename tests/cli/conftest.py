"""A dataset of two configs with submissions for both, and commands run in an empty folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from medground_bench import cli
from medground_bench.dataset.folder import DatasetFolder, open_folder
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.write import build_folder
from medground_bench.sources import open_source
from medground_bench.sources.phantom import write_source
from medground_bench.submission import write_submission
from tests.pages.report.conftest import write_verdicts

LVLM = "toy_qwen"
Run = Callable[[str], tuple[int, str, str]]


@dataclass(frozen=True)
class Places:
    dataset: Path
    submissions: Path


def submit(folder: Path, records: DatasetFolder, method: str) -> Path:
    header = {
        "method": method,
        "lvlm": LVLM,
        "mode": records.config,
        "lvlm_revision": "x",
        "dataset_fingerprint": records.fingerprint,
        "settings": {},
        "seed": 0,
        "versions": {},
        "authors": "A. Tester",
        "licence": "CC-BY-4.0",
        "created": "2026-01-01T00:00:00+00:00",
    }
    rows = [{"id": r.id, "boxes": [[0, 0, r.width, r.height]]} for r in records]
    return write_submission(folder, header, rows)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Places:
    """A dataset of two configs, and submissions for both at LVLM/MODE/METHOD."""
    root = tmp_path_factory.mktemp("inputs")
    source = write_source("phantom", root / "source", 3, size=112, findings=["nodule"]).root
    write_verdicts(root / "direct", open_source("phantom", source), LVLM)
    text = (root / "direct" / "verdicts-00000.jsonl").read_text()
    (root / "reason").mkdir()
    (root / "reason" / "verdicts-00000.jsonl").write_text(text.replace('"mode": "direct"', '"mode": "reason"'))
    for mode in ("direct", "reason"):
        build_folder(BuildSettings(mode, {"phantom": str(source)}, records=str(root / mode)), root / "dataset")
        records = open_folder(root / "dataset", mode)
        for method in ("whole", "other"):
            submit(root / "submissions" / LVLM / mode / method, records, method)
    return Places(root / "dataset", root / "submissions")


@pytest.fixture
def run(inputs: Places, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in an empty folder; exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(text: str) -> tuple[int, str, str]:
        words = [
            w.replace("DATASET", str(inputs.dataset)).replace("SUBS", str(inputs.submissions)) for w in text.split()
        ]
        monkeypatch.setattr(sys, "argv", ["medground-bench", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call
