"""A small real chain: phantoms, verdicts, a dataset folder, submissions of several kinds of methods, scores."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medground_bench.attribution.generate import generate
from medground_bench.dataset.folder import DatasetFolder, open_folder
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.write import build_folder
from medground_bench.scoring import ScoreFile, score_submissions
from medground_bench.sources import open_source
from medground_bench.sources.phantom import write_source
from medground_bench.submission import write_submission

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm

HOSTILE = "</script><script>window.evil=1</script><img src=x onerror='window.evil=2'>\"'"
"""A method name and a token text that must stay text."""


@dataclass
class Chain:
    root: Path
    dataset: DatasetFolder
    submissions: list[Path]
    scores: ScoreFile
    verdicts: Path


def write_verdicts(folder: Path, candidates: Any, lvlm: str) -> None:
    """Verdicts in which every candidate but the last passes all gates."""
    yes, no = "Yes.", "No."
    folder.mkdir()
    lines = []
    for k, c in enumerate(candidates):
        kept = k < len(candidates) - 1
        answers = {"original": yes, "foreground": no if kept else yes, "background": yes, "background_normal": yes}
        lines.append(
            {
                "model": lvlm,
                "mode": "direct",
                "dataset": c.dataset,
                "image_id": c.image_id,
                "attribute": c.attribute,
                "ordinal": c.ordinal,
                "index": c.index,
                "gate": None if kept else "foreground",
                "answers": answers,
                "read": {},
                "quality": {},
                "flags": [],
            }
        )
    (folder / "verdicts-00000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_chain(root: Path, lvlm: Lvlm, source: str) -> Chain:
    folder = root / "source"
    write_source(source, folder, 4, size=(256, 200))
    write_verdicts(root / "verdicts", open_source(source, folder), lvlm.key)
    settings = BuildSettings("direct", {source: str(folder)}, records=str(root / "verdicts"))
    path, _ = build_folder(settings, root / "dataset")
    dataset = open_folder(path, "direct")
    done = generate(dataset, lvlm, ["attention"], root / "submissions", authors="A. Tester")
    assert not done.errors
    header = json.loads((done.submissions["attention"] / "submission.json").read_text())
    records = list(dataset)
    concept = [
        {
            "id": record.id,
            "boxes": record.boxes,
            "concept": "left lung",
            "concept_scores": {"right lung": 0.25, "left lung": 1.0, "mediastinum": 0.5},
            "tokens": [0.1, -0.9],
            "fallback": k == 1,
            "extras": {"token_texts": ["Yes", HOSTILE]},
        }
        for k, record in enumerate(records)
    ]
    maps = root / "submissions" / "hostile" / "heatmaps"
    maps.mkdir(parents=True)
    heat = np.zeros((224, 224), np.float32)
    heat[100:150, 20:60] = 1
    np.save(maps / "h.npy", heat)
    hostile = [{"id": r.id, "boxes": [], "heatmap": "heatmaps/h.npy", "error": HOSTILE} for r in records]
    folders = [
        done.submissions["attention"],
        write_submission(root / "submissions" / "oracle", {**header, "method": "oracle"}, concept),
        write_submission(root / "submissions" / "hostile", {**header, "method": HOSTILE, "authors": HOSTILE}, hostile),
    ]
    return Chain(root, dataset, folders, score_submissions(folders, dataset, resamples=200), root / "verdicts")


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, tiny_qwen: Lvlm) -> Chain:
    return make_chain(tmp_path_factory.mktemp("report"), tiny_qwen, "phantom")


@pytest.fixture(scope="session")
def credentialed_chain(tmp_path_factory: pytest.TempPathFactory, tiny_qwen: Lvlm) -> Chain:
    """The same on phantoms in the layout of a credentialed source."""
    return make_chain(tmp_path_factory.mktemp("closed"), tiny_qwen, "vindr_cxr")
