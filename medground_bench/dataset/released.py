"""The released records: two JSON files that name candidates by position, verified by git blob id.

``direct.json`` (1,880 records) and ``reasoning.json`` (2,060) come from the paper's repository at one pinned commit.
A record holds the LVLM's answers to the four images of the causal filter; see :class:`ReleasedRecord`.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medground_bench.causal.verdicts import failed_gate
from medground_bench.core.errors import RecordsError
from medground_bench.core.files import atomic_write
from medground_bench.core.schema import DATASETS, GATES, LVLMS, MODES, KeptCandidate, Mode

__all__ = [
    "COMMIT",
    "COUNTS",
    "RELEASED",
    "ReleasedFile",
    "ReleasedRecord",
    "ReleasedRecords",
    "blob_id",
    "read_released",
    "write_released",
]

COMMIT = "4f11fafcd6d53e8338a32c7b5a4c14f7f26db73d"
"""Commit of github.com/gzxiong/medfocus (MIT licence) that the files are pinned to."""


@dataclass(frozen=True, slots=True)
class ReleasedFile:
    """One released file: its name, git blob id, number of records, and the middle part of its prediction keys."""

    name: str
    blob: str
    records: int
    suffix: str

    @property
    def url(self) -> str:
        return f"https://raw.githubusercontent.com/gzxiong/medfocus/{COMMIT}/data/medground_bench/{self.name}"


RELEASED: dict[Mode, ReleasedFile] = {
    "direct": ReleasedFile("direct.json", "fb17fb01296b57fa4267a3ada60abc5f7ab2961c", 1880, "direct"),
    "reason": ReleasedFile("reasoning.json", "36d7d442fba0f7e33c3e8cb5a759008360ecd208", 2060, "cot"),
}

_ORDER = ("imagenome", "vindr_cxr", "padchest_gr")
COUNTS: dict[tuple[str, str], int] = {
    (model, dataset): count
    for model, counts in {
        "qwen2_5_vl_3b": (105, 30, 64),
        "qwen2_5_vl_7b": (55, 44, 43),
        "gemma3_4b": (42, 107, 73),
        "gemma3_12b": (97, 80, 105),
        "medgemma_4b": (279, 93, 190),
        "medgemma1_5_4b": (226, 79, 168),
    }.items()
    for dataset, count in zip(_ORDER, counts, strict=True)
}
"""Records of direct.json by LVLM and source."""

_PREDICTIONS = ("prediction", "prediction_edited", "prediction_edited_kept", "prediction_edited_kept_normal")


@dataclass(frozen=True, slots=True)
class ReleasedRecord:
    """One entry of a released file, its candidate still a position in its source.

    ``predictions`` are the LVLM's texts for the original image, the foreground edit, the background edit and the
    background edit to "no abnormality", exactly as they stand.
    """

    model: str
    mode: Mode
    dataset: str
    index: int
    answer: str
    predictions: tuple[str, str, str, str]


@dataclass(frozen=True)
class ReleasedRecords:
    """Records of one file, in its order.

    Attributes
    ----------
    mode : {"direct", "reason"}
        The mode all of them belong to.
    path : Path
        The file.
    blob : str
        Its git blob id.
    official : bool
        Whether it is the released file, byte for byte.
    entries : list of ReleasedRecord
        The records.
    disagreements : list of str
        Records of the official reasoning file whose long texts this project reads differently from the verdict they
        were released with; they are kept.
    """

    mode: Mode
    path: Path
    blob: str
    official: bool
    entries: list[ReleasedRecord]
    disagreements: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.entries)

    def counts(self) -> Counter[tuple[str, str]]:
        """Number of records by (LVLM, source)."""
        return Counter((e.model, e.dataset) for e in self.entries)


def blob_id(data: bytes) -> str:
    """Git's id of a file with this content (``git hash-object``)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def read_released(
    path: str | Path, mode: Mode | None = None, *, allow_other: bool = False, models: Collection[str] = ()
) -> ReleasedRecords:
    """Read and check ``direct.json``, ``reasoning.json`` or a file of the same layout.

    Parameters
    ----------
    path : path
        The file, or a folder that holds it (a checkout of the paper's repository will do).
    mode : {"direct", "reason"}, optional
        Which of the two; needed for a folder that holds both.
    allow_other : bool
        Accept a file that is not the released one, byte for byte.
    models : collection of str
        LVLM keys beside the benchmark's six that may occur (only with ``allow_other``).

    Raises
    ------
    RecordsError
        If the file is missing, cut off or malformed, is not the released one, names an unknown LVLM or source, holds
        a record twice, or a record fails a gate of the causal filter.
    """
    path = _locate(Path(path).expanduser(), mode)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordsError(f"this file cannot be read: {error.strerror or error}", where=path) from error
    entries = _load(data, path)
    found = _mode(entries, path)
    if mode is not None and mode != found:
        raise RecordsError(f"these are records of mode {found!r}", where=path, expected=f"records of mode {mode!r}")
    blob = blob_id(data)
    official = blob == RELEASED[found].blob
    if not official and not allow_other:
        raise RecordsError(
            f"this is not the released file (its git blob id is {blob})",
            where=path,
            expected=f"{RELEASED[found].name} of github.com/gzxiong/medfocus at commit {COMMIT[:12]}, "
            f"blob id {RELEASED[found].blob}",
            remedy="use --records download, or accept another file with --allow-other-records",
        )
    known = {*LVLMS, *(models if allow_other else ())}
    records = [_record(entry, found, f"{path}: record {i}", known) for i, entry in enumerate(entries)]
    _check_unique(records, path)
    disagreements = _check_gates(records, path, lenient=found == "reason")
    result = ReleasedRecords(found, path, blob, official, records, disagreements)
    if official:
        _check_counts(result)
    return result


def write_released(records: Iterable[KeptCandidate], path: str | Path) -> None:
    """Write records in the released layout: candidates by their position in their source.

    Raises
    ------
    RecordsError
        If the records are of more than one mode, or there are none.
    """
    records = list(records)
    modes = {r.mode for r in records}
    if len(modes) != 1:
        raise RecordsError(
            f"records of mode(s) {', '.join(sorted(modes)) or 'none'}", expected="records of one mode in one file"
        )
    suffix = RELEASED["direct" if modes == {"direct"} else "reason"].suffix
    entries = []
    for record in records:
        texts = (
            record.response,
            record.prediction_edited,
            record.prediction_edited_kept,
            record.prediction_edited_kept_normal,
        )
        entry: dict[str, Any] = {
            "model": record.model,
            "dataset": record.candidate.dataset,
            "index": record.candidate.index,
            "answer": record.answer,
        }
        entry.update((f"{key}_{suffix}", text) for key, text in zip(_PREDICTIONS, texts, strict=True))
        entries.append(entry)
    with atomic_write(path) as file:
        json.dump(entries, file, ensure_ascii=False, indent=2)


def _locate(path: Path, mode: Mode | None) -> Path:
    """The records file itself, or the one inside a folder."""
    if path.is_file():
        return path
    names = [RELEASED[m].name for m in ([mode] if mode else MODES)]
    if not path.is_dir():
        raise RecordsError(
            "there is no such file or folder", where=path, expected=" or ".join(names) + ", or a folder that holds it"
        )
    found = [p for folder in (path, path / "data" / "medground_bench") for n in names if (p := folder / n).is_file()]
    if not found:
        raise RecordsError(
            f"this folder holds no {' or '.join(names)}",
            where=path,
            expected="the released records, or the verdicts-*.jsonl files of 'medground-bench filter'",
            remedy="use --records download to fetch the released records",
        )
    if len({p.name for p in found}) > 1:
        raise RecordsError("this folder holds records of both modes", where=path, remedy="say which mode is meant")
    return found[0]


def _load(data: bytes, path: Path) -> list[Any]:
    try:
        entries = json.loads(data)
    except ValueError as error:
        raise RecordsError(
            f"this file is not complete JSON: {error}", where=path, remedy="it is cut off or damaged: fetch it again"
        ) from error
    if not isinstance(entries, list) or not entries:
        raise RecordsError("there are no records in this file", where=path, expected="a JSON list of records")
    return entries


def _mode(entries: list[Any], path: Path) -> Mode:
    first = entries[0] if isinstance(entries[0], dict) else {}
    for mode, file in RELEASED.items():
        if f"prediction_{file.suffix}" in first:
            return mode
    raise RecordsError(
        "the first entry is not a record",
        where=path,
        expected="objects with the keys model, dataset, index, answer and prediction_direct... or prediction_cot...",
    )


def _record(entry: Any, mode: Mode, where: str, models: Collection[str]) -> ReleasedRecord:
    keys = [f"{p}_{RELEASED[mode].suffix}" for p in _PREDICTIONS]
    missing = [
        k for k in ("model", "dataset", "index", "answer", *keys) if not isinstance(entry, dict) or k not in entry
    ]
    if missing:
        raise RecordsError(f"missing key(s): {', '.join(missing)}", where=where)
    wrong = [k for k in ("model", "dataset", "answer", *keys) if not isinstance(entry[k], str)]
    if wrong:
        raise RecordsError(f"{wrong[0]!r} is {entry[wrong[0]]!r}", where=where, expected="a text")
    if entry["model"] not in models:
        raise RecordsError(
            f"unknown LVLM key {entry['model']!r}",
            where=where,
            expected="one of " + ", ".join(sorted(models)),
            remedy="for records of your own model, name its key with --lvlm",
        )
    if entry["dataset"] not in DATASETS:
        raise RecordsError(
            f"unknown dataset key {entry['dataset']!r}", where=where, expected="one of " + ", ".join(DATASETS)
        )
    index = entry["index"]
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise RecordsError(f"'index' is {index!r}", where=where, expected="a position: 0, 1, 2, ...")
    if entry["answer"] != "Yes":
        raise RecordsError(f"'answer' is {entry['answer']!r}", where=where, expected="'Yes': every candidate's answer")
    one, two, three, four = (entry[k] for k in keys)
    return ReleasedRecord(entry["model"], mode, entry["dataset"], index, "Yes", (one, two, three, four))


def _check_unique(records: list[ReleasedRecord], path: Path) -> None:
    seen: dict[tuple[str, str, int], int] = {}
    for i, record in enumerate(records):
        key = (record.model, record.dataset, record.index)
        if key in seen:
            raise RecordsError(
                f"records {seen[key]} and {i} are the same: {record.model}, {record.dataset}, index {record.index}",
                where=path,
                expected="every record once",
            )
        seen[key] = i


def _check_gates(records: list[ReleasedRecord], path: Path, lenient: bool) -> list[str]:
    """Records that do not read yes, no, yes, yes: an error, unless the texts are long ones.

    What those were about is known when they are joined to their candidates.
    """
    failed = []
    for i, record in enumerate(records):
        gate = failed_gate(record.predictions)
        if gate is not None:
            text = record.predictions[GATES.index(gate)].strip()
            failed.append(f"record {i} ({record.model}, {record.dataset} {record.index}): gate {gate}, {text[-60:]!r}")
    if failed and not lenient:
        raise RecordsError(
            f"{len(failed)} record(s) fail a gate of the causal filter:\n  " + "\n  ".join(failed[:20]),
            where=path,
            expected="answers that read yes, no, yes, yes",
        )
    return failed


def _check_counts(records: ReleasedRecords) -> None:
    expected = RELEASED[records.mode].records
    if len(records) != expected or (records.mode == "direct" and dict(records.counts()) != COUNTS):
        raise RecordsError(
            f"the counts of the {len(records)} records are not those of the benchmark",
            where=records.path,
            expected=f"{expected} records",
        )
