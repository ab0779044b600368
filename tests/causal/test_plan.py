"""The plan of a run: known counts, and bounds that hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from medground_bench.causal import filter as causal_filter
from medground_bench.causal import plan as causal_plan
from medground_bench.causal.editors import load_editor
from medground_bench.causal.filter import filter_candidates
from medground_bench.causal.plan import plan_filter
from medground_bench.core.errors import MedGroundError
from medground_bench.imaging.read import read_image
from medground_bench.sources import open_source
from medground_bench.sources.phantom.source import phantom_for
from medground_bench.sources.phantom.writers import write_source
from tests.causal.planted import Causal, Spurious, Whimsical


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = write_source(
        "phantom", tmp_path_factory.mktemp("plan") / "set", 5, seed=4, size=128, findings=["nodule", "cardiomegaly"]
    )
    return written.root


def test_a_plan_from_all_candidates_is_exact(root: Path, tmp_path: Path) -> None:
    source = open_source("phantom", root)
    sources, editor = {"phantom": source}, load_editor("inpaint", solve_side=24)
    lvlms = {key: (lambda key=key: Whimsical(key)) for key in ("one", "two")}
    plan = plan_filter(lvlms, "direct", sources, editor, tmp_path / "cache", sample=len(source))
    reports = [
        filter_candidates(load(), "direct", sources, editor, tmp_path / "out", edits=tmp_path / "fresh")
        for load in lvlms.values()
    ]
    assert plan.sample == len(source) == plan.candidates["phantom"]
    assert plan.questions["expected"] == sum(r.questions for r in reports)
    assert plan.edits["expected"] == sum(r.edits_made for r in reports)
    assert {k: round(v["questions"]) for k, v in plan.per_lvlm.items()} == {
        key: r.questions for key, r in zip(lvlms, reports, strict=True)
    }
    stored = sum(p.stat().st_size for p in (tmp_path / "fresh").rglob("*") if p.is_file())
    assert plan.gigabytes["expected"] * 1e9 == pytest.approx(stored, rel=0.05)
    assert not (tmp_path / "cache" / "verdicts-00000.jsonl").exists()


def test_the_best_and_the_worst_case(root: Path, tmp_path: Path) -> None:
    source = open_source("phantom", root)
    causal = Causal(list({c.image_id: phantom_for(c) for c in source}.values()))
    sources, editor = {"phantom": source}, load_editor("phantom")
    plan = plan_filter({"causal": lambda: causal}, "direct", sources, editor, tmp_path / "a", sample=4)
    assert plan.questions == {"expected": 4 * len(source), "at most": 4 * len(source)}
    assert plan.edits == {"expected": 3 * len(source), "at most": 3 * len(source)}
    assert plan.hours["expected"] == pytest.approx(plan.hours["at most"])
    assert plan.seconds_per_edit > 0
    never = plan_filter({"spurious": lambda: Spurious("spurious")}, "direct", sources, editor, tmp_path / "b", sample=4)
    assert never.questions["expected"] == len(source)  # unmarked images: it always says no
    assert never.edits == {"expected": 0, "at most": 3 * len(source)}
    assert never.gigabytes["expected"] == 0
    assert never.seconds_per_edit > 0  # measured all the same, for the upper bound
    assert never.gigabytes["at most"] > 0
    again = plan_filter({"causal": lambda: causal}, "direct", sources, editor, tmp_path / "a", sample=4)
    assert again.seconds_per_edit > 0  # although the cache had every edit of the sample


def test_a_limit_is_planned_for(root: Path, tmp_path: Path) -> None:
    sources = {"phantom": open_source("phantom", root)}
    lvlms = {"one": lambda: Whimsical("one")}
    plan = plan_filter(lvlms, "reason", sources, load_editor("inpaint", solve_side=24), tmp_path, limit=3, sample=50)
    assert plan.candidates == {"phantom": 3}
    assert plan.sample == 3
    assert plan.questions["at most"] == 12


def test_nothing_to_plan(root: Path, tmp_path: Path) -> None:
    sources = {"phantom": open_source("phantom", root)}
    for lvlms, sample in (({}, 3), ({"one": lambda: Whimsical("one")}, 0)):
        with pytest.raises(MedGroundError, match="at least one of each"):
            plan_filter(lvlms, "direct", sources, load_editor("phantom"), tmp_path, sample=sample)


def test_the_plan_reads_images_as_the_run_will(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()

    def reading(path: Path, scaling: str = "minmax") -> object:
        seen.add(scaling)
        return read_image(path, scaling)  # type: ignore[arg-type]

    for module in (causal_plan, causal_filter):
        monkeypatch.setattr(module, "read_image", reading)
    sources, editor = {"phantom": open_source("phantom", root)}, load_editor("inpaint", solve_side=24)
    never = Spurious("spurious")  # asks for no edit: those of the sample are made for the plan
    plan_filter({"one": lambda: never}, "direct", sources, editor, tmp_path / "a", sample=2, scaling="percentile")
    assert seen == {"percentile"}
