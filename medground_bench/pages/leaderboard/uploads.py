"""Taking in a submission on the server that holds the references: unpack, validate, score, keep the scores.

A result is one file in the results folder, named by a digest of what was scored, written whole under a lock: two
uploads at once cannot lose each other, and none can replace another's result. What the uploader is told never holds
ids of credentialed records beyond those in the upload.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import BuildError, MedGroundError
from medground_bench.core.files import file_lock
from medground_bench.core.schema import masked_id
from medground_bench.dataset.folder import open_folder
from medground_bench.dataset.masking import dataset_key
from medground_bench.pages.leaderboard.archive import Limits, UploadError, full_disk, unpack
from medground_bench.pages.leaderboard.page import collect_results
from medground_bench.scoring import CHANCE_ROWS, score_submissions, write_scores
from medground_bench.sources import is_credentialed
from medground_bench.submission import HEADER_FILE, HEADER_KEYS, PREDICTIONS_FILE, validate_submission
from medground_bench.submission.checks import check_header, clean
from medground_bench.submission.strict_json import JsonFault, read_object
from medground_bench.submission.submit import restored_ids

if TYPE_CHECKING:
    import numpy as np

    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.scoring import Interval, ScoreFile
    from medground_bench.submission import Fault, ValidationReport

__all__ = ["Receipt", "receive_archive", "receive_folder"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()-]{0,63}")
_FAULTS_SHOWN = 20


@dataclass(frozen=True)
class Receipt:
    """What became of an accepted submission.

    Attributes
    ----------
    path : Path
        Its score file.
    method, lvlm, mode : str
        Whose it is.
    records, patients : int
        How many records were scored, and of how many patients they are.
    iou : Interval or None
        Mean IoU and its interval.
    ignored : list of str
        Files of the archive that were not looked at.
    warnings : list of str
        What the validation warned of.
    """

    path: Path
    method: str
    lvlm: str
    mode: str
    records: int
    patients: int
    iou: Interval | None
    ignored: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def receive_archive(
    archive: str | Path,
    results: str | Path,
    dataset: str | Path,
    *,
    config: str | None = None,
    limits: Limits | None = None,
    resamples: int = 10_000,
) -> Receipt:
    """Take in a ZIP archive of a submission folder.

    Parameters
    ----------
    archive : path
        What was uploaded; it is not changed.
    results : path
        Folder of the leaderboard's score files.
    dataset : path
        Dataset folder with the references.
    config : str, optional
        Accept only submissions for this config; by default for every config of the folder.
    limits : Limits, optional
        What is accepted.
    resamples : int
        Of the bootstrap.

    Raises
    ------
    UploadError
        If it is refused, with the reason for the uploader.
    """
    limits = limits or Limits()
    try:
        with tempfile.TemporaryDirectory(prefix="medground-upload-") as scratch:
            unpacked = unpack(archive, scratch, limits)
            receipt = receive_folder(
                unpacked.folder,
                results,
                dataset,
                config=config,
                limits=limits,
                resamples=resamples,
                lines=unpacked.lines,
            )
            return replace(receipt, ignored=unpacked.ignored)
    except OSError as error:
        raise full_disk(error) or error from error


def receive_folder(
    folder: str | Path,
    results: str | Path,
    dataset: str | Path,
    *,
    config: str | None = None,
    limits: Limits | None = None,
    resamples: int = 10_000,
    lines: int | None = None,
) -> Receipt:
    """Take in a submission folder, such as one of a merged pull request (see :func:`receive_archive`).

    ``lines`` is the number of lines of its predictions, where it is known.
    """
    folder, results, limits = Path(folder), Path(results), limits or Limits()
    header = _read_header(folder, limits)
    opened = _open(dataset, header, config)
    wanted = sum(1 for (model,) in opened.values("model") if model in (None, header["lvlm"]))
    lines = _count_lines(folder) if lines is None else lines
    if lines > 2 * wanted + 100:
        raise UploadError(f"{PREDICTIONS_FILE} has {lines} lines for {wanted} records", expected="one line per record")
    with restored_ids(folder, opened) as restored:
        _require_valid(validate_submission(restored, opened), opened)
        scores = _scored(restored, opened, header, resamples)
    return _keep(scores, results)


def _read_header(folder: Path, limits: Limits) -> dict[str, Any]:
    """The header, refused unless it can be shown beside others'; documented keys only."""
    try:
        value = read_object(folder / HEADER_FILE, limits.header_bytes).value
    except JsonFault as error:
        raise UploadError(f"{HEADER_FILE}: {error.message}", remedy=error.remedy) from None
    except OSError as error:
        raise UploadError(f"{HEADER_FILE} cannot be read") from error
    for fault in check_header(value)[0]:
        raise UploadError(f"{HEADER_FILE}: {fault.field or ''} {fault.message}", remedy=fault.remedy)
    header = {key: value[key] for key in HEADER_KEYS if key in value}
    for key, item in header.items():
        _check_value(key, item, limits, limits.depth)
    for key in ("method", "lvlm"):
        if not _NAME.fullmatch(header[key]):
            raise UploadError(
                f"{HEADER_FILE}: {key} {clean(header[key], 80)!r} cannot be shown",
                expected="at most 64 letters, digits, spaces and ._+()-, ASCII only",
                remedy="rename it",
            )
    if _is_chance(header["method"]):
        raise UploadError(
            f"{HEADER_FILE}: method {header['method']!r} could be taken for a chance row", remedy="rename it"
        )
    return header


def _check_value(key: str, value: Any, limits: Limits, depth: int) -> None:
    """Refuse values that are nested, long or unprintable."""
    if isinstance(value, Mapping | list):
        if depth == 0:
            raise UploadError(f"{HEADER_FILE}: {clean(key, 40)} is nested too deeply")
        items = [*value.values(), *value.keys()] if isinstance(value, Mapping) else value
        for item in items:
            _check_value(key, item, limits, depth - 1)
    elif isinstance(value, str):
        if len(value) > limits.text:
            raise UploadError(f"{HEADER_FILE}: a text in {clean(key, 40)} is longer than {limits.text} characters")
        if any(unicodedata.category(c) in ("Cc", "Cf", "Co", "Cs") for c in value):
            raise UploadError(f"{HEADER_FILE}: {clean(key, 40)} holds control characters")
    elif isinstance(value, float) and value - value != 0:
        raise UploadError(f"{HEADER_FILE}: {clean(key, 40)} holds a number that is not finite")


def _is_chance(method: str) -> bool:
    plain = re.sub(r"[^a-z]", "", method.casefold())
    return plain.startswith("chance") or plain in {re.sub(r"[^a-z]", "", row) for row in CHANCE_ROWS}


def _open(dataset: str | Path, header: Mapping[str, Any], config: str | None) -> DatasetFolder:
    if config is not None and header["mode"] != config:
        raise UploadError(f"this leaderboard is for {config}", expected=f"mode {config!r}", remedy="submit those")
    try:
        opened = open_folder(dataset, header["mode"])
    except BuildError as error:
        raise UploadError(f"this leaderboard has no records for mode {header['mode']!r}") from error
    if header["dataset_fingerprint"] != opened.fingerprint:
        raise UploadError(
            f"made for dataset {clean(header['dataset_fingerprint'], 80)!r}",
            expected=f"{opened.fingerprint!r}, which this leaderboard scores against",
            remedy="build that dataset and generate the submission again",
        )
    return opened


def _count_lines(folder: Path) -> int:
    try:
        with open(folder / PREDICTIONS_FILE, "rb") as file:
            return 1 + sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    except OSError as error:
        raise UploadError(f"{PREDICTIONS_FILE} cannot be read") from error


def _require_valid(report: ValidationReport, dataset: DatasetFolder) -> None:
    """Refuse a submission with faults, telling them."""
    if report.valid:
        return
    missing = [fault for fault in report.faults if fault.code == "missing-id"]
    others = [fault for fault in report.faults if fault.code != "missing-id"]
    told = [_told(fault) for fault in others[:_FAULTS_SHOWN]]
    if len(others) > _FAULTS_SHOWN:
        told.append(f"... and {len(others) - _FAULTS_SHOWN} more")
    if missing:  # their ids would say which findings are on which images
        told.append(f"{len(missing)} records of the dataset have no prediction")
    raise UploadError(
        f"the submission is not valid: {len(report.faults)} faults\n" + "\n".join(told),
        remedy="run medground-bench validate on it for the whole list, and correct them",
    )


def _told(fault: Fault) -> str:
    place = f"{fault.file}:{fault.line}" if fault.line else fault.file
    # Whose an id is that is not the submission's says what else the dataset holds.
    message = "no such record of this LVLM and mode" if fault.code == "unknown-id" else fault.message
    return clean(f"{place}: {fault.field or fault.code}: {message}", 300)


def _scored(folder: Path, dataset: DatasetFolder, header: Mapping[str, Any], resamples: int) -> ScoreFile:
    try:
        scores = score_submissions([folder], dataset, resamples=resamples)
    except MedGroundError as error:
        raise UploadError(clean(error.message, 300), remedy=error.remedy) from error
    (one,) = scores.submissions
    # What goes into the results folder may be published: documented keys, and no id that says what is on an image.
    one = replace(one, provenance=dict(header), warnings=[clean(w, 300) for w in one.warnings[:_FAULTS_SHOWN]])
    table = replace(scores.table, id=_masked(scores.table.id, scores.table.dataset, dataset_key(dataset)))
    return replace(scores, table=table, submissions=[one])


def _masked(ids: np.ndarray, datasets: np.ndarray, key: bytes) -> np.ndarray:
    import numpy as np

    closed = {name for name in set(datasets.tolist()) if is_credentialed(name)}
    both = zip(ids.tolist(), datasets.tolist(), strict=True)
    return np.array([masked_id(i, key) if d in closed else i for i, d in both], np.str_)


def _keep(scores: ScoreFile, results: Path) -> Receipt:
    (one,) = scores.submissions
    key = [scores.fingerprint, one.lvlm, one.mode, one.method]
    digest = hashlib.sha256(json.dumps([*key, one.predictions]).encode()).hexdigest()[:32]
    path = results / f"{digest}.json"
    try:
        results.mkdir(parents=True, exist_ok=True)
        with file_lock(results / ".lock", wait=True):
            if path.exists():
                raise UploadError(f"this submission of {one.method!r} is on the leaderboard already")
            for file in collect_results(results)[0]:
                for other in file.submissions:
                    if [file.fingerprint, other.lvlm, other.mode, other.method] == key:
                        raise UploadError(
                            f"there is a result of {one.method!r} for {one.lvlm} in mode {one.mode} already",
                            remedy="give yours another method name; results are not replaced by uploads",
                        )
            write_scores(scores, path)
    except OSError as error:
        raise full_disk(error) or error from error
    whole = one.find()
    iou = whole.values["iou"] if whole is not None else None
    patients = whole.clusters if whole is not None else 0
    return Receipt(path, one.method, one.lvlm, one.mode, len(one.rows), patients, iou, warnings=one.warnings)
