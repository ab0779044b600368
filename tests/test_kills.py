"""build, generate, filter and score, killed at every renaming: the old state or the new one, and nothing hidden stays.

The runs are forked from this process and die by SIGKILL at a renaming that is counted, not met by luck.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.attribution.test_generate import Folder
from tests.causal.planted import Whimsical
from tests.faults import every_kill, hidden, run_killed_at
from tests.handmade import write_nih
from tests.scoring.folders import header as submission_header
from tests.scoring.folders import make_rows, write_folder

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def contents(folder: Path, *without: str) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.suffix not in (".lock", ".part") and not any(name in p.parts for name in without)
    }


def without_seconds(files: dict[str, bytes]) -> dict[str, bytes]:
    """The journals of a run say how long each record took: never twice the same."""
    return {
        name: re.sub(rb'"seconds": [0-9.e-]+', b'"seconds": 0', data) if name.endswith(".jsonl") else data
        for name, data in files.items()
    }


def count(run: Callable[[], Any]) -> int:
    renamings = run_killed_at(0, "before", run)
    assert isinstance(renamings, int)
    return renamings


def test_build(tmp_path: Path) -> None:
    from medground_bench.dataset.folder import open_folder
    from medground_bench.dataset.plan import BuildSettings
    from medground_bench.dataset.write import build_folder

    write_nih(tmp_path / "nih", [f"{i:08d}_000.png,Mass,1,1,9,9" for i in range(4)])
    place, out = tmp_path / "place", tmp_path / "place" / "out"

    def build(side: int) -> Callable[[], Any]:
        settings = BuildSettings("candidates", {"nih_cxr14": str(tmp_path / "nih")}, max_side=side)
        return lambda: build_folder(settings, out, shard_bytes=1)

    build(8)()
    (out / "mine.txt").write_text("the user's own")
    old = contents(out)
    shutil.copytree(place, tmp_path / "before")
    renamings = count(build(16))
    assert renamings >= 3  # the shard, the config, the exchange
    seen = set()
    for _ in every_kill(build(16), renamings):
        # Whoever opens the folder after the kill finds one that is whole, before any other run.
        folder = open_folder(out)
        folder.verify()
        width = next(iter(folder)).width
        seen.add(width)
        assert (width == 8) == (contents(out) == old)
        assert (out / "mine.txt").read_text() == "the user's own"
        count(build(16))  # the next run
        assert next(iter(open_folder(out))).width == 16
        assert os.listdir(place) == ["out"]
        assert hidden(place) == []
        shutil.rmtree(place)
        shutil.copytree(tmp_path / "before", place)
    assert seen == {8, 16}


def test_build_without_an_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two folders cannot be exchanged, there is a moment without one: the next start closes it."""
    from medground_bench.core import files
    from medground_bench.dataset.folder import open_folder
    from medground_bench.dataset.plan import BuildSettings
    from medground_bench.dataset.write import build_folder

    monkeypatch.setattr(files, "_renameat2", lambda: None)
    write_nih(tmp_path / "nih", ["00000001_000.png,Mass,1,1,9,9"])
    place, out = tmp_path / "place", tmp_path / "place" / "out"

    def build(side: int) -> Callable[[], Any]:
        settings = BuildSettings("candidates", {"nih_cxr14": str(tmp_path / "nih")}, max_side=side)
        return lambda: build_folder(settings, out)

    build(8)()
    (out / "mine.txt").write_text("the user's own")
    gaps = 0
    for _ in every_kill(build(16), count(build(8))):
        gaps += not out.exists()
        open_folder(out).verify()  # opening the folder is a start, too
        assert (out / "mine.txt").read_text() == "the user's own"
        count(build(8))
        assert os.listdir(place) == ["out"]
    assert gaps == 2  # after the first of the two renamings, before the second: the same moment


def test_generate(tmp_path: Path, tiny_qwen: Lvlm) -> None:
    from medground_bench.attribution.generate import generate
    from medground_bench.attribution.method import Attribution, method
    from medground_bench.submission import validate_submission

    @method("bright", family="test")
    def bright(lvlm: Any, episode: Any, parameters: Any) -> Attribution:
        return Attribution(boxes=[(1, 2, 30, 50)], heatmap=np.asarray(episode.frame_array, float))

    out, folder = tmp_path / "out", Folder(tiny_qwen.key)

    def run() -> None:
        generate(folder, tiny_qwen, [bright], out, limit=2)  # type: ignore[arg-type]

    run()
    new = without_seconds(contents(out, "submission.json"))
    shutil.rmtree(out)
    renamings = count(run)
    shutil.rmtree(out)
    assert renamings == 6  # two settings, two heat maps, predictions, header
    for _ in every_kill(run, renamings):
        submission = out / tiny_qwen.key / "direct" / "bright"
        if (submission / "submission.json").exists():  # a folder that has it is complete
            assert validate_submission(submission).valid
            assert without_seconds(contents(out, "submission.json")) == new
        count(run)
        assert without_seconds(contents(out, "submission.json")) == new
        assert hidden(tmp_path, ".parts") == []
        shutil.rmtree(out)


def test_filter(tmp_path: Path) -> None:
    from medground_bench.causal.editors import load_editor
    from medground_bench.causal.filter import filter_candidates
    from medground_bench.causal.verdicts import read_header, read_verdicts
    from medground_bench.sources import open_source
    from medground_bench.sources.phantom import write_source

    root = write_source("phantom", tmp_path / "phantoms", 1, seed=3, size=112).root
    out = tmp_path / "out"

    def run() -> None:
        sources = {"phantom": open_source("phantom", root)}
        editor = load_editor("phantom")
        filter_candidates(Whimsical(), "direct", sources, editor, out, limit=2, batch_size=1)

    run()
    new = contents(out)
    shutil.rmtree(out)
    renamings = count(run)
    shutil.rmtree(out)
    assert renamings >= 3  # the header; an edit's image and what is written about it
    for _ in every_kill(run, renamings):
        verdicts = read_verdicts(out)
        whole = new["verdicts-00000.jsonl"].decode().splitlines()
        assert [v.to_json() for v in verdicts] == [json.loads(line) for line in whole[: len(verdicts)]]
        if (out / "filter.json").exists():
            assert read_header(out) is not None
        count(run)
        assert contents(out) == new
        assert hidden(tmp_path) == []
        shutil.rmtree(out)


def test_score(tmp_path: Path) -> None:
    from medground_bench.dataset.folder import open_folder
    from medground_bench.scoring import read_scores, score_submissions, write_scores
    from medground_bench.submission import write_submission

    rows = make_rows(6)
    folder = open_folder(write_folder(tmp_path / "dataset", rows))
    mine = [{"id": row["id"], "boxes": row["boxes"]} for row in rows if row["model"] == "tiny_a"]
    submission = write_submission(tmp_path / "submission", submission_header(rows), mine)
    out = tmp_path / "place" / "scores.json"

    def score(seed: int) -> Callable[[], Any]:
        return lambda: write_scores(score_submissions([submission], folder, resamples=100, seed=seed), out)

    score(0)()
    assert count(score(1)) == 1
    score(0)()
    for _, when in every_kill(score(1), 1):
        assert read_scores(out).settings["seed"] == (0 if when == "before" else 1)
        count(score(0))
        assert os.listdir(out.parent) == ["scores.json"]


def test_a_submission_is_never_a_mixture_of_two(tmp_path: Path) -> None:
    """Other predictions under the header of an older method would be scored as that method's."""
    from medground_bench.submission import write_submission

    rows = [row for row in make_rows(3) if row["model"] == "tiny_a"]
    out = tmp_path / "submission"

    def write(name: str) -> None:
        predictions = [{"id": row["id"], "boxes": row["boxes"] if name == "old" else []} for row in rows]
        write_submission(out, submission_header(rows, method=name), predictions)

    write("old")
    old = contents(out)
    write("new")
    new = contents(out)
    write("old")
    renamings = count(lambda: write("new"))
    write("old")
    for _ in every_kill(lambda: write("new"), renamings):
        there = contents(out)
        assert there in (old, new) or "submission.json" not in there
        write("new")
        assert contents(out) == new
        write("old")
