"""Methods x records -> submissions: resumable per record, shared out over processes.

Every finished (method, record) pair is one fsynced line of a part file, one part file per process, so that a
killed run loses at most the pair under way and repeats none. When the parts hold every pair, each method's
submission folder is written whole.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.attribution.limits import check_limit, time_limit
from medground_bench.attribution.method import Attribution, Method, MethodLike, as_method
from medground_bench.attribution.needs import able
from medground_bench.core.errors import MedGroundError, MethodError
from medground_bench.core.files import Journal, atomic_write, file_lock, read_journals
from medground_bench.core.settings import same_as_before
from medground_bench.core.versions import software_versions
from medground_bench.lvlm.passes import count_passes
from medground_bench.lvlm.store import Store, check_store, remembered
from medground_bench.submission import Prediction, write_submission

if TYPE_CHECKING:
    from medground_bench.dataset.columns import Record
    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.lvlm import Lvlm

__all__ = ["GenerateReport", "generate"]

_PARTS = ".parts"
_JOURNAL = "attributions"


@dataclass(frozen=True)
class GenerateReport:
    """What a run of :func:`generate` did.

    Attributes
    ----------
    submissions : dict of str to Path
        Method -> submission folder, for the methods whose every record is answered.
    computed, reused : int
        (method, record) pairs computed now and found from earlier runs.
    errors : list of str
        One line for every pair that failed: method, record id and reason. They are tried again by the next run.
    left_out : dict of str to str
        Method -> why it did not run at all: something that it needs is missing.
    """

    submissions: dict[str, Path] = field(default_factory=dict)
    computed: int = 0
    reused: int = 0
    errors: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def generate(
    records: DatasetFolder,
    lvlm: Lvlm,
    methods: MethodLike | Sequence[MethodLike],
    out: str | Path,
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    side: int | None = 224,
    limit: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    answer_errors: bool = False,
    keep_heatmaps: bool = True,
    cache: str | Path | None = None,
    authors: str = "",
    licence: str = "",
    method_timeout: float | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> GenerateReport:
    """Run attribution methods over the records of one LVLM and write their submissions.

    Parameters
    ----------
    records : DatasetFolder
        An opened config of a dataset folder; only the records of ``lvlm.key`` are used.
    lvlm : Lvlm
        The model whose stored responses are attributed.
    methods : sequence of str, Method or function
        Registered names, methods, or functions ``(lvlm, episode, **options)``; the episode of a record is prepared
        once for all of them.
    out : path
        Submissions come to lie at ``out/LVLM/MODE/METHOD``; ``out/LVLM/MODE/.parts`` is what a later run resumes from.
    settings : mapping of str to mapping, optional
        Method -> parameter overrides.
    side : int or None
        Side of the letterboxed frame in pixels; None feeds the native image.
    limit : int, optional
        Only the first ``limit`` records (a trial: the submission covers only those).
    rank, world_size : int
        This process's place among those that share the work: it takes every ``world_size``-th record.
    answer_errors : bool
        Answer a record whose method failed with no boxes (it scores 0 and the reason is kept) instead of
        withholding the submission.
    keep_heatmaps : bool
        Save heat maps beside the predictions.
    cache : path, optional
        Folder that keeps the LVLM's scores of variants of the frame, so that methods (and protocols, given the same
        folder) share passes; a method's cost is still what it would be by itself, its seconds are not.
    method_timeout : float, optional
        Seconds that a method may take for one record; a longer one fails on that record.
    progress : callable, optional
        Called with (pairs done, pairs of this process, what is under way).
    say : callable, optional
        Called with a line, before the first record, for every method that lacks something it needs; the others go on.

    Returns
    -------
    GenerateReport

    Raises
    ------
    MedGroundError
        If no record is the LVLM's, a method or parameter is unknown, no method has what it needs, or ``out`` holds
        parts made with other settings, another dataset or another model, or another process is writing there.

    Examples
    --------
    >>> def corner(lvlm, episode, size=32):
    ...     return [[0, 0, size, size]]
    >>> report = generate(records, lvlm, ["occlusion", corner], "submissions")  # doctest: +SKIP
    >>> report.submissions["corner"]  # doctest: +SKIP
    PosixPath('submissions/toy_qwen/direct/corner')
    """
    out = Path(out)
    settings = settings or {}
    found = _methods(methods)
    stray = sorted(set(settings) - {m.name for m in found})
    if stray:
        raise MethodError(f"settings are given for {', '.join(stray)}, which does not run")
    plans = [(m, m.make_parameters(settings.get(m.name))) for m in found]
    if not hasattr(records, "fingerprint"):
        raise MedGroundError(
            f"records are a {type(records).__name__}, and a submission must name the dataset it was made for",
            expected="an opened dataset folder (open_dataset)",
            remedy="for a few records of it use limit=, for single ones attribute()",
        )
    rows = [record for record in records if record.model == lvlm.key][:limit]
    if not rows:
        present = sorted({str(record.model) for record in records})
        raise MedGroundError(
            f"the dataset has no record of LVLM {lvlm.key!r}",
            where=records.path,
            expected=f"one of {', '.join(present)}" if present else "a config with records",
            remedy="choose another --lvlm, or filter candidates for this one (medground-bench filter)",
        )
    check_limit(method_timeout)
    plans, left_out = able(plans, lvlm)
    for name, reason in left_out.items():
        if say is not None:
            say(f"left out: {name}: {reason}")
    if not plans:
        raise MethodError("no method can run here: " + "; ".join(f"{n}: {r}" for n, r in left_out.items()))
    header = _header(records, lvlm, rows, side, limit)
    out = _place(out, header["lvlm"], header["mode"])
    _check_header(out, header, {m.name: _settings(m, parameters) for m, parameters in plans})
    if cache is not None:
        check_store(cache, lvlm)

    names = [method.name for method, _ in plans]
    mine = rows[rank::world_size]
    computed, errors = 0, []
    with Journal(out / _PARTS, _JOURNAL, rank) as journal:  # one writer: what is done is read once it is ours
        done = _finished(out)
        todo = sum((name, record.id) not in done for record in mine for name in names)
        reused = len(mine) * len(names) - todo
        for record in mine:
            missing = [(m, p) for m, p in plans if (m.name, record.id) not in done]
            for method, outcome, cost in _attribute(
                lvlm, record, missing, side, progress, (computed, todo), method_timeout, cache
            ):
                computed += 1
                if isinstance(outcome, Attribution):
                    journal.append({**_entry(out, record.id, method, outcome, keep_heatmaps), "cost": cost})
                else:
                    errors.append(f"{method.name} on {record.id}: {outcome}")
                    if answer_errors:
                        journal.append(
                            {"method": method.name, "row": Prediction(record.id, (), error=outcome).to_row()}
                        )
        if progress is not None:
            progress(todo, todo, "done")
        report = GenerateReport(computed=computed, reused=reused, errors=errors, left_out=left_out)
        _write_submissions(out, plans, rows, header, lvlm, {"authors": authors, "licence": licence}, report)
    return report


def _place(out: Path, lvlm: str, mode: str) -> Path:
    """``out/LVLM/MODE``, where the submissions of one run lie.

    Raises
    ------
    MedGroundError
        If ``out`` itself holds the parts of a run, as in version 0.1.0.
    """
    place = out / re.sub(r"[^A-Za-z0-9._+-]+", "_", lvlm) / mode
    if (out / _PARTS).is_dir():
        inside = out.parts[-2:] == place.parts[-2:]
        raise MedGroundError(
            "submissions lie in LVLM/MODE/METHOD below --out, and this folder holds the parts of a run itself",
            where=out,
            expected=f"a folder for all LVLMs and modes; this run would write to {place}",
            remedy=f"give --out {out.parent.parent}"
            if inside
            else f"move what it holds ({_PARTS} too) to {place}, or give another --out",
        )
    return place


def _methods(methods: MethodLike | Sequence[MethodLike]) -> list[Method]:
    """The methods, each once."""
    if isinstance(methods, str | Method) or callable(methods):
        methods = [methods]
    found = list(dict.fromkeys(as_method(one) for one in dict.fromkeys(methods)))
    names = [m.name for m in found]
    for name in names:
        if names.count(name) > 1:
            raise MethodError(
                f"two methods are called {name!r}, and a submission is named by its method",
                remedy="rename a function, or name it: method(name, family=...)(function)",
            )
    return found


def _settings(method: Method, parameters: Any) -> dict[str, Any]:
    """What decides a method's numbers: what is recorded, and what a resumed run must share."""
    marks = {"signed": method.signed, "control": method.family == "control"}
    return {**_plain(parameters), **{name: True for name, there in marks.items() if there}, **method.provenance}


def _attribute(
    lvlm: Lvlm,
    record: Record,
    plans: Sequence[tuple[Method, Any]],
    side: int | None,
    progress: Callable[[int, int, str], None] | None,
    state: tuple[int, int],
    timeout: float | None,
    cache: str | Path | None,
) -> Iterator[tuple[Method, Attribution | str, dict[str, float]]]:
    """One record through several methods, with what each cost; a failure is the reason instead of an attribution."""
    if not plans:
        return
    finished, total = state
    try:
        episode = lvlm.prepare(record.image, record.question, record.response or "", side=side)
    except (MedGroundError, OSError, ValueError, RuntimeError) as error:
        for method, _ in plans:
            yield method, _reason(error), {}
        return
    store = None if cache is None else Store(cache, record.id)
    for k, (method, parameters) in enumerate(plans):
        if progress is not None:
            progress(finished + k, total, method.name)
        begun = time.perf_counter()
        try:
            with time_limit(timeout), count_passes(lvlm) as passes, remembered(lvlm, store, passes):
                result = _checked(method.run(lvlm, episode, parameters), method)
            cost = {**asdict(passes), "seconds": round(time.perf_counter() - begun, 4)}
            if result.token_scores is not None:  # the report colours these
                texts = [token.text for token in episode.tokens]
                result = replace(result, extras={**result.extras, "token_texts": texts})
            outcome: Attribution | str = result
        except (MedGroundError, ArithmeticError, LookupError, OSError, TypeError, ValueError, RuntimeError) as error:
            outcome, cost = _reason(error), {}
        if store is not None:
            store.save(record.id)
        yield method, outcome, cost


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _checked(attribution: Attribution, method: Method) -> Attribution:
    if not np.isfinite(np.asarray(attribution.boxes, float)).all():
        raise MethodError(f"method {method.name!r} returned a box that is not finite")
    return attribution


def _entry(out: Path, record: str, method: Method, result: Attribution, keep_heatmap: bool) -> dict[str, Any]:
    name = None
    # A map that is not finite has named no evidence (degenerate) and can be neither drawn nor scored.
    if result.heatmap is not None and keep_heatmap and np.isfinite(np.asarray(result.heatmap, np.float32)).all():
        name = "heatmaps/" + hashlib.sha256(record.encode()).hexdigest()[:20] + ".npy"
        with atomic_write(out / method.name / name, "wb") as file:
            np.save(file, np.asarray(result.heatmap, np.float32), allow_pickle=False)
    tokens = result.token_scores
    prediction = Prediction(
        id=record,
        boxes=tuple(
            (round(x1, 3), round(y1, 3), round(x2, 3), round(y2, 3))
            for x1, y1, x2, y2 in np.asarray(result.boxes, float).reshape(-1, 4).tolist()
        ),
        concept=result.concept,
        concept_scores={concept: float(score) for concept, score in result.concept_scores.items()},
        tokens=None if tokens is None else tuple(float(score) for score in np.asarray(tokens).ravel()),
        fallback=bool(result.fallback),
        degenerate=bool(result.degenerate),
        heatmap=name,
        extras=_plain(result.extras),
    )
    return {"method": method.name, "row": prediction.to_row()}


def _finished(out: Path) -> dict[tuple[str, str], Prediction]:
    """(method, id) -> prediction, from all part files; the first of two equal keys counts."""
    done: dict[tuple[str, str], Prediction] = {}
    for entry in read_journals(out / _PARTS, _JOURNAL):
        done.setdefault((entry["method"], entry["row"]["id"]), Prediction.from_row(entry["row"]))
    return done


def _costs(out: Path) -> dict[str, dict[str, float]]:
    """Method -> what it cost a record in the mean: passes forward and backward, and seconds."""
    found: dict[str, list[dict[str, float]]] = {}
    for entry in read_journals(out / _PARTS, _JOURNAL):
        if entry.get("cost"):
            found.setdefault(entry["method"], []).append(entry["cost"])
    return {
        name: {key: round(float(np.mean([cost[key] for cost in costs])), 4) for key in costs[0]}
        for name, costs in found.items()
    }


def _header(
    folder: DatasetFolder, lvlm: Lvlm, rows: Sequence[Record], side: int | None, limit: int | None
) -> dict[str, Any]:
    return {
        "lvlm": lvlm.key,
        "lvlm_revision": lvlm.revision,
        "mode": rows[0].mode,
        "dataset_fingerprint": folder.fingerprint,
        "dtype": getattr(lvlm, "precision", str(lvlm.dtype).removeprefix("torch.")),
        "decoding": lvlm.decoding,
        **({"backend": lvlm.backend} if hasattr(lvlm, "backend") else {}),
        "side": side,
        "limit": limit,
        "records": len(rows),
    }


def _check_header(out: Path, header: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to mix runs: parts made for something else are an error, not a mixture."""
    with file_lock(out / _PARTS / "run.lock", wait=True):  # processes of one launch begin together
        for name, now in [("run", dict(header)), *((f"settings-{k}", v) for k, v in settings.items())]:
            same_as_before("the parts here", out / _PARTS / f"{name}.json", now)


def _write_submissions(
    out: Path,
    plans: Sequence[tuple[Method, Any]],
    rows: Sequence[Record],
    header: Mapping[str, Any],
    lvlm: Lvlm,
    credits: Mapping[str, str],
    report: GenerateReport,
) -> None:
    """Write the submission of every method that has answered every record (whichever process finishes last)."""
    done, costs = _finished(out), _costs(out)
    shared = {k: header[k] for k in ("lvlm", "lvlm_revision", "mode", "dataset_fingerprint")}
    grid: list[int] | None = None
    for method, parameters in plans:
        keys = [(method.name, record.id) for record in rows]
        if not all(key in done for key in keys):
            continue
        target = out / method.name
        grid = grid or _token_grid(lvlm, rows[0], header["side"])
        write_submission(
            target,
            {
                "method": method.name,
                **shared,
                "settings": {
                    **_settings(method, parameters),
                    "frame_side": header["side"],
                    "token_grid": grid,
                    "dtype": header["dtype"],
                    "decoding": header["decoding"],
                    **({"backend": header["backend"]} if "backend" in header else {}),
                    "limit": header["limit"],
                },
                "seed": getattr(parameters, "seed", None),
                **({"cost": costs[method.name]} if method.name in costs else {}),
                "versions": software_versions(),
                **credits,
                "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            },
            [done[key] for key in keys],
        )
        report.submissions[method.name] = target


def _token_grid(lvlm: Lvlm, record: Record, side: int | None) -> list[int] | None:
    """Rows and columns of the image tokens, by which the ceiling of the LVLM is known without it.

    All frames of one side have the same. None for native frames, which do not, and where it is not known.
    """
    if side is None:
        return None
    try:
        grid = lvlm.prepare(record.image, record.question, record.response or "", side=side).token_grid
    except (MedGroundError, OSError, ValueError, RuntimeError):
        return None
    return None if grid is None or grid.lattice is None else list(grid.lattice)


def _plain(value: Any) -> Any:
    """Parameters and extras as JSON: dataclasses, paths, tuples and NumPy values unwrapped."""
    if hasattr(value, "__dataclass_fields__"):
        return {k: _plain(v) for k, v in asdict(value).items()}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
