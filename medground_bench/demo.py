"""The whole chain on phantoms and toy LVLMs: nothing else on the machine is needed, and no network.

phantom candidates -> causal filter (two toy LVLMs, two modes) -> dataset folder -> ``load_dataset`` -> methods ->
submissions -> the causal test turned on them -> validate -> score, and again by ``evaluate`` -> comparison -> report
and leaderboard. With a folder of normal radiographs, findings planted in them take the place of the phantoms. Two
processes share the work where there are two cores. Every step resumes; a second run with the same settings finds
everything done.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import queue
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.causal.verdicts import read_verdicts
from medground_bench.core.errors import MedGroundError
from medground_bench.core.processes import ProcessGroup, end_with_parent
from medground_bench.core.schema import MODES
from medground_bench.core.settings import same_as_before
from medground_bench.sources.base import Source

if TYPE_CHECKING:
    from medground_bench.causal.filter import FilterReport
    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.scoring import ComparisonReport, ScoreFile

__all__ = ["LVLMS", "DemoResult", "DemoSettings", "run_demo"]

LVLMS = ("toy_qwen", "toy_gemma")
"""The LVLMs whose answers are attributed."""

SHORTCUT = "toy_shortcut"
"""The negative example: it answers from a marker in the corner, so that the filter must reject what it says."""

MARKED = 24
"""Candidates, on phantoms with a marker, that the filter judges for it."""

PROTOCOL = "necessity_edited"
"""The protocol that submissions are evaluated by: the causal test, turned on the boxes that a method reports."""

EVALUATED = 6
"""Records of an LVLM and mode that the protocol looks at: enough for an interval, and soon done."""

FAINT = 0.25
"""Share of the phantoms whose findings are faint."""

SIZE = (512, 448)
"""Native size of the demo's phantoms: not square, so that every transform has something to do."""

METHODS: Mapping[str, Mapping[str, Any]] = {
    "medfocus_guided": {"relevance": "dave"},  # 9 shifts in place of 25
    "medfocus_minimal": {"budget": 48},
    "medfocus_multi_atlas": {},
    "occlusion": {"rows": 5, "cols": 5},
    "lrp": {},
    "grad_attention": {},
    "attention": {},
    "rollout": {},
    "gradcam": {},
    "agcam": {},
    "random_map": {},
    "centre_prior": {},
    "sobel": {},
}
"""Methods that the demo runs by default, one or two of each family, controls among them, and where they are lighter
than by default. Every registered method that runs offline is "all"; those that are not here would keep the reader
waiting."""

Update = Callable[[int, int, str], None]
Progress = Callable[[str], AbstractContextManager[Update]]


@dataclass(frozen=True)
class DemoSettings:
    """What decides the demo's numbers; a folder made with other settings is refused.

    Attributes
    ----------
    records : int
        Candidates put to the filter in direct mode, for each LVLM.
    seed : int
        Chooses the phantoms.
    methods : tuple of str
        Methods that are run. A folder keeps its own: a method that is installed later does not come in.
    canvas : str
        Folder of normal radiographs that findings are planted in; empty for phantoms.
    reason_records : int, optional
        Candidates in reason mode. By default two fifths, since reasoning takes longer, but at least eight.
    faint : float
        Share of the phantoms whose findings are faint, so that candidates fall at every gate of the filter. What is
        planted in radiographs is hard enough.
    pose : bool
        Whether canvases are turned and cropped before findings are planted in them. Phantoms are always posed.
    """

    records: int
    seed: int
    methods: tuple[str, ...]
    canvas: str = ""
    reason_records: int | None = None
    faint: float = 0.0
    pose: bool = False

    @property
    def source(self) -> str:
        """Key of the source of the candidates."""
        return "planted" if self.canvas else "phantom"

    def candidates(self, mode: str) -> int:
        """Candidates put to the filter in a mode."""
        if mode == "direct":
            return self.records
        return min(self.records, max(8, 2 * self.records // 5)) if self.reason_records is None else self.reason_records

    @property
    def drawn(self) -> int:
        """Candidates that both modes can do with."""
        return max(self.candidates(mode) for mode in MODES)


@dataclass
class DemoResult:
    """Where everything is.

    Attributes
    ----------
    left_out : dict of str to str
        Method -> why it was not run.
    records : dict of str to int
        "LVLM mode" -> records that passed the filter.
    shortcut : dict of str to int
        Candidates of the negative example by the gate at which they fell; ``"kept"`` for those that did not.
    """

    dataset: Path
    scores: list[Path] = field(default_factory=list)
    report: Path = Path()
    leaderboard: Path = Path()
    comparison: ComparisonReport | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    shortcut: dict[str, int] = field(default_factory=dict)


def choose_methods(wanted: Sequence[str] | None = None) -> tuple[tuple[str, ...], dict[str, str]]:
    """Methods to run, in the order of their names, and for each that is left out the reason.

    Parameters
    ----------
    wanted : sequence of str, optional
        By default :data:`METHODS`, as far as they are installed; ``["all"]`` is every registered method that runs
        offline; names are taken as they are.
    """
    from medground_bench.attribution.method import describe_methods, get_method

    if wanted and list(wanted) != ["all"]:
        return tuple(get_method(name).name for name in wanted), {}
    chosen, left_out = [], {}
    for entry in describe_methods():
        if wanted is None and entry["name"] not in METHODS:
            continue
        if entry["error"]:
            left_out[entry["name"]] = entry["error"]
        elif "detector" in entry["needs"]:
            left_out[entry["name"]] = "its open-vocabulary detector has to be downloaded; the demo stays offline"
        elif "two_towers" in entry["needs"]:
            left_out[entry["name"]] = "it looks into two-tower models (medground-bench xbench), not into LVLMs"
        else:
            chosen.append(entry["name"])
    return tuple(chosen), left_out


def run_demo(
    out: str | Path,
    *,
    records: int = 77,
    seed: int = 0,
    methods: Sequence[str] | None = None,
    canvas: str | Path | None = None,
    reason_records: int | None = None,
    faint: float | None = None,
    pose: bool | None = None,
    processes: int | None = None,
    progress: Progress,
    say: Callable[[str], None],
) -> DemoResult:
    """Run the demo into a folder; run it again to resume.

    Parameters
    ----------
    out : path
        The folder.
    records : int
        Candidates per LVLM that the filter judges in direct mode; most pass.
    seed : int
        Chooses the phantoms.
    methods : sequence of str, optional
        As in :func:`choose_methods`; by default those that the folder was begun with.
    canvas : path, optional
        Folder of normal radiographs that findings are planted in instead.
    reason_records : int, optional
        Candidates per LVLM in reason mode; by default two fifths of ``records``, but at least eight.
    faint : float, optional
        Share of the phantoms whose findings are faint; by default that of the folder, :data:`FAINT` in a new one.
    pose : bool, optional
        Turn and crop canvases before planting; by default as in the folder, not in a new one.
    processes : int, optional
        By default two where there are two cores.
    progress : callable
        Title -> context manager that yields ``update(done, total, what)``.
    say : callable
        Prints a line.

    Raises
    ------
    MedGroundError
        If the folder holds a demo made with other settings, ``faint`` is asked of radiographs or ``pose`` of phantoms,
        or a step fails.
    """
    out = Path(out)
    begun = _begun(out)
    chosen, left_out = (begun.methods, {}) if begun and methods is None else choose_methods(methods)
    where = str(Path(canvas).absolute()) if canvas else ""
    if canvas and faint:
        raise MedGroundError(
            "faint findings are drawn in phantoms, not planted in radiographs", remedy="leave --faint out"
        )
    if pose and not canvas:
        raise MedGroundError("phantoms are posed as they are drawn", remedy="leave --pose out, or give --canvas")
    if pose is None:
        pose = bool(begun and begun.pose)
    if faint is None:
        faint = begun.faint if begun else 0.0 if canvas else FAINT
    settings = DemoSettings(records, seed, chosen, where, reason_records, faint, pose)
    _check_settings(out, settings)
    result = DemoResult(dataset=out / "medground-bench", left_out=left_out)
    for name, reason in left_out.items():
        say(f"left out: {name}: {reason}")

    say(f"1/8 {'findings planted in radiographs' if canvas else 'phantom radiographs'} and their candidates")
    _draw(out, settings, progress, say)
    with _workers(processes or min(2, _cores())) as share:
        say("2/8 causal filter: two toy LVLMs, two modes, exact counterfactuals; a third that answers by a shortcut")
        share(_filter, out, settings, progress)
        result.shortcut = dict(Counter(v.gate or "kept" for v in read_verdicts(out / "shortcut" / "verdicts")))
        say("3/8 dataset folder, opened by load_dataset")
        _build(out, settings, result, progress, say)
        say(f"4/8 attribution: {len(chosen)} methods on {sum(result.records.values())} records")
        share(_generate, out, settings, progress)
        say(f"5/8 the causal test turned on the reported boxes of {EVALUATED} records of each LVLM and mode")
        share(_evaluate, out, settings, progress)
        say("6/8 submissions validated and scored, and scored again by evaluate")
        share(_score, out, settings, progress)
    from medground_bench.scoring import compare_scores, read_scores

    submissions = [path for mode in MODES for path in _submissions(out, settings, mode)]
    result.scores = [_scores(out, mode) for mode in MODES if _submissions(out, settings, mode)]
    files = [read_scores(path) for path in result.scores]
    say("7/8 comparison")
    result.comparison = compare_scores(files)
    say("8/8 pages")
    _pages(out, result, submissions, files)
    return result


def _begun(out: Path) -> DemoSettings | None:
    path = out / "demo.json"
    if not path.is_file():
        return None
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return DemoSettings(**{**held, "methods": tuple(held["methods"])})
    except (ValueError, TypeError, KeyError) as error:
        raise MedGroundError("not the settings of a demo", where=path, remedy="use another --out") from error


def _check_settings(out: Path, settings: DemoSettings) -> None:
    path = out / "demo.json"
    if not path.is_file() and out.is_dir() and any(out.iterdir()):
        raise MedGroundError("this folder is not a demo's and not empty", where=out, remedy="use another --out")
    same_as_before(
        "the demo's files here",
        path,
        asdict(settings),
        unasked={"reason_records": None, "faint": DemoSettings.faint, "pose": DemoSettings.pose},
    )


# Processes -----------------------------------------------------------------------------------------------------------

Task = Callable[[Path, DemoSettings, ProcessGroup, Update], None]
"""A share of the work: folder, settings, whose share it is, progress."""

_told: Any = None  # in a worker: the queue that its progress goes to, and the event that asks it to stop
_stop: Any = None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _workers(count: int) -> Iterator[Callable[[Task, Path, DemoSettings, Progress], None]]:
    """``share(task, out, settings, progress)``: the task in so many processes; the first failure is raised."""
    if count == 1:

        def alone(task: Task, out: Path, settings: DemoSettings, progress: Progress) -> None:
            with progress("one process") as update:
                task(out, settings, ProcessGroup(), update)

        yield alone
        return
    context = multiprocessing.get_context("spawn")
    told, stop = context.Queue(), context.Event()
    with ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(told, stop)) as pool:

        def share(task: Task, out: Path, settings: DemoSettings, progress: Progress) -> None:
            groups = [ProcessGroup(rank, count, rank) for rank in range(count)]
            with progress(f"{count} processes") as update:
                _follow([pool.submit(_report, task, out, settings, group) for group in groups], told, update)

        try:
            yield share
        except BaseException:
            stop.set()
            raise


def _begin(told: Any, stop: Any) -> None:
    global _told, _stop
    end_with_parent()
    import torch

    torch.set_num_threads(1)
    _told, _stop = told, stop


def _report(task: Task, out: Path, settings: DemoSettings, group: ProcessGroup) -> None:
    def update(done: int, total: int, what: str) -> None:
        if _stop.is_set():
            raise MedGroundError("stopped with the others", remedy="run the demo again: it goes on from here")
        _told.put((group.rank, done, total, what))

    task(out, settings, group, update)


def _follow(under_way: Sequence[Future[None]], told: Any, update: Update) -> None:
    """Show the sum of everybody's progress until all are done."""
    counts: dict[int, tuple[int, int]] = {}
    while True:
        for future in under_way:
            if future.done():
                future.result()
        if all(future.done() for future in under_way):
            return
        with suppress(queue.Empty):
            rank, done, total, what = told.get(timeout=0.2)
            counts[rank] = (done, total)
            update(sum(d for d, _ in counts.values()), sum(t for _, t in counts.values()), what)


# The steps -----------------------------------------------------------------------------------------------------------


def _draw(out: Path, settings: DemoSettings, progress: Progress, say: Callable[[str], None]) -> None:
    from medground_bench.sources import open_source
    from medground_bench.sources.phantom import write_source
    from medground_bench.sources.planted import load_localizer, write_planted

    marked = out / "shortcut" / "phantom"
    if not marked.is_dir():
        write_source("phantom", marked, MARKED, seed=settings.seed, size=SIZE, markers=True)
    # One candidate of each image, as far as it goes: intervals and tests count patients, not records.
    folder, count = out / settings.source, settings.drawn
    with progress("drawing") as update:
        if settings.canvas and not folder.is_dir():
            localizer = load_localizer("multi_atlas", pool="phantom")
            written = write_planted(
                settings.canvas,
                folder,
                count,
                localizer=localizer,
                at_most=True,
                seed=settings.seed,
                pose=settings.pose,
                progress=update,
            )
            for refused in written.refused:
                say(f"refused {refused}")
            if written.images < count:
                say(f"{written.images} radiographs of {count} that were asked for carry findings")
        elif not folder.is_dir():
            write_source("phantom", folder, count, seed=settings.seed, size=SIZE, faint=settings.faint, progress=update)
        while not settings.canvas and len(open_source("phantom", folder)) < settings.drawn:
            count *= 2  # a set of few findings: draw a larger one
            write_source("phantom", folder, count, seed=settings.seed, size=SIZE, faint=settings.faint, progress=update)


def _filter(out: Path, settings: DemoSettings, group: ProcessGroup, update: Update) -> None:
    from medground_bench.causal.editors import load_editor
    from medground_bench.causal.filter import filter_candidates
    from medground_bench.lvlm import load_lvlm
    from medground_bench.sources import open_source

    sources = {settings.source: _spread(open_source(settings.source, out / settings.source))}
    marked = {"phantom": _spread(open_source("phantom", out / "shortcut" / "phantom"))}
    there = len(sources[settings.source])  # canvases may carry fewer than were asked for
    work = {f"{key} {mode}": min(there, settings.candidates(mode)) for key in LVLMS for mode in MODES}
    stages = _stages(update, {**work, SHORTCUT: min(MARKED, len(marked["phantom"]))}, group)
    editor = load_editor(settings.source)
    for key in LVLMS:
        lvlm = load_lvlm(key)
        for mode in MODES:
            limit = settings.candidates(mode)
            report = filter_candidates(
                lvlm,
                mode,
                sources,
                editor,
                out / "verdicts",
                limit=limit,
                group=group,
                progress=stages[f"{key} {mode}"],
            )
            _all_judged(report)
    report = filter_candidates(
        load_lvlm(SHORTCUT),
        "direct",
        marked,
        load_editor("phantom"),
        out / "shortcut" / "verdicts",
        limit=MARKED,
        group=group,
        progress=stages[SHORTCUT],
    )
    _all_judged(report)


def _all_judged(report: FilterReport) -> None:
    if report.errors:
        raise MedGroundError("candidates could not be judged: " + "; ".join(report.errors))


def _stages(update: Update, sizes: Mapping[str, int], group: ProcessGroup, each: int = 1) -> dict[str, Update]:
    """For each stage of a process's share its own progress, which counts what the stages before it have done."""
    shares = {name: each * len(range(group.rank, size, group.world_size)) for name, size in sizes.items()}
    whole, before = sum(shares.values()), 0
    stages: dict[str, Update] = {}
    for name, share in shares.items():
        stages[name] = partial(_at_stage, update, name, before + share, whole)
        before += share
    return stages


def _at_stage(update: Update, name: str, after: int, whole: int, done: int, total: int, what: str) -> None:
    update(after - total + done, whole, f"{name}: {what}")  # a run that resumes has less to do


def _spread(source: Source) -> Source:
    """The same candidates, in rounds: one of every image, then another of those that have two, ...

    Which comes first is drawn, by its id: sources list findings in an order of their own, and the first of every image
    would be cardiomegaly wherever there is one.
    """
    rounds: Counter[str] = Counter()
    ordered = []
    for candidate in sorted(source, key=lambda c: hashlib.sha256(c.id.encode()).digest()):
        ordered.append((rounds[candidate.image_id], candidate))
        rounds[candidate.image_id] += 1
    places = {candidate.id: place for place, candidate in enumerate(source)}
    ordered.sort(key=lambda entry: (entry[0], places[entry[1].id]))
    return Source(source.info, source.root, [candidate for _, candidate in ordered], files=source.files)


def _build(
    out: Path, settings: DemoSettings, result: DemoResult, progress: Progress, say: Callable[[str], None]
) -> None:
    from datasets import disable_progress_bars, load_dataset

    from medground_bench.dataset.folder import open_folder
    from medground_bench.dataset.plan import BuildSettings
    from medground_bench.dataset.write import build_folder

    disable_progress_bars()
    judged = [verdict for verdict in read_verdicts(out / "verdicts") if verdict.model in LVLMS]
    passed = {verdict.mode for verdict in judged if verdict.gate is None}
    if not passed:
        raise MedGroundError(
            "no candidate passed the filter",
            where=out / "verdicts",
            expected=f"at least one of {len(judged)}",
            remedy="more --records in another --out",
        )
    for mode in MODES:
        if mode not in passed:
            say(f"no candidate passed the filter in {mode} mode: it has no records")
            result.records.update({f"{key} {mode}": 0 for key in LVLMS})
            continue
        if not (result.dataset / mode).is_dir():
            sources = {settings.source: str(out / settings.source)}
            build = BuildSettings(mode, sources, records=str(out / "verdicts"))
            with progress(f"building {mode}") as update:
                build_folder(build, result.dataset, progress=update)
        rows = len(open_folder(result.dataset, mode))
        loaded = load_dataset(str(result.dataset), mode, split="test", cache_dir=str(out / ".cache"))
        if len(loaded) != rows:
            raise MedGroundError(f"load_dataset sees {len(loaded)} rows of {rows}", where=result.dataset)
        for key in LVLMS:
            result.records[f"{key} {mode}"] = sum(name == key for name in loaded["model"])


def _kept(out: Path) -> tuple[dict[str, DatasetFolder], dict[str, int]]:
    """Mode -> dataset folder, where anything passed the filter, and "LVLM mode" -> how many records it has."""
    from medground_bench.dataset.folder import open_folder

    dataset = out / "medground-bench"
    folders: dict[str, DatasetFolder] = {m: open_folder(dataset, m) for m in MODES if (dataset / m).is_dir()}
    owners = {mode: [model for (model,) in folder.values("model")] for mode, folder in folders.items()}
    return folders, {f"{key} {mode}": owners.get(mode, []).count(key) for key in LVLMS for mode in MODES}


def _generate(out: Path, settings: DemoSettings, group: ProcessGroup, update: Update) -> None:
    from medground_bench.attribution.generate import generate
    from medground_bench.lvlm import load_lvlm

    folders, records = _kept(out)
    stages = _stages(update, records, group, each=len(settings.methods))
    for key in LVLMS:
        lvlm = load_lvlm(key)
        for mode in MODES:
            if not records[f"{key} {mode}"]:
                continue
            report = generate(
                folders[mode],
                lvlm,
                settings.methods,
                out / "submissions",
                settings={name: METHODS[name] for name in settings.methods if name in METHODS},
                rank=group.rank,
                world_size=group.world_size,
                authors="medground-bench demo",
                licence="Apache-2.0",
                progress=stages[f"{key} {mode}"],
            )
            if report.errors:
                raise MedGroundError("attributions failed:\n  " + "\n  ".join(report.errors))


def _evaluate(out: Path, settings: DemoSettings, group: ProcessGroup, update: Update) -> None:
    from medground_bench.causal.editors import load_editor
    from medground_bench.lvlm import load_lvlm
    from medground_bench.scoring.protocols.run import run_protocols
    from medground_bench.sources import open_source

    folders, kept = _kept(out)
    records = {name: min(EVALUATED, count) for name, count in kept.items()}
    stages = _stages(update, records, group, each=len(settings.methods))
    sources = [open_source(settings.source, out / settings.source)]
    editor = load_editor(settings.source)
    for key in LVLMS:
        lvlm = load_lvlm(key)
        for mode in MODES:
            if not records[f"{key} {mode}"]:
                continue
            report = run_protocols(
                [out / "submissions" / key / mode / method for method in settings.methods],
                folders[mode],
                [PROTOCOL],
                out / "protocols" / key / mode,
                lvlm=lvlm,
                editor=editor,
                sources=sources,
                settings={PROTOCOL: {"draws": 1}},
                limit=EVALUATED,
                rank=group.rank,
                world_size=group.world_size,
                progress=stages[f"{key} {mode}"],
            )
            if report.errors or report.missing:
                raise MedGroundError("protocols failed:\n  " + "\n  ".join(report.errors + report.missing))


def _submissions(out: Path, settings: DemoSettings, mode: str) -> list[Path]:
    """The submissions of a mode; none of an LVLM of which the filter kept nothing: the funnel shows it."""
    _, records = _kept(out)
    kept = [key for key in LVLMS if records[f"{key} {mode}"]]
    return [out / "submissions" / key / mode / method for key in kept for method in settings.methods]


def _scores(out: Path, mode: str) -> Path:
    return out / "results" / mode / "scores.json"


def _score(out: Path, settings: DemoSettings, group: ProcessGroup, update: Update) -> None:
    from medground_bench.scoring import score_submissions, write_scores
    from medground_bench.scoring.protocols.join import join_protocols
    from medground_bench.scoring.protocols.result import read_results

    folders, records = _kept(out)
    work = {mode: _submissions(out, settings, mode) for mode in MODES[group.rank :: group.world_size]}
    whole, before = sum(map(len, work.values())), 0
    for mode, paths in work.items():
        if not paths:
            continue
        told = partial(_at_stage, update, mode, before + len(paths), whole)
        file = score_submissions(paths, folders[mode], sources=_known(out), progress=told)
        before += len(paths)
        _check_by_evaluate(folders[mode], paths, file)
        kept = [key for key in LVLMS if records[f"{key} {mode}"]]
        if stray := join_protocols(file, (r for key in kept for r in read_results(out / "protocols" / key / mode))):
            raise MedGroundError("results of protocols on other predictions:\n  " + "\n  ".join(stray))
        write_scores(file, _scores(out, mode))


def _known(out: Path) -> list[Source]:
    """What tells the anatomical concepts of the demo's images: the phantoms, where they are such."""
    from medground_bench.sources import open_source

    return [open_source("phantom", out / "phantom")] if (out / "phantom").is_dir() else []


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


def _pages(out: Path, result: DemoResult, submissions: Sequence[Path], files: Sequence[ScoreFile]) -> None:
    from medground_bench.pages.leaderboard import write_leaderboard
    from medground_bench.pages.report import write_report

    result.report = write_report(
        out / "report.html",
        result.dataset,
        submissions,
        scores=files,
        verdicts=[out / "verdicts", out / "shortcut" / "verdicts"],
        sources=_known(out),
        title="MedGround-Bench demo",
    )
    result.leaderboard = write_leaderboard(out / "results", out / "leaderboard.html", report=result.report)
