"""The filter end to end: toy LVLMs, real radiographs, kill -9, two processes started by accelerate."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from medground_bench.causal.editors import load_editor
from medground_bench.causal.filter import filter_candidates
from medground_bench.causal.verdicts import ANSWERS, read_verdicts
from medground_bench.core.schema import GATES, MODES
from medground_bench.sources import open_source
from medground_bench.sources.phantom.writers import write_source
from tests.causal.planted import brute_force

pytestmark = pytest.mark.heavy


def lines(out: Path) -> list[dict[str, Any]]:
    return sorted(
        (v.to_json() for v in read_verdicts(out)), key=lambda line: (line["model"], line["mode"], line["index"])
    )


@pytest.mark.parametrize("key", ["toy_qwen", "toy_gemma"])
def test_toy_verdicts_equal_brute_force_with_exact_counterfactuals(key: str, tmp_path: Path) -> None:
    from medground_bench.lvlm import load_lvlm

    root = write_source("phantom", tmp_path / "set", 7, seed=11, size=224).root
    source = open_source("phantom", root)
    lvlm = load_lvlm(key)
    for mode in MODES:
        filter_candidates(lvlm, mode, {"phantom": source}, load_editor("phantom"), tmp_path / "v")
        found = [line for line in lines(tmp_path / "v") if line["mode"] == mode]
        assert len(found) == len(source)
        for line, candidate in zip(found, source, strict=True):
            true = brute_force(lvlm, mode, candidate, load_editor("phantom"))
            assert line["gate"] == true["gate"], (line, true)
            asked = len(ANSWERS) if line["gate"] is None else GATES.index(line["gate"]) + 1
            assert [line["answers"][n] for n in ANSWERS[:asked]] == true["answers"][:asked]
        # The toys were trained to look: a good part of what they answer rests on the finding.
        assert sum(line["gate"] is None for line in found) >= 3


def command(lvlm: Path, shared_data: Path, out: Path, *launcher: str, limit: int = 30) -> list[str]:
    return [
        *(launcher or (sys.executable,)),
        *("-m", "medground_bench", "filter", "--lvlm", str(lvlm), "--mode", "direct"),
        *("--source", f"nih_cxr14={shared_data / 'data' / 'nih_cxr14'}", "--editor", "inpaint", "--out", str(out)),
        *("--limit", str(limit), "--batch-size", "3", "--device", "cpu"),
    ]


def quiet(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def test_real_radiographs_killed_three_times_and_by_two_processes(shared_data: Path, tmp_path: Path) -> None:
    from medground_bench.lvlm.toy import TOYS

    lvlm = Path(shutil.copytree(TOYS["toy_qwen"], tmp_path / "toy_qwen"))
    whole, killed, two = (tmp_path / name for name in ("whole", "killed", "two"))
    subprocess.run(command(lvlm, shared_data, whole), check=True, capture_output=True)
    expected = (whole / "verdicts-00000.jsonl").read_bytes()
    assert expected.count(b"\n") == 30

    part = killed / "verdicts-00000.jsonl"
    moments = random.Random(3)
    for attempt in range(3):
        had = part.read_bytes().count(b"\n") if part.exists() else 0
        process = quiet(command(lvlm, shared_data, killed))
        while process.poll() is None and (part.read_bytes().count(b"\n") if part.exists() else 0) <= had:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.05))  # a fast machine is done with the rest in a second
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert part.read_bytes().count(b"\n") > had, attempt
        assert expected.startswith(part.read_bytes()[: part.read_bytes().rfind(b"\n") + 1])
    subprocess.run(command(lvlm, shared_data, killed), check=True, capture_output=True)
    assert part.read_bytes() == expected

    accelerate = shutil.which("accelerate", path=str(Path(sys.executable).parent)) or shutil.which("accelerate")
    assert accelerate is not None
    # On a machine without GPUs and MPI this is how accelerate starts two processes.
    launcher = (accelerate, "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
    subprocess.run(command(lvlm, shared_data, two, *launcher), check=True, capture_output=True)
    assert (two / "verdicts-00001.jsonl").stat().st_size > 0
    assert lines(two) == lines(whole)


def test_radedit_on_tiny_parts_filters_real_radiographs(shared_data: Path, tmp_path: Path) -> None:
    from tests.causal.editors.tiny import save_parts
    from tests.causal.planted import Whimsical

    folder = str(save_parts(tmp_path / "parts"))
    editor = load_editor("radedit", unet=folder, vae=folder, text_encoder=folder, size=64, steps=20)
    sources = {"nih_cxr14": open_source("nih_cxr14", shared_data / "data" / "nih_cxr14")}
    first = filter_candidates(Whimsical(no=100), "direct", sources, editor, tmp_path / "v", limit=8)
    assert first.edits_made > 0
    for line in lines(tmp_path / "v"):
        for quality in line["quality"].values():
            assert quality["change"] > 0
    again = filter_candidates(
        Whimsical(no=100), "direct", sources, editor, tmp_path / "w", limit=8, edits=tmp_path / "v" / "edits"
    )
    assert again.edits_made == 0
    assert lines(tmp_path / "w") == lines(tmp_path / "v")
