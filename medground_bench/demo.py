"""The whole chain on phantoms and toy LVLMs: nothing else on the machine is needed, and no network.

phantom candidates -> causal filter (two toy LVLMs, two modes) -> dataset folder -> ``load_dataset`` -> every method
that runs without downloads -> submissions -> validate -> score, and again by ``evaluate`` -> comparison -> report
and leaderboard. Every step resumes; a second run with the same settings finds everything done.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import MedGroundError
from medground_bench.core.files import atomic_write
from medground_bench.core.schema import MODES
from medground_bench.core.settings import require_same
from medground_bench.sources.base import Source

if TYPE_CHECKING:
    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.scoring import ComparisonReport, ScoreFile

__all__ = ["LVLMS", "DemoResult", "DemoSettings", "run_demo"]

LVLMS = ("toy_qwen", "toy_gemma")
"""The LVLMs that ship with the project."""

SIZE = (512, 448)
"""Native size of the demo's phantoms: not square, so that every transform has something to do."""

Update = Callable[[int, int, str], None]
Progress = Callable[[str], AbstractContextManager[Update]]


@dataclass(frozen=True)
class DemoSettings:
    """What decides the demo's numbers; a folder made with other settings is refused.

    Attributes
    ----------
    records : int
        Candidates put to the filter, for each LVLM and mode.
    seed : int
        Chooses the phantoms.
    methods : tuple of str
        Methods that are run.
    """

    records: int
    seed: int
    methods: tuple[str, ...]


@dataclass
class DemoResult:
    """Where everything is.

    Attributes
    ----------
    left_out : dict of str to str
        Method -> why it was not run.
    records : dict of str to int
        "LVLM mode" -> records that passed the filter.
    """

    dataset: Path
    scores: list[Path] = field(default_factory=list)
    report: Path = Path()
    leaderboard: Path = Path()
    comparison: ComparisonReport | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)


def choose_methods() -> tuple[tuple[str, ...], dict[str, str]]:
    """The registered methods that run offline, and for each of the others the reason."""
    from medground_bench.attribution.method import describe_methods

    chosen, left_out = [], {}
    for entry in describe_methods():
        if entry["error"]:
            left_out[entry["name"]] = entry["error"]
        elif "detector" in entry["needs"]:
            left_out[entry["name"]] = "its open-vocabulary detector has to be downloaded; the demo stays offline"
        elif "calibration" in entry["needs"]:
            left_out[entry["name"]] = "its heads have to be chosen on other patients first"
        else:
            chosen.append(entry["name"])
    return tuple(chosen), left_out


def run_demo(
    out: str | Path,
    *,
    records: int = 10,
    seed: int = 0,
    progress: Progress,
    say: Callable[[str], None],
) -> DemoResult:
    """Run the demo into a folder; run it again to resume.

    Parameters
    ----------
    out : path
        The folder.
    records : int
        Candidates per LVLM and mode that the filter judges; most pass.
    seed : int
        Chooses the phantoms.
    progress : callable
        Title -> context manager that yields ``update(done, total, what)``.
    say : callable
        Prints a line.

    Raises
    ------
    MedGroundError
        If the folder holds a demo made with other settings, or a step fails.
    """
    methods, left_out = choose_methods()
    out = Path(out)
    _check_settings(out, DemoSettings(records, seed, methods))
    result = DemoResult(dataset=out / "medground-bench", left_out=left_out)
    for name, reason in left_out.items():
        say(f"left out: {name}: {reason}")

    say("1/7 phantom radiographs and their candidates")
    _draw(out, records, seed, progress)
    say("2/7 causal filter: two toy LVLMs, two modes, exact counterfactuals")
    _filter(out, records, progress)
    say("3/7 dataset folder, opened by load_dataset")
    folders = _build(out, result, progress)
    say(f"4/7 attribution: {len(methods)} methods on every record")
    submissions = _generate(out, folders, methods, progress)
    say("5/7 submissions validated and scored, and scored again by evaluate")
    files = _score(out, folders, submissions, result, progress)
    say("6/7 comparison")
    from medground_bench.scoring import compare_scores

    result.comparison = compare_scores(files)
    say("7/7 pages")
    _pages(out, result, submissions, files)
    return result


def _check_settings(out: Path, settings: DemoSettings) -> None:
    path, now = out / "demo.json", asdict(settings)
    if path.is_file():
        require_same("the demo's files here", json.loads(path.read_text(encoding="utf-8")), now, where=path)
        return
    if out.is_dir() and any(out.iterdir()):
        raise MedGroundError("this folder is not a demo's and not empty", where=out, remedy="use another --out")
    with atomic_write(path) as file:
        json.dump(now, file, indent=2)
        file.write("\n")


def _draw(out: Path, records: int, seed: int, progress: Progress) -> None:
    from medground_bench.sources import open_source
    from medground_bench.sources.phantom import write_source

    count = records  # one candidate of each, as far as it goes: intervals and tests count patients, not records
    folder = out / "phantoms"
    if not folder.is_dir():
        with progress("drawing") as update:
            write_source("phantom", folder, count, seed=seed, size=SIZE, progress=update)
    while len(open_source("phantom", folder)) < records:  # a set of few findings: draw a larger one
        count *= 2
        write_source("phantom", folder, count, seed=seed, size=SIZE)


def _filter(out: Path, records: int, progress: Progress) -> None:
    from medground_bench.causal.editors import load_editor
    from medground_bench.causal.filter import filter_candidates
    from medground_bench.lvlm import load_lvlm
    from medground_bench.sources import open_source

    sources = {"phantom": _spread(open_source("phantom", out / "phantoms"))}
    editor = load_editor("phantom")
    for key in LVLMS:
        lvlm = load_lvlm(key)
        for mode in MODES:
            with progress(f"{key} {mode}") as update:
                report = filter_candidates(
                    lvlm, mode, sources, editor, out / "verdicts", limit=records, progress=update
                )
            if report.errors:
                raise MedGroundError("candidates could not be judged: " + "; ".join(report.errors))


def _spread(source: Source) -> Source:
    """The same candidates, in rounds: the first of every image, then the second of those that have one, ..."""
    rounds: Counter[str] = Counter()
    ordered = []
    for candidate in source:
        ordered.append((rounds[candidate.image_id], candidate))
        rounds[candidate.image_id] += 1
    ordered.sort(key=lambda entry: entry[0])
    return Source(source.info, source.root, [candidate for _, candidate in ordered], files=source.files)


def _build(out: Path, result: DemoResult, progress: Progress) -> dict[str, DatasetFolder]:
    from datasets import disable_progress_bars, load_dataset

    from medground_bench.dataset.folder import open_folder
    from medground_bench.dataset.plan import BuildSettings
    from medground_bench.dataset.write import build_folder

    disable_progress_bars()
    folders: dict[str, DatasetFolder] = {}
    for mode in MODES:
        if not (result.dataset / mode).is_dir():
            settings = BuildSettings(mode, {"phantom": str(out / "phantoms")}, records=str(out / "verdicts"))
            with progress(f"building {mode}") as update:
                build_folder(settings, result.dataset, progress=update)
        folders[mode] = open_folder(result.dataset, mode)
        loaded = load_dataset(str(result.dataset), mode, split="test", cache_dir=str(out / ".cache"))
        if len(loaded) != len(folders[mode]):
            raise MedGroundError(f"load_dataset sees {len(loaded)} rows of {len(folders[mode])}", where=result.dataset)
        for key in LVLMS:
            result.records[f"{key} {mode}"] = sum(name == key for name in loaded["model"])
    return folders


def _generate(
    out: Path, folders: dict[str, DatasetFolder], methods: Sequence[str], progress: Progress
) -> dict[str, list[Path]]:
    from medground_bench.attribution.generate import generate
    from medground_bench.lvlm import load_lvlm

    submissions: dict[str, list[Path]] = {mode: [] for mode in folders}
    for key in LVLMS:
        lvlm = load_lvlm(key)
        for mode, folder in folders.items():
            if not any(model == key for (model,) in folder.values("model")):
                continue  # the filter kept none: the funnel shows it
            with progress(f"{key} {mode}") as update:
                report = generate(
                    folder,
                    lvlm,
                    methods,
                    out / "submissions" / key / mode,
                    authors="medground-bench demo",
                    licence="Apache-2.0",
                    progress=update,
                )
            if report.errors:
                raise MedGroundError("attributions failed:\n  " + "\n  ".join(report.errors))
            submissions[mode] += report.submissions.values()
    return submissions


def _score(
    out: Path,
    folders: dict[str, DatasetFolder],
    submissions: dict[str, list[Path]],
    result: DemoResult,
    progress: Progress,
) -> list[ScoreFile]:
    from medground_bench.scoring import score_submissions, write_scores

    files = []
    for mode, paths in submissions.items():
        if not paths:
            continue
        with progress(f"scoring {mode}") as update:
            file = score_submissions(paths, folders[mode], progress=update)
        _check_by_evaluate(folders[mode], paths, file)
        result.scores.append(write_scores(file, out / "results" / mode / "scores.json"))
        files.append(file)
    return files


def _check_by_evaluate(folder: DatasetFolder, submissions: Sequence[Path], file: ScoreFile) -> None:
    """The metric module must say the same as ``score``, or one of them is wrong."""
    import evaluate

    from medground_bench import metric_path
    from medground_bench.submission import open_submission

    metric = evaluate.load(metric_path())
    evidence = dict(folder.values("id", "boxes"))
    for path, scored in zip(submissions, file.submissions, strict=True):
        answers = open_submission(path).predictions()
        said: dict[str, Any] = metric.compute(
            predictions=[answer.boxes for answer in answers.values()],
            references=[evidence[key] for key in answers],
            resamples=100,
        )
        whole = scored.find()
        if whole is None or abs(said["iou"] - whole.values["iou"].value) > 1e-9:
            raise MedGroundError("evaluate and score disagree", where=path)


def _pages(out: Path, result: DemoResult, submissions: dict[str, list[Path]], files: Sequence[ScoreFile]) -> None:
    from medground_bench.pages.leaderboard import write_leaderboard
    from medground_bench.pages.report import write_report

    result.report = write_report(
        out / "report.html",
        result.dataset,
        [path for paths in submissions.values() for path in paths],
        scores=files,
        verdicts=[out / "verdicts"],
        title="MedGround-Bench demo",
    )
    result.leaderboard = write_leaderboard(out / "results", out / "leaderboard.html")
