"""Submissions x protocols -> results: resumable per record, shared out over processes, one cache of scores for all."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.errors import MedGroundError, ScoringError, SubmissionError
from medground_bench.core.files import Journal, file_lock, read_journals, sweep
from medground_bench.core.settings import same_as_before
from medground_bench.core.versions import software_versions
from medground_bench.lvlm.store import Store, check_store
from medground_bench.scoring.protocols.case import Case, Count, Trial
from medground_bench.scoring.protocols.protocol import Protocol, Skip, get_protocol
from medground_bench.scoring.protocols.result import ProtocolResult, aggregate_values, describe, write_result
from medground_bench.scoring.statistics import RESAMPLES
from medground_bench.scoring.table import RecordTable, Reference, load_reference
from medground_bench.submission import open_submission, validate_submission

if TYPE_CHECKING:
    from medground_bench.attribution.method import MethodLike
    from medground_bench.causal.editors.base import Editor
    from medground_bench.dataset.columns import Record
    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.lvlm import Lvlm
    from medground_bench.sources import Source

__all__ = ["ProtocolReport", "run_protocols"]

_PARTS, _CACHE, _EDITS = ".parts", ".cache", ".edits"
_JOURNAL = "measures"

Key = tuple[str, str, str]


@dataclass
class ProtocolReport:
    """What a run of :func:`run_protocols` did.

    Attributes
    ----------
    results : dict of (str, str) to ProtocolResult
        (method, protocol) -> result, where every record is done.
    paths : list of Path
        Their files.
    computed, reused : int
        (submission, protocol, record) triples computed now and found from earlier runs.
    missing : list of str
        One line for every protocol that does not run on a submission, and why.
    errors : list of str
        One line for every triple that failed. They are tried again by the next run.
    count : Count
        Passes made and found in the cache now.
    """

    results: dict[tuple[str, str], ProtocolResult] = field(default_factory=dict)
    paths: list[Path] = field(default_factory=list)
    computed: int = 0
    reused: int = 0
    missing: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    count: Count = field(default_factory=Count)


def run_protocols(
    submissions: Sequence[str | Path],
    dataset: DatasetFolder,
    protocols: Sequence[str | Protocol],
    out: str | Path,
    *,
    lvlm: Lvlm | None = None,
    editor: Editor | None = None,
    sources: Sequence[Source] = (),
    methods: Mapping[str, MethodLike] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    limit: int | None = None,
    cache: str | Path | None = None,
    rank: int = 0,
    world_size: int = 1,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> ProtocolReport:
    """Evaluate submissions of one LVLM and mode by protocols; run again with the same arguments to resume.

    Parameters
    ----------
    submissions : sequence of path
        Submission folders.
    dataset : DatasetFolder
        The opened config they were made for.
    protocols : sequence of str or Protocol
        Registered names, or protocols.
    out : path
        Gets ``{method}/{protocol}.json``, ``.parts`` (what a later run resumes from) and ``.cache`` (the LVLM's
        scores of variants, shared by all submissions and protocols).
    lvlm : Lvlm, optional
        The model of the submissions, for protocols that need it.
    editor : Editor, optional
        Of counterfactuals, for protocols that need one.
    sources : sequence of Source
        What else is known of the records: patients, masks, counterfactuals.
    methods : mapping of str to method
        The submissions' methods, where they are not registered.
    settings : mapping of str to mapping, optional
        Protocol -> parameter overrides.
    limit : int, optional
        Only the first ``limit`` records.
    cache : path, optional
        Folder of the LVLM's scores, in place of ``.cache``: that of other evaluations, or of ``generate``.
    rank, world_size : int
        This process's place among those that share the work: it takes every ``world_size``-th record.
    resamples, seed
        Of the bootstrap over patients.
    progress : callable, optional
        Called with (done, total, what is under way), of this process's share.

    Returns
    -------
    ProtocolReport
        A protocol that cannot run on a submission is named in ``missing``; the others go on.

    Raises
    ------
    MedGroundError
        If a protocol or parameter is unknown, two submissions are of one method, submissions are of different LVLMs or
        modes, or ``out`` holds parts made with other settings.
    """
    out = Path(out)
    chosen = _protocols(protocols)
    stray = sorted(set(settings or {}) - {p.name for p in chosen})
    if stray:
        raise ScoringError(f"settings are given for {', '.join(stray)}, which does not run")
    plans = [(p, p.make_parameters((settings or {}).get(p.name))) for p in chosen]
    report = ProtocolReport()
    trials = _trials(submissions, dataset, report, lvlm, editor, sources, methods or {}, limit, out / _EDITS)
    work = _work(trials, plans, report)
    if not work:
        return report
    _check_header(out, _header(trials[0], dataset, lvlm, editor, limit), plans)
    records = list(trials[0].records.values())
    if cache is None:
        cache = out / _CACHE
    elif lvlm is not None:
        check_store(cache, lvlm)
    _measure(out, Path(cache), records[rank::world_size], work, rank, report, progress)
    reference = load_reference(dataset, fingerprint=dataset.fingerprint, config=dataset.config, seed=seed)
    options = {"resamples": resamples, "seed": seed}
    _write_results(out, records, work, reference, dataset, lvlm, options, report)
    return report


def _protocols(protocols: Sequence[str | Protocol]) -> list[Protocol]:
    found = [get_protocol(p) if isinstance(p, str) else p for p in dict.fromkeys(protocols)]
    if not found:
        raise ScoringError("no protocol is named", remedy="medground-bench protocols lists them")
    return found


def _trials(
    submissions: Sequence[str | Path],
    dataset: DatasetFolder,
    report: ProtocolReport,
    lvlm: Lvlm | None,
    editor: Editor | None,
    sources: Sequence[Source],
    methods: Mapping[str, MethodLike],
    limit: int | None,
    edits: Path,
) -> list[Trial]:
    """The valid submissions; what is wrong with the others is in the report."""
    trials: list[Trial] = []
    made: dict[str, str | Path] = {}
    for path in submissions:
        faults = validate_submission(path, dataset)
        if not faults.valid:
            report.missing.append(f"{path}: not valid ({faults.count} faults): {faults.faults[0]}")
            continue
        submission = open_submission(path)
        header = submission.header
        belongs = [r for r in dataset if (r.model, r.mode) == (header["lvlm"], header["mode"])]
        answers = submission.predictions()
        records = {r.id: r for r in belongs[:limit] if r.id in answers}
        if not records:
            report.missing.append(f"{path}: it answers no record of the dataset")
            continue
        trial = Trial(submission, answers, records, lvlm, editor, sources, methods, report.count, edits)
        if trial.name in made:
            raise ScoringError(
                f"two submissions of method {trial.name!r}",
                where=f"{made[trial.name]} and {path}",
                remedy="evaluate one of them, or give one another method name",
            )
        made[trial.name] = path
        trials.append(trial)
    whose = {(t.submission.header["lvlm"], t.submission.header["mode"]) for t in trials}
    if len(whose) > 1:
        raise SubmissionError(
            f"the submissions are for {', '.join(f'{a} in mode {b}' for a, b in sorted(whose))}",
            expected="one LVLM and mode a run",
            remedy="evaluate them one after the other, each with its own --out",
        )
    return trials


def _work(
    trials: Sequence[Trial], plans: Sequence[tuple[Protocol, Any]], report: ProtocolReport
) -> list[tuple[Trial, Protocol, Any]]:
    work = []
    for protocol, parameters in plans:
        for trial in trials:
            reason = trial.missing(protocol)
            if reason is None:
                work.append((trial, protocol, parameters))
            else:
                report.missing.append(f"{protocol.name} on {trial.name}: {reason}")
    return work


def _header(
    trial: Trial, dataset: DatasetFolder, lvlm: Lvlm | None, editor: Editor | None, limit: int | None
) -> dict[str, Any]:
    header = trial.submission.header
    return {
        "lvlm": header["lvlm"],
        "mode": header["mode"],
        "dataset_fingerprint": dataset.fingerprint,
        "limit": limit,
        "scored_by": None
        if lvlm is None
        else {"revision": lvlm.revision, "dtype": _dtype(lvlm), "decoding": dict(getattr(lvlm, "decoding", {}))},
        "editor": None if editor is None else dict(editor.settings),
    }


def _dtype(lvlm: Lvlm) -> str:
    return str(getattr(lvlm, "dtype", "")).removeprefix("torch.")


def _check_header(out: Path, header: Mapping[str, Any], plans: Sequence[tuple[Protocol, Any]]) -> None:
    """Refuse to mix runs: parts made for something else are an error, not a mixture."""
    with file_lock(out / _PARTS / "run.lock", wait=True):
        same_as_before("the parts here", out / _PARTS / "run.json", header)
        for protocol, values in plans:
            path, defaults = out / _PARTS / f"settings-{protocol.name}.json", describe(protocol.make_parameters())
            same_as_before("the parts here", path, describe(values), unasked=defaults)


def _measure(
    out: Path,
    cache: Path,
    records: Sequence[Record],
    work: Sequence[tuple[Trial, Protocol, Any]],
    rank: int,
    report: ProtocolReport,
    progress: Callable[[int, int, str], None] | None,
) -> None:
    """Every protocol on every submission, a record at a time, so that its variants are still at hand."""
    identities = {id(trial): trial.identity for trial, _, _ in work}
    sweep(cache)  # a record that is done is not written again, and would leave there what a killed run has left
    with Journal(out / _PARTS, _JOURNAL, rank) as journal:
        done = set(_finished(out))
        wanted = [
            (record, [(t, p, v) for t, p, v in work if (identities[id(t)], p.name, record.id) not in done])
            for record in records
        ]
        todo = sum(len(pairs) for _, pairs in wanted)
        report.reused = len(records) * len(work) - todo
        for record, pairs in wanted:
            if not pairs:
                continue
            store = Store(cache, record.id)
            cases: dict[int, Case] = {}
            for trial, protocol, parameters in pairs:
                if progress is not None:
                    progress(report.computed, todo, f"{protocol.name}: {trial.name}")
                case = cases.setdefault(id(trial), Case(record, trial.predictions[record.id], trial, store))
                before = Count(trial.count.passes, trial.count.found, trial.count.runs)
                outcome = _outcome(case, protocol, parameters)
                if "error" in outcome:
                    report.errors.append(f"{protocol.name} on {trial.name}, {record.id}: {outcome['error']}")
                else:
                    spent = trial.count - before
                    journal.append(
                        {
                            "submission": identities[id(trial)],
                            "protocol": protocol.name,
                            "record": record.id,
                            "count": [spent.passes, spent.found, spent.runs],
                            **outcome,
                        }
                    )
                report.computed += 1
                store.save(record.id)
        if progress is not None:
            progress(todo, todo, "done")


def _outcome(case: Case, protocol: Protocol, parameters: Any) -> dict[str, Any]:
    try:
        values = protocol.function(case, parameters)
    except Skip as reason:
        return {"skipped": str(reason)}
    except (MedGroundError, ArithmeticError, LookupError, OSError, TypeError, ValueError, RuntimeError) as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    return {"values": {k: float(v) if np.isfinite(v) else None for k, v in values.items()}}


def _finished(out: Path) -> dict[Key, dict[str, Any]]:
    """(submission, protocol, record) -> entry, from all part files; the first of two equal keys counts."""
    done: dict[Key, dict[str, Any]] = {}
    for entry in read_journals(out / _PARTS, _JOURNAL):
        done.setdefault((entry["submission"], entry["protocol"], entry["record"]), entry)
    return done


def _write_results(
    out: Path,
    records: Sequence[Record],
    work: Sequence[tuple[Trial, Protocol, Any]],
    reference: Reference,
    dataset: DatasetFolder,
    lvlm: Lvlm | None,
    options: Mapping[str, Any],
    report: ProtocolReport,
) -> None:
    """Write what is whole (whichever process finishes last)."""
    done = _finished(out)
    place = {key: k for k, key in enumerate(reference.table.id.tolist())}
    for trial, protocol, parameters in work:
        ids = [record.id for record in records]
        entries = [done.get((trial.identity, protocol.name, key)) for key in ids]
        found = [entry for entry in entries if entry is not None]
        if len(found) < len(entries):
            continue
        table = reference.table.take(np.array([place[key] for key in ids], np.int64))
        result = _result(trial, protocol, parameters, ids, found, table, dataset.fingerprint, lvlm, options)
        path = out / _folder_name(trial.name) / f"{_folder_name(protocol.name)}.json"
        report.paths.append(write_result(result, path))
        report.results[trial.name, protocol.name] = result


def _folder_name(name: str) -> str:
    """A name of foreign origin as that of a file: what it would change is replaced and told apart by a checksum."""
    plain = re.sub(r"[^A-Za-z0-9_+-]+", "_", name)[:80]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _result(
    trial: Trial,
    protocol: Protocol,
    parameters: Any,
    ids: list[str],
    entries: Sequence[Mapping[str, Any]],
    table: RecordTable,
    fingerprint: str,
    lvlm: Lvlm | None,
    options: Mapping[str, Any],
) -> ProtocolResult:
    rows = [entry.get("values") or {} for entry in entries]
    names = dict.fromkeys([*(m.name for m in protocol.measures), *(k for row in rows for k in row if k[0] != "_")])
    values = {k: np.array([np.nan if row.get(k) is None else row[k] for row in rows], np.float64) for k in names}
    values = {k: column for k, column in values.items() if not np.isnan(column).all()}
    by_record = dict(_complete(ids, rows))
    spent = np.sum([entry["count"] for entry in entries], axis=0).tolist()
    header = trial.submission.header
    return ProtocolResult(
        protocol=protocol.name,
        asks=protocol.asks,
        method=trial.name,
        lvlm=str(header["lvlm"]),
        mode=str(header["mode"]),
        kind="control" if trial.settings.get("control") is True else "method",
        predictions=trial.submission.digest(),
        dataset=fingerprint,
        measures=protocol.measures,
        ids=ids,
        clusters=table.cluster,
        values=values,
        skipped=dict(Counter(str(entry["skipped"]) for entry in entries if "skipped" in entry)),
        aggregates=aggregate_values(protocol.measures, values, table, **options),
        tables=list(protocol.summarise(trial, by_record, parameters)) if protocol.summarise else [],
        count={"passes": spent[0], "found": spent[1], "runs": spent[2]},
        settings=describe(parameters),
        note=_note(trial, protocol, parameters),
        provenance={
            **({} if lvlm is None else {"lvlm": {"revision": lvlm.revision, "dtype": _dtype(lvlm)}}),
            "versions": software_versions(),
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        },
    )


def _note(trial: Trial, protocol: Protocol, parameters: Any) -> str:
    """What a reader must know of these numbers: a method that was made with the protocol's fill has an advantage."""
    said, fill = [protocol.note], getattr(parameters, "fill", None)
    # Where a signed map is to add up, the fill is to be the same.
    if fill is not None and fill == trial.settings.get("fill") and "signed" not in protocol.needs:
        said.append(f"{trial.name} was made with the fill {fill!r} that judges it here.")
    if trial.registered in protocol.optimised_by:
        said.append(f"{trial.name} searches for what this protocol rewards.")
    return " ".join(filter(None, said))


def _complete(ids: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, float]]]:
    """The records that have numbers; one that does not exist is NaN."""
    for key, row in zip(ids, rows, strict=True):
        if row:
            yield key, {k: np.nan if v is None else float(v) for k, v in row.items()}
