"""Records: candidates that passed the causal filter, released with the paper or found by one's own run.

Released records name a candidate by its position (:mod:`medground_bench.dataset.released`); own verdicts, the journal
``verdicts-*.jsonl`` of ``medground-bench filter``, name it by image and attribute. Both are joined here to the
candidates of the sources.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.causal.verdicts import ANSWERS, STEM, failed_gate, has_verdicts, read_verdicts
from medground_bench.core.errors import RecordsError
from medground_bench.core.files import atomic_write, cache_folder
from medground_bench.core.schema import Candidate, KeptCandidate, Mode
from medground_bench.dataset.released import (
    RELEASED,
    ReleasedRecord,
    ReleasedRecords,
    blob_id,
    read_released,
)

if TYPE_CHECKING:
    from medground_bench.sources.base import Source

__all__ = ["DOWNLOAD", "Joined", "download_released", "join_released", "join_verdicts", "load_records"]

DOWNLOAD = "download"
"""Instead of a path: fetch the released file from its pinned commit."""


@dataclass
class Joined:
    """Records of one mode joined to their candidates.

    Attributes
    ----------
    records : list of KeptCandidate
        In the order of the file (or journal) they come from.
    left_out : list of str
        What was left out because the caller allowed it.
    origin : dict
        What the records are, for the build record.
    notes : list of str
        What a user should know about them.
    """

    records: list[KeptCandidate]
    left_out: list[str] = field(default_factory=list)
    origin: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def load_records(
    path: str | Path,
    mode: Mode,
    sources: Mapping[str, Source],
    *,
    lvlms: Collection[str] = (),
    allow_other: bool = False,
    allow_missing: bool = False,
) -> Joined:
    """Read records of either kind and join them to their sources.

    Parameters
    ----------
    path : path or "download"
        Released file or folder, folder of own verdicts, or ``"download"`` for the released file.
    mode : {"direct", "reason"}
        Mode of the records.
    sources : mapping of str to Source
        Opened sources by key.
    lvlms : collection of str
        Keep the records of these LVLMs only (default all).
    allow_other : bool
        Accept a released-layout file that is not the released one.
    allow_missing : bool
        Leave out records of sources that are not given instead of stopping.

    Raises
    ------
    RecordsError
        If the records are malformed, do not fit their sources, or none is left.
    """
    if str(path) == DOWNLOAD:
        path = download_released(mode)
    if Path(path).is_dir() and has_verdicts(path):
        joined = join_verdicts(path, mode, sources, lvlms=lvlms, allow_missing=allow_missing)
    else:
        released = read_released(path, mode, allow_other=allow_other, models=lvlms)
        joined = join_released(released, sources, lvlms=lvlms, allow_missing=allow_missing)
    if not joined.records:
        raise RecordsError(f"no record of mode {mode!r} is left", where=path, expected="at least one record")
    return joined


def download_released(mode: Mode, folder: str | Path | None = None, *, url: str | None = None) -> Path:
    """Fetch a released file from its pinned commit, verify it by git blob id and keep it for next time.

    Parameters
    ----------
    mode : {"direct", "reason"}
        Which file.
    folder : path, optional
        Where it is kept (default ``records`` in :func:`medground_bench.core.files.cache_folder`).
    url : str, optional
        Fetch it from somewhere else; it is verified all the same.

    Raises
    ------
    RecordsError
        If it cannot be fetched or is not the released file.
    """
    file = RELEASED[mode]
    path = (cache_folder("records") if folder is None else Path(folder)) / file.name
    if path.is_file() and blob_id(path.read_bytes()) == file.blob:
        return path
    data = _fetch(url or file.url, limit=100_000_000)
    if blob_id(data) != file.blob:
        raise RecordsError(
            f"what was fetched is not {file.name} (its git blob id is {blob_id(data)})",
            where=url or file.url,
            expected=f"blob id {file.blob}",
            remedy="something on the way changed it; fetch it by other means and give the file with --records",
        )
    with atomic_write(path, "wb") as out:
        out.write(data)
    return path


def _fetch(url: str, limit: int) -> bytes:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            data: bytes = reply.read(limit + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise RecordsError(
            f"the released records cannot be fetched: {error}",
            where=url,
            remedy="check the network, or fetch the file by other means and give it with --records FILE",
        ) from error
    if len(data) > limit:
        raise RecordsError(f"the reply is larger than {limit} bytes", where=url)
    return data


# --- joining


def join_released(
    released: ReleasedRecords,
    sources: Mapping[str, Source],
    *,
    lvlms: Collection[str] = (),
    allow_missing: bool = False,
) -> Joined:
    """Join released records to candidates by position.

    Raises
    ------
    RecordsError
        If a source is not given, may not be joined by position, or yields fewer candidates than the records name;
        if a record names a candidate without a valid box; or if an LVLM has no record.
    """
    _check_lvlms(lvlms, {e.model for e in released.entries}, released.path)
    entries = [e for e in released.entries if not lvlms or e.model in lvlms]
    joined = Joined([], origin={"file": released.path.name, "blob": released.blob, "released": released.official})
    absent = Counter(e.dataset for e in entries if e.dataset not in sources)
    _leave_out(absent, joined, released.path, allow_missing)
    for name in dict.fromkeys(e.dataset for e in entries if e.dataset in sources):
        # The largest index over all LVLMs: a source that is too short is wrong even for those it happens to fit.
        largest = max(e.index for e in released.entries if e.dataset == name)
        _check_source(sources[name], largest, released.path)
    for entry in entries:
        if entry.dataset in sources:
            joined.records.append(_join(entry, sources[entry.dataset]))
    if released.disagreements and not released.official:
        _check_gates(joined.records, released.path)
    elif released.disagreements:
        joined.notes.append(
            f"{len(released.disagreements)} released texts read differently here than when they were released; "
            "they are kept as released"
        )
    _check_ids(joined.records, released.path)
    return joined


def _check_lvlms(lvlms: Collection[str], present: set[str], where: object) -> None:
    for key in lvlms:
        if key not in present:
            raise RecordsError(
                f"there is no record of LVLM {key!r}", where=where, expected="one of " + ", ".join(sorted(present))
            )


def _leave_out(absent: Counter[str], joined: Joined, where: object, allow_missing: bool) -> None:
    if not absent:
        return
    listing = [f"{n} records of {name}: its source was not given" for name, n in sorted(absent.items())]
    if not allow_missing:
        raise RecordsError(
            "; ".join(listing),
            where=where,
            expected=" ".join(f"--source {name}=DIR" for name in sorted(absent)),
            remedy="give the missing sources, or leave their records out with --allow-missing",
        )
    joined.left_out += listing


def _check_source(source: Source, largest: int, where: object) -> None:
    if source.join_refusal:
        raise RecordsError(
            f"released records cannot be joined to this copy of {source.name}: {source.join_refusal}",
            where=source.root,
            expected="; ".join(source.info.layout),
            remedy="give the folder with the list the records were made from",
        )
    if largest >= len(source):
        raise RecordsError(
            f"{source.name} yields {len(source)} candidates, but the records name positions up to {largest}",
            where=source.root,
            expected=f"at least {largest + 1} candidates",
            remedy=f"the copy is incomplete or of another version (see {where})",
        )


def _join(entry: ReleasedRecord, source: Source) -> KeptCandidate:
    candidate = source[entry.index]
    if not candidate.boxes and candidate.image_path.is_file():
        raise RecordsError(
            f"the record of {entry.model} names a candidate without a valid box: " + "; ".join(candidate.problems),
            where=source.where(entry.index),
            remedy="the annotation file is damaged or of another version",
        )
    return _record(entry.model, entry.mode, candidate, entry.predictions)


def _record(model: str, mode: Mode, candidate: Candidate, texts: tuple[str, str, str, str]) -> KeptCandidate:
    return KeptCandidate(
        model=model,
        mode=mode,
        candidate=candidate,
        response=texts[0],
        prediction_edited=texts[1],
        prediction_edited_kept=texts[2],
        prediction_edited_kept_normal=texts[3],
    )


def _check_gates(records: list[KeptCandidate], where: object) -> None:
    for r in records:
        texts = (r.response, r.prediction_edited, r.prediction_edited_kept, r.prediction_edited_kept_normal)
        gate = failed_gate(texts, r.candidate.attribute)
        if gate is not None:
            raise RecordsError(
                f"record {r.id} fails gate {gate!r} of the causal filter",
                where=where,
                expected="answers that read yes, no, yes, yes",
            )


def _check_ids(records: list[KeptCandidate], where: object) -> None:
    for record_id, count in Counter(r.id for r in records).items():
        if count > 1:
            raise RecordsError(f"record {record_id} is there {count} times", where=where, expected="every record once")


# --- own verdicts


def join_verdicts(
    folder: str | Path,
    mode: Mode,
    sources: Mapping[str, Source],
    *,
    lvlms: Collection[str] = (),
    allow_missing: bool = False,
) -> Joined:
    """Join the kept verdicts of a filter run to candidates by image and attribute.

    Raises
    ------
    RecordsError
        If a source is not given, or has no such candidate, or an LVLM has no record.
    """
    judged = [v for v in read_verdicts(folder) if v.mode == mode]
    _check_lvlms(lvlms, {v.model for v in judged}, folder)  # one of which nothing was kept is no mistake
    verdicts = [v for v in judged if v.kept and (not lvlms or v.model in lvlms)]
    joined = Joined([], origin={"file": f"{STEM}-*.jsonl", "released": False})
    _leave_out(Counter(v.dataset for v in verdicts if v.dataset not in sources), joined, folder, allow_missing)
    places = {name: {(c.image_id, c.attribute, c.ordinal): c for c in source} for name, source in sources.items()}
    for verdict in verdicts:
        if verdict.dataset not in sources:
            continue
        key = (verdict.image_id, verdict.attribute, verdict.ordinal)
        candidate = places[verdict.dataset].get(key)
        if candidate is None or (not candidate.boxes and candidate.image_path.is_file()):
            raise RecordsError(
                f"{verdict.dataset} has no candidate with boxes for image {key[0]!r}, attribute {key[1]!r}",
                where=folder,
                expected="the source the verdicts were made from",
            )
        one, two, three, four = (str(verdict.answers[a]) for a in ANSWERS)
        joined.records.append(_record(verdict.model, mode, candidate, (one, two, three, four)))
    _check_ids(joined.records, folder)
    return joined
