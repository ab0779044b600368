"""The demo: the whole chain in a folder; run again it finds everything done, killed it resumes, mixed it refuses."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import medground_bench.demo as module
from medground_bench.attribution.method import get_method
from medground_bench.cli.demo import command as demo_command
from medground_bench.core.errors import MedGroundError
from medground_bench.demo import LVLMS, DemoSettings, choose_methods, run_demo
from medground_bench.lvlm.toy import TOYS
from tests.sources.planted.canvases import exact_localizer, spoil, write_canvases

if TYPE_CHECKING:
    from medground_bench.core.processes import ProcessGroup

toys = pytest.mark.skipif(
    any(not (Path(folder) / "model.safetensors").is_file() for folder in TOYS.values()),
    reason="the toy LVLMs are not in this checkout: builder_scripts/toy_lvlm trains them",
)


@contextlib.contextmanager
def quiet(title: str) -> Iterator[Any]:
    yield lambda done, total, what: None


def test_methods_that_would_download_are_left_out_with_the_reason() -> None:
    chosen, left_out = choose_methods(["all"])
    assert {"attention", "rise", "medfocus", "medfocus_multi_atlas"} <= set(chosen)
    assert all("stays offline" in left_out[name] for name in ("prompting_medsam",) if name in left_out)
    assert not set(chosen) & set(left_out)


def test_default_methods_are_those_named_here_and_names_are_taken_as_they_are() -> None:
    assert sorted(choose_methods()[0]) == sorted(module.METHODS)
    assert choose_methods(["rise", "attention"]) == (("rise", "attention"), {})
    with pytest.raises(MedGroundError, match="no method named 'atention'"):
        choose_methods(["attention", "atention"])


def test_a_folder_keeps_the_methods_it_was_begun_with(tmp_path: Path) -> None:
    begun = DemoSettings(4, 0, ("attention",))
    module._check_settings(tmp_path / "demo", begun)
    assert module._begun(tmp_path / "demo") == begun  # not what is installed now
    (tmp_path / "demo" / "demo.json").write_text("[]")
    with pytest.raises(MedGroundError, match="not the settings of a demo"):
        module._begun(tmp_path / "demo")


def test_a_folder_of_a_version_without_faint_findings_goes_on_without_them(tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    path.write_text(json.dumps({"records": 4, "seed": 0, "methods": ["attention"], "canvas": ""}))
    begun = module._begun(tmp_path)
    assert begun == DemoSettings(4, 0, ("attention",))
    module._check_settings(tmp_path, begun)
    with pytest.raises(MedGroundError, match="faint"):
        module._check_settings(tmp_path, DemoSettings(4, 0, ("attention",), faint=0.25))
    with pytest.raises(MedGroundError, match="pose was False, is True"):
        module._check_settings(tmp_path, DemoSettings(4, 0, ("attention",), pose=True))


def test_faint_findings_are_not_asked_of_radiographs(tmp_path: Path) -> None:
    with pytest.raises(MedGroundError, match="drawn in phantoms"):
        run_demo(tmp_path / "demo", canvas=tmp_path, faint=0.5, progress=quiet, say=print)
    assert not (tmp_path / "demo").exists()


def test_phantoms_are_posed_already(tmp_path: Path) -> None:
    with pytest.raises(MedGroundError, match="posed as they are drawn"):
        run_demo(tmp_path / "demo", pose=True, progress=quiet, say=print)
    assert not (tmp_path / "demo").exists()


def test_radiographs_that_are_left_out_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medground_bench.sources.planted.load_localizer", lambda *_, **__: exact_localizer)
    canvases = write_canvases(tmp_path / "canvases")
    expected = spoil(canvases)
    said: list[str] = []
    settings = DemoSettings(40, 0, ("sobel",), canvas=str(canvases))
    module._draw(tmp_path / "demo", settings, quiet, said.append)
    for name, reason in expected.items():
        assert any(line.startswith("refused") and name in line and reason in line for line in said), name
    assert said[-1] == "6 radiographs of 40 that were asked for carry findings"


def test_the_lighter_settings_of_the_default_methods_are_the_methods_own() -> None:
    for name, lighter in module.METHODS.items():
        method = get_method(name)
        assert method.make_parameters(lighter) != method.make_parameters() or not lighter, name


def test_the_first_failure_of_a_process_stops_the_others(tmp_path: Path) -> None:
    with (
        pytest.raises(MedGroundError, match="process 1 fails"),
        module._workers(2) as share,
    ):
        share(fails_in_one, tmp_path, DemoSettings(1, 0, ()), quiet)
    assert (tmp_path / "0").read_text() == "stopped"


def fails_in_one(out: Path, settings: DemoSettings, group: ProcessGroup, update: Any) -> None:
    if group.rank == 1:
        while not (out / "0").exists():
            time.sleep(0.05)
        raise MedGroundError("process 1 fails")
    (out / "0").write_text("at work")
    try:
        for step in range(600):
            update(step, 600, "work")
            time.sleep(0.1)
    except MedGroundError:
        (out / "0").write_text("stopped")
        raise


def test_other_settings_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    module._check_settings(tmp_path / "demo", DemoSettings(4, 0, ("attention",)))
    module._check_settings(tmp_path / "demo", DemoSettings(4, 0, ("attention",)))
    with pytest.raises(MedGroundError, match="records was 4, is 5"):
        module._check_settings(tmp_path / "demo", DemoSettings(5, 0, ("attention",)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(MedGroundError, match="not a demo's and not empty"):
        module._check_settings(tmp_path / "mine", DemoSettings(4, 0, ("attention",)))
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_candidates_of_each_mode() -> None:
    assert [DemoSettings(60, 0, ()).candidates(mode) for mode in ("direct", "reason")] == [60, 24]
    assert [DemoSettings(4, 0, ()).candidates(mode) for mode in ("direct", "reason")] == [4, 4]
    more = DemoSettings(60, 0, (), reason_records=90)
    assert [more.candidates(mode) for mode in ("direct", "reason")] == [60, 90]
    assert [settings.drawn for settings in (more, DemoSettings(60, 0, ()))] == [90, 60]


def test_a_folder_from_before_the_reason_candidates_could_be_chosen_goes_on(tmp_path: Path) -> None:
    old = {"records": 4, "seed": 0, "methods": ["attention"], "canvas": ""}
    (tmp_path / "demo.json").write_text(json.dumps(old))
    module._check_settings(tmp_path, DemoSettings(4, 0, ("attention",)))
    with pytest.raises(MedGroundError, match="reason_records was None, is 9"):
        module._check_settings(tmp_path, DemoSettings(4, 0, ("attention",), reason_records=9))


def results(out: Path) -> dict[str, Any]:
    """Predictions and scores below a demo's folder, without times."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("predictions.jsonl")):
        found[str(path.relative_to(out))] = path.read_text()
    for path in sorted((out / "results").rglob("scores.json")):
        data = json.loads(path.read_text())
        data.pop("created")
        for one in data["submissions"]:
            one["provenance"].pop("created")
            one["provenance"].pop("cost", None)  # seconds are never twice the same
        found[str(path.relative_to(out))] = data
    return found


def command(out: Path, records: int = 2) -> list[str]:
    return [sys.executable, "-m", "medground_bench", "demo", "--out", str(out), "--records", str(records)]


@toys
@pytest.mark.heavy
def test_the_demo_twice_and_after_kills(tmp_path: Path) -> None:
    # Cheap methods of every kind, in this process and in those that are killed: what resumes is the same for all.
    methods = ("attention", "occlusion", "prompting")

    def run(out: Path) -> Any:
        return run_demo(out, records=6, seed=0, methods=methods, progress=quiet, say=lambda line: None)

    whole = tmp_path / "whole"
    done = run(whole)
    assert set(done.records) == {f"{key} {mode}" for key in LVLMS for mode in ("direct", "reason")}
    assert done.report.is_file()
    assert done.leaderboard.is_file()
    before = {p: p.stat().st_mtime_ns for p in (whole / "submissions").rglob(".parts/*.jsonl")}
    expected = results(whole)
    assert expected
    run(whole)
    assert {p: p.stat().st_mtime_ns for p in before} == before, "a second run computed something again"
    assert results(whole) == expected

    killed, kills = tmp_path / "killed", 0
    for k in range(10):
        child = os.fork()
        if child == 0:
            try:
                run(killed)
            except BaseException:
                os._exit(1)
            os._exit(0)
        time.sleep(0.3 + 0.5 * k)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert not (os.WIFEXITED(status) and os.WEXITSTATUS(status)), "it cannot go on from where it was killed"
        kills += os.WIFSIGNALED(status)
    assert kills >= 3
    run(killed)
    assert results(killed) == expected


@toys
@pytest.mark.heavy
def test_a_mode_of_which_nothing_passes_has_no_records_and_the_other_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    done = run_demo(
        tmp_path,
        records=1,
        reason_records=4,
        seed=1,
        faint=1.0,
        methods=["attention"],
        progress=quiet,
        say=said.append,
    )
    assert "no candidate passed the filter in direct mode: it has no records" in said
    assert done.records == {
        "toy_qwen direct": 0,
        "toy_gemma direct": 0,
        "toy_qwen reason": 2,
        "toy_gemma reason": 2,
    }
    assert [path.parent.name for path in done.scores] == ["reason"]
    assert done.report.is_file()
    assert done.leaderboard.is_file()


@toys
@pytest.mark.heavy
def test_a_demo_of_which_nothing_passes_says_so(tmp_path: Path) -> None:
    with pytest.raises(MedGroundError, match=r"no candidate passed the filter[\s\S]*at least one of 10"):
        run_demo(
            tmp_path,
            records=1,
            reason_records=4,
            seed=3,
            faint=1.0,
            methods=["attention"],
            progress=quiet,
            say=lambda line: None,
        )


@toys
@pytest.mark.heavy
def test_other_settings_are_refused_by_the_command(tmp_path: Path) -> None:
    module._check_settings(tmp_path / "demo", DemoSettings(3, 0, choose_methods()[0]))
    ended = subprocess.run(command(tmp_path / "demo"), capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "records was 3, is 2" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_candidates_come_in_rounds_of_images_whatever_the_findings_order(tmp_path: Path) -> None:
    from medground_bench.sources import open_source
    from medground_bench.sources.phantom import write_source

    write_source("phantom", tmp_path, 40, size=112)
    source = open_source("phantom", tmp_path)
    spread = list(module._spread(source))
    assert sorted(c.id for c in spread) == sorted(c.id for c in source)
    images = {c.image_id for c in source}
    first = spread[: len(images)]
    assert [c.image_id for c in first] == sorted(images)
    listed_first = {c.image_id: c.attribute for c in reversed(list(source))}
    several = [c for c in first if sum(other.image_id == c.image_id for other in source) > 1]
    agree = sum(listed_first[c.image_id] == c.attribute for c in several)
    assert 0 < agree < 0.7 * len(several)  # 2 to 4 findings: a third or so by chance, all in the source's own order


@toys
@pytest.mark.heavy
def test_faint_findings_fall_at_more_than_one_gate_and_some_pass(tmp_path: Path) -> None:
    from medground_bench.causal.editors import load_editor
    from medground_bench.causal.filter import filter_candidates
    from medground_bench.causal.verdicts import read_verdicts
    from medground_bench.lvlm import load_lvlm
    from medground_bench.sources import open_source
    from medground_bench.sources.phantom import write_source

    write_source("phantom", tmp_path / "faint", 24, size=module.SIZE, faint=1.0)
    sources = {"phantom": open_source("phantom", tmp_path / "faint")}
    for lvlm in LVLMS:
        filter_candidates(load_lvlm(lvlm), "direct", sources, load_editor("phantom"), tmp_path / "verdicts", limit=40)
    fell = Counter(verdict.gate for verdict in read_verdicts(tmp_path / "verdicts"))
    assert fell["correct"] >= 10
    assert fell[None] >= 10
    assert fell.total() - fell["correct"] - fell[None] >= 1  # seen, but not for what is in the box


@toys
@pytest.mark.heavy
def test_the_default_demo_has_sixty_and_twenty_records_of_each_lvlm_from_thirty_patients(tmp_path: Path) -> None:
    from medground_bench.causal.verdicts import read_verdicts

    records = inspect.signature(run_demo).parameters["records"].default
    settings = DemoSettings(records, 0, (), faint=module.FAINT)
    module._draw(tmp_path, settings, quiet, print)
    with module._workers(2) as share:
        share(module._filter, tmp_path, settings, quiet)
    kept = [verdict for verdict in read_verdicts(tmp_path / "verdicts") if verdict.gate is None]
    counts = Counter((verdict.model, verdict.mode) for verdict in kept)
    assert set(counts) == {(key, mode) for key in LVLMS for mode in ("direct", "reason")}
    assert all(count >= (60 if mode == "direct" else 20) for (_, mode), count in counts.items()), counts
    assert len({verdict.image_id for verdict in kept}) >= 30  # a phantom is a patient


def test_the_command_and_the_function_have_the_same_defaults() -> None:
    said = {name: p.default for name, p in inspect.signature(demo_command).parameters.items()}
    meant = {name: p.default for name, p in inspect.signature(run_demo).parameters.items()}
    shared = {"records", "seed", "methods", "canvas", "reason_records", "faint", "pose", "processes"}
    assert shared <= set(said) & set(meant)
    assert {name: said[name].default for name in shared} == {name: meant[name] for name in shared}
