"""Taking in a submission on the server that holds the references: unpack, validate, score, keep the scores.

A result is one file in the results folder, named by a digest of what was scored, written whole under a lock: two
uploads at once cannot lose each other, and none can replace another's result. What is kept and told are rounded means
over many records (:mod:`~medground_bench.pages.leaderboard.public`); whether a record exists or was only not answered
is not told apart, and no warning that depends on the evidence is passed on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import BuildError, MedGroundError
from medground_bench.core.files import file_lock, scratch_folder, sha256_of
from medground_bench.dataset.folder import open_folder
from medground_bench.pages.leaderboard.archive import Limits, UploadError, full_disk, unpack
from medground_bench.pages.leaderboard.names import is_reserved, skeleton
from medground_bench.pages.leaderboard.page import collect_results
from medground_bench.pages.leaderboard.public import MIN_RECORDS, QUOTA, Register, public_scores
from medground_bench.scoring import score_submissions, write_scores
from medground_bench.submission import (
    HEADER_FILE,
    HEADER_KEYS,
    PREDICTIONS_FILE,
    must_answer,
    open_submission,
    validate_submission,
)
from medground_bench.submission.checks import check_header, clean
from medground_bench.submission.strict_json import JsonFault, read_object
from medground_bench.submission.submit import restored_ids

if TYPE_CHECKING:
    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.scoring import Interval, ScoreFile
    from medground_bench.submission import Fault, ValidationReport

__all__ = ["Receipt", "receive_archive", "receive_folder"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()-]{0,63}")
_FAULTS_SHOWN = 20
_TOLD_WARNINGS = ("provenance", "unknown-key")
"""Warnings about the files alone; others depend on the evidence."""

ANSWERED = 0.9
"""Share of the records that a submission must answer with a box to be scored."""


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
        Mean IoU and its interval, rounded; None where there are too few records to show it.
    ignored : list of str
        Files of the archive that were not looked at.
    warnings : list of str
        What the validation warned of, as far as that does not depend on the evidence.
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
    account: str = "",
    owner: bool = False,
    quota: int = QUOTA,
    min_records: int = MIN_RECORDS,
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
    account : str
        Who sends it: an account of the Hub, a key, or an address. Names belong to accounts, and each may send ``quota``
        submissions a day; where it is empty, the stated authors stand for it.
    owner : bool
        It comes from who runs the leaderboard: names of chance rows, controls and published methods are theirs.
    quota : int
        See ``account``.
    min_records : int
        Smallest group of records that is shown.

    Raises
    ------
    UploadError
        If it is refused, with the reason for the uploader.
    """
    limits = limits or Limits()
    try:
        with scratch_folder(Path(tempfile.gettempdir()) / "medground-upload") as scratch:
            unpacked = unpack(archive, scratch, limits)
            receipt = receive_folder(
                unpacked.folder,
                results,
                dataset,
                config=config,
                limits=limits,
                resamples=resamples,
                lines=unpacked.lines,
                account=account,
                owner=owner,
                quota=quota,
                min_records=min_records,
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
    account: str = "",
    owner: bool = False,
    quota: int = QUOTA,
    min_records: int = MIN_RECORDS,
) -> Receipt:
    """Take in a submission folder, such as one of a merged pull request (see :func:`receive_archive`).

    ``lines`` is the number of lines of its predictions, where it is known.
    """
    folder, results, limits = Path(folder), Path(results), limits or Limits()
    _refuse_links(folder)
    header = _read_header(folder, limits, owner=owner)
    opened = _open(dataset, header, config)
    wanted = sum(
        must_answer(lvlm, mode, header["lvlm"], header["mode"]) for lvlm, mode in opened.values("model", "mode")
    )
    lines = _count_lines(folder) if lines is None else lines
    if lines > 2 * wanted + 100:
        raise UploadError(f"{PREDICTIONS_FILE} has {lines} lines for {wanted} records", expected="one line per record")
    digest = "sha256:" + sha256_of(folder / PREDICTIONS_FILE)
    register = Register(results, quota)
    sender = account or _text(header.get("authors"))
    try:
        _require_new(header, opened.fingerprint, results)
        register.require_owner(header["method"], sender)
        _require_valid(validate_submission(folder), known=False)  # the files alone: nothing of the dataset is told
        register.count(sender)  # from here on every answer says something about the dataset
        with restored_ids(folder, opened) as restored:
            report = validate_submission(restored, opened)
            _require_valid(report, known=True)
            _require_answers(restored, wanted)
            scores = _scored(restored, opened, header, resamples)
        (one,) = scores.submissions
        warnings = [clean(str(w), 300) for w in report.warnings if w.code in _TOLD_WARNINGS][:_FAULTS_SHOWN]
        one = replace(one, provenance=dict(header), predictions=digest, warnings=warnings)
        shown = public_scores(replace(scores, submissions=[one]), min_records=min_records)
        receipt = _keep(shown, results, register, sender, records=len(one.positions))
    except OSError as error:
        raise full_disk(error) or error from error
    return receipt


def _refuse_links(folder: Path) -> None:
    """A link in a folder that somebody sent leads where its sender wants."""
    for path in (folder, *(folder / name for name in (HEADER_FILE, PREDICTIONS_FILE, "heatmaps"))):
        if path.is_symlink():
            raise UploadError("links are not accepted", remedy="send the files themselves")
    if (folder / "heatmaps").is_dir():
        with os.scandir(folder / "heatmaps") as entries:
            if any(not entry.is_file(follow_symlinks=False) for entry in entries):
                raise UploadError("heatmaps/ holds a link or folder", remedy="send the files themselves")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _require_answers(folder: Path, wanted: int) -> None:
    """Refuse a submission that says something about few records only: it would measure those."""
    answered = sum(bool(prediction.boxes) for prediction in open_submission(folder))
    if answered < ANSWERED * wanted:
        raise UploadError(
            f"it answers {answered} of {wanted} records with a box",
            expected=f"at least {ANSWERED:.0%}",
            remedy="a leaderboard compares methods that answer; score it yourself with medground-bench score",
        )


def _read_header(folder: Path, limits: Limits, *, owner: bool = False) -> dict[str, Any]:
    """The header, refused unless it can be shown beside others'; documented keys only."""
    try:
        parsed = read_object(folder / HEADER_FILE, limits.header_bytes)
    except JsonFault as error:
        raise UploadError(f"{HEADER_FILE}: {error.message}", remedy=error.remedy) from None
    except OSError as error:
        raise UploadError(f"{HEADER_FILE} cannot be read") from error
    value = parsed.value
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
    if not owner and is_reserved(header["method"]):
        raise UploadError(
            f"{HEADER_FILE}: method {header['method']!r} could be taken for a chance row, "
            "a control or a published method",
            remedy="rename it, for instance after your lab",
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


def _require_new(header: Mapping[str, Any], fingerprint: str, results: Path) -> None:
    """Refuse what is on the leaderboard already, before any work is done for it."""
    if not results.is_dir():
        return
    key = (fingerprint, header["lvlm"], header["mode"], skeleton(header["method"]))
    for file in collect_results(results)[0]:
        for other in file.submissions:
            if (file.fingerprint, other.lvlm, other.mode, skeleton(other.method)) == key:
                raise UploadError(
                    f"there is a result of {other.method!r} for {other.lvlm} in mode {other.mode} already",
                    remedy="give yours another method name; results are not replaced by uploads",
                )


def _require_valid(report: ValidationReport, *, known: bool) -> None:
    """Refuse a submission with faults, telling them; ``known``: it was compared with the dataset.

    Which ids the dataset has, and which it lacks, would say which findings are on which images: if they are not just
    the dataset's, this alone is told.
    """
    if report.valid:
        return
    if known and not {"unknown-id", "missing-id"}.isdisjoint(report.counts()):
        raise UploadError(
            "the ids are not those of the records of this LVLM and mode, each once",
            remedy="run medground-bench validate on it, against the dataset it was made for, and correct them",
        )
    told = [_told(fault) for fault in report.faults[:_FAULTS_SHOWN]]
    if report.count > _FAULTS_SHOWN:
        told.append(f"... and {report.count - _FAULTS_SHOWN} more")
    raise UploadError(
        f"the submission is not valid: {report.count} faults\n" + "\n".join(told),
        remedy="run medground-bench validate on it for the whole list, and correct them",
    )


def _told(fault: Fault) -> str:
    place = f"{fault.file}:{fault.line}" if fault.line else fault.file
    message = "reaches out of its image" if fault.code == "outside" else fault.message  # not how large that is
    return clean(f"{place}: {fault.field or fault.code}: {message}", 300)


def _scored(folder: Path, dataset: DatasetFolder, header: Mapping[str, Any], resamples: int) -> ScoreFile:
    try:
        return score_submissions([folder], dataset, resamples=resamples)
    except MedGroundError as error:
        raise UploadError(clean(error.message, 300), remedy=error.remedy) from error


def _keep(scores: ScoreFile, results: Path, register: Register, sender: str, *, records: int) -> Receipt:
    """Keep the scores, unless another upload that was scored meanwhile has the name."""
    (one,) = scores.submissions
    key = [scores.fingerprint, one.lvlm, one.mode, skeleton(one.method)]
    path = results / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"
    results.mkdir(parents=True, exist_ok=True)
    with file_lock(results / ".lock", wait=True):
        _require_new(one.provenance, scores.fingerprint, results)
        register.claim(str(one.provenance["method"]), sender)
        write_scores(scores, path)
    whole = one.find()
    iou = whole.values["iou"] if whole is not None else None
    patients = whole.clusters if whole is not None else 0
    return Receipt(path, one.method, one.lvlm, one.mode, records, patients, iou, warnings=one.warnings)
