"""What the system refuses, in every command that writes: one message with the path, exit code 1, nothing half done."""

from __future__ import annotations

import builtins
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medground_bench import cli
from medground_bench.dataset.folder import open_folder
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.write import build_folder
from medground_bench.scoring import score_submissions, write_scores
from medground_bench.scoring.protocols.run import run_protocols
from medground_bench.sources import open_source
from medground_bench.sources.phantom import write_source
from medground_bench.submission import write_submission
from tests.pages.report.conftest import write_verdicts

LVLM = "toy_qwen"


@dataclass(frozen=True)
class Case:
    """A command whose output goes to ``OUT``; ``folder`` says which kind of thing that is."""

    arguments: str
    folder: bool


_FILTER = f"filter --lvlm {LVLM} --editor phantom --mode direct --source phantom=SOURCE"
CASES = {
    "phantom": Case("phantom --out OUT --count 1 --size 112", folder=True),
    "build": Case("build --config direct --source phantom=SOURCE --records VERDICTS --out OUT", folder=True),
    "generate": Case(f"generate --dataset DATASET --lvlm {LVLM} --method occlusion --limit 1 --out OUT", folder=True),
    "filter": Case(
        f"filter --lvlm {LVLM} --editor phantom --mode direct --source phantom=SOURCE --limit 1 --out OUT", folder=True
    ),
    "tokens": Case(
        f"tokens --dataset DATASET --config direct --lvlm {LVLM} --source phantom=SOURCE --limit 1 --out OUT",
        folder=True,
    ),
    "atlas": Case("atlas --phantom --count 1 --out OUT", folder=True),
    "eval results": Case("submit SUBMISSION --dataset DATASET --write-eval-results OUT --benchmark a/b", folder=True),
    "score": Case("score SUBMISSION --dataset DATASET --resamples 100 --out OUT.json", folder=False),
    "evaluate": Case(
        f"evaluate SUBMISSION --protocol necessity --set necessity.draws=1 --lvlm {LVLM} --dataset DATASET --limit 1 "
        "--resamples 100 --out OUT",
        folder=True,
    ),
    "meta": Case("meta EVALUATED --truth strata.iou --resamples 100 --out OUT", folder=False),
    "compare": Case("compare SCORES --resamples 100 --out OUT.json", folder=False),
    "compare, csv": Case("compare SCORES --resamples 100 --out OUT.csv", folder=False),
    "compare, md": Case("compare SCORES --resamples 100 --out OUT.md", folder=False),
    "show": Case("show RECORD --dataset DATASET --out OUT", folder=False),
    "report": Case("report SUBMISSION --dataset DATASET --scores SCORES --records 1 --out OUT.html", folder=False),
    "leaderboard": Case("leaderboard RESULTS --out OUT", folder=False),
    "funnel": Case("funnel VERDICTS --csv OUT", folder=False),
    "funnel, plot": Case("funnel VERDICTS --plot OUT.svg", folder=False),
    "export": Case(f"{_FILTER} --out DONE --export OUT", folder=False),
}
FILES = [name for name, case in CASES.items() if not case.folder]
FOLDERS = [name for name, case in CASES.items() if case.folder]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_places(tmp_path_factory.mktemp("inputs"))


def words_of(name: str, places: dict[str, Path], out: Path) -> list[str]:
    """The arguments of a case."""
    words = [word.replace("OUT", str(out)) for word in CASES[name].arguments.split()]
    return [next((w.replace(k, str(p)) for k, p in places.items() if k in w), w) for w in words]


def make_places(root: Path) -> dict[str, Path]:
    """Everything that the commands read."""
    source, verdicts = write_source("phantom", root / "source", 2, size=112).root, root / "verdicts"
    write_verdicts(verdicts, open_source("phantom", source), LVLM)
    settings = BuildSettings("direct", {"phantom": str(source)}, records=str(verdicts))
    dataset, _ = build_folder(settings, root / "dataset")
    folder = open_folder(dataset)
    header = {
        "method": "whole",
        "lvlm": LVLM,
        "mode": "direct",
        "lvlm_revision": "x",
        "dataset_fingerprint": folder.fingerprint,
        "settings": {},
        "seed": 0,
        "versions": {},
        "authors": "A. Tester",
        "licence": "CC-BY-4.0",
        "created": "2026-01-01T00:00:00+00:00",
    }
    rows = [{"id": r.id, "boxes": [[0, 0, r.width, r.height]]} for r in folder]
    submission = write_submission(root / "submission", header, rows)
    evaluated = root / "evaluated"
    run_protocols([submission], folder, ["strata"], evaluated, resamples=100)
    scores = write_scores(score_submissions([submission], folder, resamples=100), root / "results" / "scores.json")
    return {
        "SOURCE": source,
        "VERDICTS": verdicts,
        "DATASET": dataset,
        "SUBMISSION": submission,
        "SCORES": scores,
        "RESULTS": scores.parent,
        "EVALUATED": evaluated,
        "DONE": root / "done",
        "RECORD": Path(folder[0].id),
    }


@pytest.fixture
def command(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[[str, Path], tuple[int, str]]:
    """Run a case with its output at a path; exit code and standard error."""
    monkeypatch.setenv("MEDGROUND_CACHE", str(tmp_path / "cache"))

    def run(name: str, out: Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["medground-bench", *words_of(name, places, out)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def tree(folder: Path) -> list[str]:
    """What is in a folder, but for locks (empty files that stay) and empty folders."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def refuse(code: int, stderr: str, *words: str) -> None:
    assert code == 1, stderr
    assert "Traceback" not in stderr
    assert stderr.count("error: ") == 1
    for word in words:
        assert word in stderr


@pytest.mark.parametrize("name", CASES)
def test_the_commands_work(name: str, command: Any, tmp_path: Path) -> None:
    code, stderr = command(name, tmp_path / "place" / "out")
    assert code == 0, stderr
    assert tree(tmp_path / "place")


@pytest.mark.parametrize("name", CASES)
def test_a_file_where_a_folder_is_meant(name: str, command: Any, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").write_text("mine")
    refuse(*command(name, place / "file" / "out"), str(place / "file"))
    if CASES[name].folder:
        refuse(*command(name, place / "file"), str(place / "file"))
    assert tree(place) == ["file"]
    assert (place / "file").read_text() == "mine"


@pytest.mark.parametrize("name", FILES)
def test_a_folder_where_a_file_is_meant(name: str, command: Any, tmp_path: Path) -> None:
    out = tmp_path / "place" / "out"
    for ending in ("", ".json", ".csv", ".svg", ".md", ".html"):
        out.with_suffix(ending).mkdir(parents=True)
    refuse(*command(name, out), str(out))
    assert tree(tmp_path / "place") == []


@pytest.mark.parametrize("name", CASES)
def test_a_read_only_file_system(name: str, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    place.mkdir()

    def refused(original: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(path, str | Path) and str(path).startswith(str(place)) and writes(*arguments, **options):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return original(path, *arguments, **options)

        return call

    always = lambda *arguments, **options: True  # noqa: E731
    creates = lambda flags=0, *arguments, **options: bool(flags & os.O_CREAT)  # noqa: E731
    writing = lambda mode="r", *arguments, **options: mode[0] in "wax"  # noqa: E731
    monkeypatch.setattr(os, "open", refused(os.open, creates))
    monkeypatch.setattr(os, "mkdir", refused(os.mkdir, always))
    monkeypatch.setattr(builtins, "open", refused(builtins.open, writing))
    refuse(*command(name, place / "out"), "Read-only file system", str(place))
    monkeypatch.undo()
    assert tree(place) == []


@pytest.mark.parametrize("name", CASES)
def test_a_full_disk(name: str, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"
    replace = os.replace

    def full(source: Any, target: Any) -> None:
        if str(target).startswith(str(place)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    code, stderr = command(name, place / "out")
    refuse(code, stderr, "No space left on device", str(place / "out"))
    assert ".part/" not in stderr  # the user's path, not our temporary one
    assert ".part:" not in stderr
    monkeypatch.undo()
    assert tree(place) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("name", [name for name in FILES if "OUT." not in CASES[name].arguments])
def test_the_device_that_is_always_full(name: str, command: Any) -> None:
    refuse(*command(name, Path("/dev/full")), "No space left on device", "/dev/full")
    assert Path("/dev/full").is_char_device()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("arguments", ["sources", "methods", "--version", "--help", "validate SUBMISSION"])
def test_standard_output_that_is_full(arguments: str, places: dict[str, Path]) -> None:
    words = [str(places.get(word, word)) for word in arguments.split()]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "medground_bench", *words], stdout=full, stderr=subprocess.PIPE, text=True
        )
    refuse(done.returncode, done.stderr, "standard output: No space left on device")
    assert "Exception ignored" not in done.stderr


def test_a_reader_that_has_seen_enough() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "medground_bench", "sources"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == b""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limit on this system")
@pytest.mark.parametrize("name", ["phantom", "build", "report", "score"])
def test_a_file_that_may_not_grow(name: str, places: dict[str, Path], tmp_path: Path) -> None:
    """The system itself refuses, in the middle of a write."""
    place = tmp_path / "place"
    words = words_of(name, places, place / "out")
    code = (
        "import resource, sys\n"
        "import medground_bench.dataset.write, medground_bench.scoring, medground_bench.pages.report\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))\n"
        "from medground_bench import cli\ncli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "MEDGROUND_CACHE": str(tmp_path / "cache")},
    )
    refuse(done.returncode, done.stderr, "File too large", str(place / "out"))
    assert tree(place) == []


def test_too_little_space_as_datasets_says_it(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.builder

    monkeypatch.setattr(datasets.builder, "has_sufficient_disk_space", lambda *arguments, **options: False)
    out = tmp_path / "place" / "out"
    refuse(*command("build", out), "Not enough disk space", str(out))
    assert tree(tmp_path / "place") == []


@pytest.mark.parametrize("name", CASES)
def test_an_interrupt(name: str, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "place"

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    code, stderr = command(name, place / "out")
    assert (code, "interrupted" in stderr) == (130, True)
    assert "Traceback" not in stderr
    monkeypatch.undo()
    assert tree(place) == []


@pytest.mark.parametrize("name", FOLDERS)
def test_a_link_is_written_to_its_target(name: str, command: Any, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "link").symlink_to(tmp_path / "target")
    code, stderr = command(name, place / "link")
    assert code == 0, stderr
    assert (place / "link").is_symlink()
    assert os.listdir(place) == ["link"]
    assert tree(tmp_path / "target")
