"""Generate as processes: two equal one, a killed one resumes to the same, an interrupted one says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.attribution.generate import generate
from medground_bench.core.files import read_journals
from medground_bench.dataset.folder import open_folder
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.write import build_folder
from medground_bench.lvlm import Lvlm, load_lvlm
from medground_bench.sources import open_source
from medground_bench.sources.phantom import write_source
from tests.pages.report.conftest import write_verdicts

PLACE = "tiny_qwen/direct"
METHODS = "attention,occlusion"


@dataclass
class Work:
    """A model folder, a dataset folder, and what an uninterrupted run makes of them."""

    model: Path
    dataset: Path
    whole: Path

    def arguments(self, out: Path, methods: str = METHODS) -> list[str]:
        where = [
            "--dataset",
            str(self.dataset),
            "--config",
            "direct",
            "--lvlm",
            str(self.model),
            "--lvlm-key",
            "tiny_qwen",
        ]
        return ["generate", *where, "--method", methods, "--device", "cpu", "--out", str(out)]

    def start(self, out: Path, launcher: Sequence[str] = (), **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *launcher, "-m", "medground_bench", *self.arguments(out)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, out: Path, launcher: Sequence[str] = (), **environment: str) -> None:
        process = self.start(out, launcher, **environment)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    from medground_bench.lvlm.testing import save_parts, tiny_qwen_parts

    root = tmp_path_factory.mktemp("processes")
    write_source("phantom", root / "source", 4, size=112)
    write_verdicts(root / "verdicts", open_source("phantom", root / "source"), "tiny_qwen")
    settings = BuildSettings("direct", {"phantom": str(root / "source")}, records=str(root / "verdicts"))
    dataset, _ = build_folder(settings, root / "dataset")
    done = Work(save_parts(*tiny_qwen_parts(), root / "model"), dataset, root / "whole")
    done.run(done.whole)
    return done


def content(folder: Path) -> dict[str, Any]:
    """Everything of the submissions below a folder that does not tell when they were made.

    Hidden files are left out: the part files, and what a kill in the middle of a write leaves of it.
    """
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        name = str(path.relative_to(folder))
        if path.suffix == ".npy":
            found[name] = np.load(path, allow_pickle=False).tobytes()
        elif path.name == "submission.json":
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("created", "cost")}
        else:
            found[name] = path.read_text()
    return found


def pairs(out: Path) -> list[tuple[str, str]]:
    """(method, record) pairs in the part files, in order."""
    return [(entry["method"], entry["row"]["id"]) for entry in read_journals(out / PLACE / ".parts", "attributions")]


@pytest.mark.heavy
def test_two_processes_make_what_one_makes(work: Work, tmp_path: Path) -> None:
    # The launcher for several GPUs starts the processes; without GPUs each of them works on the CPU. (With --cpu
    # accelerate needs MPI to start more than one.)
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    out = tmp_path / "two"
    work.run(out, launcher)
    assert content(out) == content(work.whole)
    parts = sorted(p.name for p in (out / PLACE / ".parts").glob("*.jsonl"))
    assert parts == ["attributions-00000.jsonl", "attributions-00001.jsonl"]
    assert sorted(pairs(out)) == sorted(pairs(work.whole)), "a pair was computed twice, or by nobody"


def in_a_fork(work: Work, out: Path, lvlm: Lvlm) -> int:
    """Start the same work in a forked process, whose model is loaded already; its process id."""
    child = os.fork()
    if child == 0:
        try:
            generate(open_folder(work.dataset, "direct"), lvlm, METHODS.split(","), out, licence="CC-BY-4.0")
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


@pytest.mark.heavy
def test_killed_at_any_moment_it_resumes_to_the_same(work: Work, tmp_path: Path) -> None:
    lvlm = load_lvlm(work.model, device="cpu")
    lvlm.key = "tiny_qwen"
    wanted, out = len(pairs(work.whole)), tmp_path / "killed"
    rng = np.random.default_rng(0)
    survived: list[tuple[str, str]] = []
    kills = 0
    for _ in range(60):
        child = in_a_fork(work, out, lvlm)
        time.sleep(float(rng.uniform(0, 0.4)))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        done = pairs(out)
        assert done[: len(survived)] == survived, "what was on disk is there no more"
        survived = done
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
        kills += 1
    assert os.waitpid(in_a_fork(work, out, lvlm), 0)[1] == 0
    assert kills >= 10
    assert len(pairs(out)) == len(set(pairs(out))) == wanted, "a finished pair was computed again"
    assert content(out) == content(work.whole)


@pytest.mark.heavy
def test_interrupted_it_says_so_and_resumes(work: Work, tmp_path: Path) -> None:
    out = tmp_path / "interrupted"
    process = work.start(out)
    while process.poll() is None and (not (out / PLACE / ".parts").is_dir() or not pairs(out)):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert 0 < len(pairs(out)) < len(pairs(work.whole))
    work.run(out)
    assert content(out) == content(work.whole)
