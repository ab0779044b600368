"""The lowest versions that pyproject.toml declares, in an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.heavy
@pytest.mark.timeout(900)
@pytest.mark.skipif(not (ROOT / ".ci" / "lowest").exists(), reason="needs the checkout")
def test_the_core_runs_with_the_lowest_declared_versions() -> None:
    index = subprocess.run(
        [sys.executable, "-m", "pip", "index", "versions", "platformdirs"], capture_output=True, text=True
    )
    if index.returncode != 0:
        pytest.skip(f"no package index can be reached: {index.stderr.strip().splitlines()[-1:]}")
    run = subprocess.run(
        ["bash", ".ci/lowest"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": ""},
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
