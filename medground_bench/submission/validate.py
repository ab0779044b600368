"""Validating a submission: as a stream, every faulty row, whatever the file holds."""

from __future__ import annotations

import stat
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import SubmissionError
from medground_bench.core.numbering import Numbering
from medground_bench.core.schema import MODES
from medground_bench.dataset.columns import withheld
from medground_bench.dataset.folder import open_folder, open_for_mode, read_build_record
from medground_bench.submission.checks import (
    check_header,
    check_row,
    clean,
    is_number,
    mask_warnings,
    open_heatmap,
    row_warnings,
)
from medground_bench.submission.coordinates import CoordinateCheck
from medground_bench.submission.format import (
    HEADER_FILE,
    MAX_LINES,
    PREDICTIONS_FILE,
    TIME_LIMIT,
    Clock,
    Fault,
    ValidationReport,
)
from medground_bench.submission.strict_json import (
    MAX_LINE_BYTES,
    JsonFault,
    Parsed,
    parse_json,
    read_lines,
    read_object,
)

if TYPE_CHECKING:
    from medground_bench.dataset.folder import DatasetFolder

__all__ = ["iter_rows", "must_answer", "validate_submission"]


class _Known:
    """What the dataset knows: the records a submission must answer, and whose the other ids are; and what was answered.

    Numbers alone are kept: about 100 bytes a record.
    """

    def __init__(self, dataset: DatasetFolder, header: Mapping[str, Any]) -> None:
        self._dataset = dataset
        self._ids = Numbering()
        self._owners: dict[str, int] = {}  # who the records of others belong to -> their code, from 1
        self._owner = array("H")  # of a record: 0 if it is wanted
        self._sizes, self._boxes, self._ends = array("l"), array("d"), array("L")
        self.wanted = 0
        columns = dataset.values("id", "model", "mode", "width", "height", "boxes")
        for key, lvlm, mode, width, height, boxes in columns:
            if boxes is None:
                raise withheld(key)
            if self._ids.number(key) < len(self._owner):
                continue
            mine = must_answer(lvlm, mode, header.get("lvlm"), header.get("mode"))
            whose = f"{lvlm} in mode {mode}"
            self._owner.append(0 if mine else self._owners.setdefault(whose, len(self._owners) + 1))
            self.wanted += mine
            self._sizes.extend((width, height))
            for box in boxes:
                self._boxes.extend(box)
            self._ends.append(len(self._boxes))
        self._lines = array("L", bytes(array("L").itemsize * len(self._owner)))  # of a record: 0 until it is answered

    def __len__(self) -> int:
        return len(self._owner)

    def place(self, key: str) -> int | None:
        """Where a record is; None if there is none of this id."""
        return self._ids.get(key)

    def whose(self, place: int) -> str | None:
        """LVLM and mode of a record that a submission must not answer; None for one that it must."""
        code = self._owner[place]
        return list(self._owners)[code - 1] if code else None

    def others(self) -> list[str]:
        """All of these."""
        return sorted(self._owners)

    def size(self, place: int) -> tuple[float, float]:
        return self._sizes[2 * place], self._sizes[2 * place + 1]

    def evidence(self, place: int) -> list[list[float]]:
        first = self._ends[place - 1] if place else 0
        return [self._boxes[k : k + 4].tolist() for k in range(first, self._ends[place], 4)]

    def answer(self, place: int, line: int) -> int | None:
        """Note that a record is answered in a line; the line that did so before, if one did."""
        if before := self._lines[place]:
            return before
        self._lines[place] = line
        return None

    def unanswered(self) -> Iterator[str]:
        """Ids of wanted records that were not answered, in the dataset's order."""
        if all(line or code for line, code in zip(self._lines, self._owner, strict=True)):
            return
        for (key,) in self._dataset.values("id"):
            place = self._ids.get(key)
            if place is not None and not self._owner[place] and not self._lines[place]:
                self._lines[place] = 1
                yield key


def validate_submission(
    folder: str | Path,
    dataset: DatasetFolder | str | Path | None = None,
    config: str | None = None,
    *,
    seconds: float = TIME_LIMIT,
) -> ValidationReport:
    """Check a submission and list everything that is wrong with it.

    Parameters
    ----------
    folder : path
        Holds ``submission.json`` and ``predictions.jsonl``.
    dataset : DatasetFolder or path, optional
        The dataset it was made for; without it ids, image bounds and the frame cannot be checked.
    config : str, optional
        Config of the dataset folder, when ``dataset`` is a path (default: the submission's mode).
    seconds : float
        How long it may take; what is not read by then is a fault.

    Returns
    -------
    ValidationReport
        ``valid`` when there is no fault. Nothing in the files raises: it is reported.

    Raises
    ------
    SubmissionError
        If the folder does not exist.
    BuildError
        If the dataset folder cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SubmissionError(
            "no such folder", where=folder, expected=f"a folder with {HEADER_FILE} and {PREDICTIONS_FILE}"
        )
    report = ValidationReport(str(folder))
    header = _read_header(folder, report)
    opened = _open_dataset(dataset, config, header, report)
    known = _match(opened, header, report) if opened is not None else None
    _read_predictions(folder, known, header, report, Clock(seconds))
    return report


def _open_dataset(
    dataset: DatasetFolder | str | Path | None, config: str | None, header: Mapping[str, Any], report: ValidationReport
) -> DatasetFolder | None:
    if dataset is None or not isinstance(dataset, str | Path):
        return dataset
    if config is not None:
        return open_folder(dataset, config)
    mode = header.get("mode")
    if mode in MODES:
        return open_for_mode(dataset, mode)
    configs = read_build_record(dataset)["configs"]
    if len(configs) == 1:
        return open_folder(dataset)
    message = f"ids and boxes are not checked: without a mode it is not known which of {', '.join(configs)} is meant"
    report.warn(Fault("config", message, "set 'mode', or give --config", file=HEADER_FILE, field="mode"))
    return None


def _read_header(folder: Path, report: ValidationReport) -> Mapping[str, Any]:
    problem = _not_a_file(folder / HEADER_FILE)
    if problem:
        report.faults.append(problem)
        return {}
    try:
        parsed = read_object(folder / HEADER_FILE)
    except JsonFault as fault:
        report.faults.append(Fault(fault.code, fault.message, fault.remedy, file=HEADER_FILE))
        return {}
    except OSError as error:
        report.faults.append(Fault("file", f"cannot be read: {error.strerror}", "check it", file=HEADER_FILE))
        return {}
    faults, warnings = check_header(parsed.value)
    if parsed.has_constants:
        faults.append(Fault("not-finite", "holds NaN or Infinity", "leave the value out", file=HEADER_FILE))
    report.faults += [*_json_faults(parsed, HEADER_FILE), *faults]
    report.warnings += warnings
    report.header = parsed.value if isinstance(parsed.value, dict) else {}
    return report.header


def _not_a_file(path: Path) -> Fault | None:
    """A fault unless the path is a regular file (a pipe would block for ever)."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return Fault(
            "file",
            "the file is missing",
            f"write it: a submission is {HEADER_FILE} and {PREDICTIONS_FILE}",
            file=path.name,
        )
    if not stat.S_ISREG(mode):
        return Fault(
            "file",
            "not a regular file",
            f"write it: a submission is {HEADER_FILE} and {PREDICTIONS_FILE}",
            file=path.name,
        )
    return None


def _json_faults(parsed: Parsed, file: str, line: int | None = None, key: str | None = None) -> list[Fault]:
    faults = []
    if parsed.duplicate_keys:
        names = clean(", ".join(parsed.duplicate_keys))
        faults.append(Fault("duplicate-key", f"duplicate keys: {names}", "give every key once", file, line, key))
    if parsed.has_surrogates:
        message = "a text holds half of a character (a lone surrogate)"
        faults.append(Fault("encoding", message, "write whole characters", file, line, key))
    return faults


def must_answer(record_lvlm: str | None, record_mode: str | None, lvlm: Any, mode: Any) -> bool:
    """Whether a submission for an LVLM and mode must answer a record; a candidate has neither: it belongs to all."""
    return (not record_lvlm or record_lvlm == lvlm) and (not record_mode or record_mode == mode)


def _match(dataset: DatasetFolder, header: Mapping[str, Any], report: ValidationReport) -> _Known:
    """Split the dataset's ids into the wanted and the others; check that header and dataset belong together."""
    stated = header.get("dataset_fingerprint")
    if isinstance(stated, str) and stated != dataset.fingerprint:
        message = f"made for dataset {clean(stated)!r}, this one is {dataset.fingerprint!r}"
        remedy = "validate and score with the dataset (and config) the predictions were made for"
        report.faults.append(Fault("fingerprint", message, remedy, file=HEADER_FILE, field="dataset_fingerprint"))
    known = _Known(dataset, header)
    if not known.wanted and isinstance(header.get("lvlm"), str) and isinstance(header.get("mode"), str):
        who = ", ".join(known.others()[:12])
        message = f"the dataset has no record of {clean(header['lvlm'])} in mode {clean(header['mode'])}"
        report.faults.append(Fault("lvlm", message, f"it has {who or 'none'}", file=HEADER_FILE, field="lvlm"))
    return known


def iter_rows(folder: str | Path, most: int = MAX_LINES) -> Iterator[tuple[int, Parsed | Fault]]:
    """Non-blank lines of ``predictions.jsonl``, parsed or as the fault that keeps them from being so.

    After ``most`` lines, blank ones included, a fault ends it.
    """
    with open(Path(folder) / PREDICTIONS_FILE, "rb") as file:
        for number, content in read_lines(file):
            if number > most:
                yield number, Fault("lines", f"more than {most} lines", "write one line per record", line=number)
                return
            if content is None:
                message = f"longer than {MAX_LINE_BYTES} bytes"
                yield number, Fault("long-line", message, "save heat maps as .npy files beside it", line=number)
            elif content.strip():
                try:
                    yield number, parse_json(content)
                except JsonFault as fault:
                    yield number, Fault(fault.code, fault.message, fault.remedy, line=number)


def _read_predictions(
    folder: Path, known: _Known | None, header: Mapping[str, Any], report: ValidationReport, clock: Clock
) -> None:
    problem = _not_a_file(folder / PREDICTIONS_FILE)
    if problem:
        report.faults.append(problem)
        return
    strangers = Numbering()  # ids that the dataset does not know -> their first line
    settings = header.get("settings")
    coordinates = CoordinateCheck(settings.get("frame_side", 224) if isinstance(settings, dict) else 224)
    most = MAX_LINES if known is None else len(known) + known.wanted + 1000
    try:
        for line, parsed in iter_rows(folder, most):
            clock.check()
            report.rows += 1
            if isinstance(parsed, Fault):
                report.add(parsed)
                continue
            _judge(folder, line, parsed, known, strangers, coordinates, report)
    except SubmissionError as error:
        report.add(Fault("time", error.message, error.remedy or ""))
        return
    except OSError as error:
        message = f"cannot be read: {clean(error.strerror or str(error))}"
        report.faults.append(Fault("file", message, "check the file"))
        return
    for key in known.unanswered() if known is not None else ():
        remedy = "answer every record; 'boxes': [] if the method named no evidence"
        report.add(Fault("missing-id", "no prediction for this record", remedy, id=key))
    if not report.rows and known is None:
        report.faults.append(Fault("empty", "no predictions", "write one row per record"))
    report.warn(*coordinates.warnings())


def _judge(
    folder: Path,
    line: int,
    parsed: Parsed,
    known: _Known | None,
    strangers: Numbering,
    coordinates: Any,
    report: ValidationReport,
) -> None:
    """All faults and warnings of one parsed line."""
    row = parsed.value
    if not isinstance(row, dict):
        message = f"holds {type(row).__name__}, not an object"
        report.add(Fault("type", message, 'write {"id": ..., "boxes": [...]}', line=line))
        return
    key = row.get("id")
    shown = clean(key, 300) if isinstance(key, str) else None
    faults = _json_faults(parsed, PREDICTIONS_FILE, line, shown)
    place = known.place(key) if known is not None and isinstance(key, str) else None
    faults += [replace(f, line=line, id=shown) for f in _id_faults(key, line, known, place, strangers)]
    size = known.size(place) if known is not None and place is not None and known.whose(place) is None else None
    faults += [replace(f, line=line, id=shown) for f in check_row(row, folder, size)]
    if parsed.has_constants and not faults:
        remedy = "NaN and Infinity are not JSON: leave the value out"
        faults.append(Fault("not-finite", "holds NaN or Infinity", remedy, line=line, id=shown))
    report.add(*faults)
    report.warn(*(replace(w, line=line, id=shown) for w in [*row_warnings(row), *mask_warnings(row, folder, size)]))
    if size is not None and known is not None and place is not None:
        if row.get("heatmap") is not None and not faults:
            coordinates.add_heatmap(open_heatmap(folder, row["heatmap"]).shape, size)
        if all(fault.code == "outside" for fault in faults):  # boxes in other coordinates may reach out of the image
            coordinates.add(list(_readable(row.get("boxes"))), size, known.evidence(place))


def _id_faults(key: Any, line: int, known: _Known | None, place: int | None, strangers: Numbering) -> Iterator[Fault]:
    """Faults of an id, which is then known to be answered."""
    if not isinstance(key, str) or not key:
        message = "no 'id'" if key is None else f"'id' is {clean(key)}, not a text"
        yield Fault("id", message, "give the record's id as the dataset has it", field="id")
        return
    if known is not None and place is not None:
        before = known.answer(place, line)
    elif (first := strangers.number(key, line)) < line:
        before = first
    else:
        before = None
    if before:
        yield Fault("duplicate-id", f"already answered in line {before}", "keep one row per record", field="id")
    whose = known.whose(place) if known is not None and place is not None else None
    if known is not None and (place is None or whose):
        message = f"this record belongs to {whose}" if whose else "no such record in the dataset"
        yield Fault("unknown-id", message, "submit only the records of the submission's LVLM and mode", field="id")


def _readable(boxes: Any) -> Iterator[list[float]]:
    """The boxes that are four finite numbers, whatever they mean."""
    for box in boxes if isinstance(boxes, list) else ():
        if isinstance(box, list) and len(box) == 4 and all(is_number(v) and abs(v) < 1e15 for v in box):
            yield box
