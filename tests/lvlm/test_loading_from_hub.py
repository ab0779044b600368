"""Loading by hub id: the commit is recorded, pinned revisions are honoured, the second time needs no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medground_bench.lvlm import testing
from tests.local_hub import LocalHub, Repository

pytestmark = pytest.mark.heavy  # each process imports torch and transformers anew

_SCRIPT = """
import json, sys
from medground_bench.core.errors import LvlmError
from medground_bench.lvlm import load_lvlm
for name, _, revision in (argument.partition("@") for argument in sys.argv[1:]):
    try:
        lvlm = load_lvlm(name, revision=revision or None)
    except LvlmError as error:
        print(json.dumps({"error": str(error)}))
    else:
        print(json.dumps({"key": lvlm.key, "hub_id": lvlm.hub_id, "revision": lvlm.revision, "family": lvlm.family}))
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    folder = testing.save_parts(*testing.tiny_qwen_parts(layers=1), tmp_path_factory.mktemp("hub") / "tiny")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with LocalHub() as server:
        server.repositories["model", "lab/tiny"] = Repository("model", "lab/tiny", revisions={"main": files})
        other = {"config.json": json.dumps({"model_type": "llava"}).encode()}
        server.repositories["model", "lab/other"] = Repository("model", "lab/other", revisions={"main": other})
        yield server


def load(endpoint: str, home: Path, *names: str, offline: bool = False) -> list[dict[str, str]]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *names], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_loading_by_hub_id(hub: LocalHub, tmp_path: Path) -> None:
    commit = hub.repositories["model", "lab/tiny"].sha
    expected = {"key": "lab/tiny", "hub_id": "lab/tiny", "revision": commit, "family": "qwen2_5_vl"}
    main, pinned, missing, other = load(hub.url, tmp_path, "lab/tiny", f"lab/tiny@{commit}", "lab/missing", "lab/other")
    assert main == pinned == expected
    assert "cannot be loaded" in missing["error"]
    assert "processor cannot be loaded" in other["error"]  # any family may come; this repository is only half there
    assert "lab/other" in other["error"]
    cached, missing = load("http://127.0.0.1:9", tmp_path, "lab/tiny", "lab/missing", offline=True)
    assert cached == expected
    assert "cannot be loaded" in missing["error"]
