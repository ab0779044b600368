"""``medground-bench filter`` and ``funnel`` as a user meets them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import medground_bench.cli as cli
import medground_bench.lvlm
from medground_bench.core.errors import MedGroundError
from medground_bench.dataset.released import read_released
from medground_bench.sources import open_source
from medground_bench.sources.phantom.source import phantom_for
from medground_bench.sources.phantom.writers import write_source
from tests.causal.planted import Causal, Whimsical

FINDINGS = ["nodule", "cardiomegaly"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_source("phantom", tmp_path / "set", 4, seed=4, size=128, findings=FINDINGS).root


@pytest.fixture(autouse=True)
def _planted(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    def load(name: str, **_: Any) -> Any:
        if name == "causal":
            return Causal(list({c.image_id: phantom_for(c) for c in open_source("phantom", root)}.values()))
        return Whimsical(name)

    monkeypatch.setattr(medground_bench.lvlm, "load_lvlm", load, raising=False)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def call(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_filter_funnel_and_export(root: Path, tmp_path: Path) -> None:
    out, own = tmp_path / "verdicts", tmp_path / "own.json"
    common = ("--source", f"phantom={root}", "--editor", "phantom", "--out", out)
    said = call("filter", "--lvlm", "causal", "--lvlm", "other", *common, "--export", own)
    assert "causal direct: 8 kept" in said
    assert "0 edits made" not in said.split("other direct")[0]
    assert len(read_released(own, "direct", allow_other=True, models={"causal", "other"})) >= 8
    assert "nothing new; 8 found from earlier runs" in call("filter", "--lvlm", "causal", *common)
    table = call("funnel", out, "--plot", tmp_path / "f.svg", "--csv", tmp_path / "f.csv")
    assert "causal" in table
    assert (tmp_path / "f.svg").read_text().startswith("<svg")
    header, causal, _ = (tmp_path / "f.csv").read_text().splitlines()
    assert header.startswith("LVLM,mode,source,candidates,correct")
    assert causal.startswith("causal,direct,phantom,8,8,8,8,8,0,")  # an edit of the phantoms may be flagged
    assert "nodule" in call("funnel", out, "--by", "attribute")


def test_keys_for_folders(root: Path, tmp_path: Path) -> None:
    common = ("--source", f"phantom={root}", "--editor", "phantom", "--out", tmp_path / "v", "--limit", 1)
    assert "my_key reason" in call("filter", "--lvlm", tmp_path, "--lvlm-key", "my_key", "--mode", "reason", *common)
    assert f"{tmp_path.name} direct" in call("filter", "--lvlm", tmp_path, *common)
    assert "gemma3_4b direct" in call("filter", "--lvlm", "google/gemma-3-4b-it", *common)
    with pytest.raises(MedGroundError, match="1 --lvlm and 2 --lvlm-key"):
        call("filter", "--lvlm", "a", "--lvlm-key", "b", "--lvlm-key", "c", *common)


def test_plan_prints_the_work_and_judges_nothing(root: Path, tmp_path: Path) -> None:
    common = ("--source", f"phantom={root}", "--editor", "phantom", "--out", tmp_path / "v")
    said = call("filter", "--lvlm", "causal", *common, "--plan", "--plan-sample", 3)
    assert "8 of phantom" in said
    for row in ("questions to LVLMs", "32", "edits (shared", "24", "storage", "hours"):
        assert row in said
    assert not list((tmp_path / "v").glob("verdicts-*"))


def test_a_broken_image_ends_in_an_error_after_the_others(root: Path, tmp_path: Path) -> None:
    path = open_source("phantom", root)[0].image_path
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(MedGroundError, match="2 candidates could not be judged") as info:
        call(
            "filter", "--lvlm", "w", "--source", f"phantom={root}", "--editor", "inpaint", "--out", tmp_path / "v"
        )  # fmt: skip
    assert "run the same command again" in str(info.value)
    assert len((tmp_path / "v" / "verdicts-00000.jsonl").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--editor", "nosuch"], "unknown editor"),
        (["--editor", "inpaint", "--editor-set", "solve_side"], "NAME=VALUE"),
        (["--editor", "inpaint", "--editor-set", "solve_side=3"], "16 to 512"),
        (["--editor", "phantom", "--mode", "loud"], "unknown mode"),
    ],
)
def test_wrong_arguments(root: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(MedGroundError, match=said):
        call("filter", "--lvlm", "w", "--source", f"phantom={root}", "--out", tmp_path / "v", *arguments)
    assert not (tmp_path / "v").exists()


def test_export_waits_for_all_processes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MedGroundError, match="all processes"):
        call(
            "filter", "--lvlm", "w", "--source", f"phantom={root}", "--editor", "phantom",
            "--out", tmp_path / "v", "--export", tmp_path / "own.json",
        )  # fmt: skip
