"""Handing in a submission: a pull request on a results repository of the Hub, with nothing in it that may not leave.

What goes up is a copy made for the purpose. Its header has the documented keys only, its rows the documented keys
only, its settings and extras the keys that methods of this package write; images are never part of it. A record of a
credentialed source is told by a keyed hash of its id, because the id says which finding is on which image; texts that a
model wrote about such an image (``extras``, ``error``) stay here, and so do its heat maps, which can be the image in
disguise. The key follows from the dataset's content (:func:`~medground_bench.dataset.masking.dataset_key`): whoever
holds the dataset recognises the ids (:func:`restored_ids`) and can score the copy, for boxes, flags and token scores
are unchanged; nobody else can.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.anatomy import COMPOSITES, CONCEPTS
from medground_bench.core.errors import MedGroundError, PublishError, SubmissionError
from medground_bench.core.files import scratch_folder
from medground_bench.core.hub import hub_errors, require_repo_id
from medground_bench.core.schema import masked_id
from medground_bench.dataset.masking import dataset_key, require_consistent
from medground_bench.sources import is_credentialed
from medground_bench.submission import (
    HEADER_FILE,
    HEADER_KEYS,
    PREDICTIONS_FILE,
    Prediction,
    ValidationReport,
    open_submission,
    validate_submission,
    write_submission,
)
from medground_bench.submission.checks import clean
from medground_bench.submission.strict_json import JsonFault, parse_json, read_lines

if TYPE_CHECKING:
    from medground_bench.dataset.folder import DatasetFolder

__all__ = [
    "Handover",
    "outgoing_copy",
    "repository_folder",
    "require_valid",
    "restored_ids",
    "submit",
]

_ROW_KEYS = ("boxes", "concept", "concept_scores", "tokens", "fallback", "degenerate", "heatmap", "extras", "error")
_TEXTS = ("extras", "error")
_EXTRAS = frozenset(
    ("token_texts", "reply", "stated", "kept", "scale", "layer", "completeness_error", "steps", "pieces", "image_share")
)  # what the methods of this package write
_VERSIONS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,40}")
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,40}")
_MASKED = re.compile(r"hmac:[0-9a-f]{64}")
_PATH_START = r"(?:file:/{0,3}|~[\w.-]*[\\/]|(?<![A-Za-z])[A-Za-z]:[\\/]|\\\\|(?<![\w/.:\\])/(?=[^\s/]))"
_PATH = re.compile(_PATH_START + r"[^\s'\"<>|]*(?:[ ]+(?:[^\s'\"/\\<>|]+[ ]+){0,2}[^\s'\"/\\<>|]*[\\/][^\s'\"<>|]*)*")
"""A path anywhere in a text; of one with spaces, everything up to its last separator."""
_UPLOADED = re.compile(rf"(?:{re.escape(HEADER_FILE)}|{re.escape(PREDICTIONS_FILE)}|heatmaps/\d{{6}}\.npy)")
_FAULTS_SHOWN = 20


@dataclass(frozen=True)
class Handover:
    """What was handed in, or would be.

    Attributes
    ----------
    url : str
        The pull request; empty when nothing was sent.
    folder : str
        Folder in the repository.
    files : tuple of str
        Paths of the files in it.
    left_out : dict of str to int
        What stayed here -> in how many places.
    """

    url: str
    folder: str
    files: tuple[str, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)


def submit(
    submission: str | Path,
    repo_id: str,
    dataset: DatasetFolder,
    *,
    heatmaps: bool = False,
    dry_run: bool = False,
    payload: str | Path | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Handover:
    """Validate a submission and open a pull request with it on a results repository (a dataset repository).

    Parameters
    ----------
    submission : path
        The submission folder; it is not changed.
    repo_id : str
        ``ORG/NAME``. It must exist; who may open pull requests there is up to its owners.
    dataset : DatasetFolder
        The opened config the submission was made for.
    heatmaps : bool
        Upload the heat maps too, of records of open sources.
    dry_run : bool
        Make the copy and say what is in it; send nothing.
    payload : path, optional
        Also write the copy here, byte for byte what is (or would be) sent. The folder must not exist, or be empty.
    token, endpoint : str, optional
        As in ``huggingface_hub``; by default the saved login and ``HF_ENDPOINT``.
    progress : callable, optional
        Called with a line for each step.

    Raises
    ------
    SubmissionError
        If the submission is not valid for the dataset.
    BuildError
        If the dataset folder is damaged.
    PublishError
        If an id of the dataset does not follow from its row, the repository is not there or the Hub refuses.
    """
    say = progress or (lambda line: None)
    require_repo_id(repo_id, "my-lab/medground-results")
    payload = None if payload is None else Path(payload)
    if payload is not None and payload.exists() and (not payload.is_dir() or any(payload.iterdir())):
        raise PublishError("this folder is not empty", where=payload, expected="a new folder for the payload")
    say("verifying the dataset")
    dataset.verify()
    require_consistent(dataset)
    say("validating")
    require_valid(submission, dataset)
    with scratch_folder(Path(tempfile.gettempdir()) / "medground-submit") as scratch:
        copy = scratch / "copy"
        left_out = outgoing_copy(submission, dataset, copy, heatmaps=heatmaps)
        header = json.loads((copy / HEADER_FILE).read_bytes())
        target = repository_folder(header)
        files = sorted(str(p.relative_to(copy).as_posix()) for p in copy.rglob("*") if p.is_file())
        strays = [name for name in files if not _UPLOADED.fullmatch(name)]
        if strays:  # the copy is our own: this would be a bug, and nothing leaves
            raise PublishError(f"the copy holds files that are no part of a submission: {', '.join(strays)}")
        if payload is not None:
            shutil.copytree(copy, payload, dirs_exist_ok=True)
        paths = tuple(f"{target}/{name}" for name in files)
        if dry_run:
            return Handover("", target, paths, left_out)
        say(f"opening a pull request with {len(files)} files")
        return Handover(_pull_request(copy, files, target, header, repo_id, token, endpoint), target, paths, left_out)


def _pull_request(
    copy: Path,
    files: Iterable[str],
    target: str,
    header: Mapping[str, Any],
    repo_id: str,
    token: str | None,
    endpoint: str | None,
) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(endpoint=endpoint, token=token)
    operations = [CommitOperationAdd(f"{target}/{name}", copy / name) for name in files]
    with hub_errors(repo_id, "submit"):
        commit = api.create_commit(
            repo_id=repo_id,
            repo_type="dataset",
            operations=operations,
            commit_message=f"Submit {header['method']} for {header['lvlm']}, {header['mode']}"[:200],
            commit_description=f"Dataset {header['dataset_fingerprint']}. Validated before it was sent.",
            create_pr=True,
        )
    return str(commit.pr_url or commit.commit_url)


def require_valid(submission: str | Path, dataset: DatasetFolder) -> ValidationReport:
    """The validation report of a submission without faults.

    Raises
    ------
    SubmissionError
        With the first faults, if there are any.
    """
    report = validate_submission(submission, dataset)
    if not report.valid:
        lines = [f"  {fault}" for fault in report.faults[:_FAULTS_SHOWN]]
        if report.count > _FAULTS_SHOWN:
            lines.append(f"  ... and {report.count - _FAULTS_SHOWN} more")
        raise SubmissionError(
            f"this submission is not valid: {report.count} faults\n" + "\n".join(lines),
            where=submission,
            remedy="run medground-bench validate for the whole list, and correct them",
        )
    return report


def repository_folder(header: Mapping[str, Any]) -> str:
    """``submissions/{lvlm}/{mode}/{method}``, with nothing in a name that means something in a path."""
    names = [re.sub(r"[^A-Za-z0-9._+-]+", "_", str(header[key])).strip("._")[:96] for key in ("lvlm", "mode", "method")]
    if not all(names):
        raise SubmissionError(
            "the names in the header cannot be used in a path",
            where=HEADER_FILE,
            expected="an LVLM, mode and method with letters or digits in their names",
        )
    return "/".join(["submissions", *names])


# --- what may leave


def outgoing_copy(
    submission: str | Path, dataset: DatasetFolder, out: str | Path, *, heatmaps: bool = False
) -> dict[str, int]:
    """Write the copy of a valid submission that may leave this machine (see the module's docstring).

    Returns
    -------
    dict of str to int
        What was left out -> in how many places.
    """
    opened, out = open_submission(submission), Path(out)
    source_of = dict(dataset.values("id", "dataset"))
    key = dataset_key(dataset)
    left_out: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for row in opened.rows():
            closed = is_credentialed(source_of[row["id"]])
            kept = {"id": row["id"], **{k: row[k] for k in _ROW_KEYS if row.get(k) is not None}}
            left_out.update(f"unknown key {clean(name, 40)!r}" for name in row if name not in ("id", *_ROW_KEYS))
            if kept.pop("heatmap", None):
                if heatmaps and not closed:
                    kept["heatmap"] = _copy_heatmap(opened.heatmap(Prediction.from_row(row)), out)
                else:
                    left_out["heat map" + (" of a credentialed image" if closed else "")] += 1
            if closed:
                kept["id"] = masked_id(row["id"], key)
                left_out["id of a credentialed record (a keyed hash is sent)"] += 1
                for name in _TEXTS:
                    if kept.pop(name, None) is not None:
                        left_out[f"{name} of a credentialed record"] += 1
            else:
                _reduce_texts(kept, left_out)
            _drop_foreign_concepts(kept, left_out)
            yield kept

    write_submission(out, _header(opened.header, left_out), rows())
    return dict(left_out)


def _copy_heatmap(heatmap: Any, out: Path) -> str:
    """Write a map anew, from its numbers alone: what else the file held stays behind."""
    import numpy as np

    folder = out / "heatmaps"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{sum(1 for _ in folder.iterdir()):06d}.npy"
    stream = io.BytesIO()
    np.save(stream, np.asarray(heatmap, np.float32), allow_pickle=False)
    (folder / name).write_bytes(stream.getvalue())
    return f"heatmaps/{name}"


def _reduce_texts(row: dict[str, Any], left_out: Counter[str]) -> None:
    """Of an open record: documented keys of the extras, and no path in any text."""
    if "extras" in row:
        left_out.update("undocumented key of extras" for name in row["extras"] if name not in _EXTRAS)
        kept = {name: row["extras"][name] for name in row["extras"] if name in _EXTRAS}
        row["extras"] = _without_paths(kept, left_out)
        if not row["extras"]:
            del row["extras"]
    if "error" in row:
        row["error"] = _without_paths(row["error"], left_out)


def _drop_foreign_concepts(row: dict[str, Any], left_out: Counter[str]) -> None:
    """Concept names outside the anatomical vocabulary are free text."""
    known = {*CONCEPTS, *COMPOSITES}
    if "concept" in row and row["concept"] not in known:
        del row["concept"]
        left_out["concept that is not in the vocabulary"] += 1
    if any(name not in known for name in row.get("concept_scores", {})):
        del row["concept_scores"]
        left_out["concept scores that are not in the vocabulary"] += 1


def _header(header: Mapping[str, Any], left_out: Counter[str]) -> dict[str, Any]:
    """The documented keys; of settings and versions, entries whose names are those of parameters and packages."""
    left_out.update(f"unknown key {clean(key, 40)!r} of the header" for key in header if key not in HEADER_KEYS)
    kept = {key: header[key] for key in HEADER_KEYS if header.get(key) is not None}
    for key, names in (("settings", _IDENTIFIER), ("versions", _VERSIONS)):
        if key in kept:
            left_out.update(f"entry of {key} with a free name" for name in kept[key] if not names.fullmatch(name))
            kept[key] = {name: value for name, value in kept[key].items() if names.fullmatch(name)}
    for key in ("lvlm_revision", "authors", "licence", "created"):
        if key in kept and not isinstance(kept[key], str):
            del kept[key]
            left_out[f"{key} of the header, which is not a text"] += 1
    return {key: _without_paths(value, left_out) for key, value in kept.items()}


def _without_paths(value: Any, left_out: Counter[str]) -> Any:
    """A value whose texts tell nothing of the user's folders.

    Of a text that is one absolute path its last part stays; a path inside a text is cut out.
    """
    if isinstance(value, Mapping):
        return {_without_paths(key, left_out): _without_paths(item, left_out) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_paths(item, left_out) for item in value]
    if not isinstance(value, str):
        return value
    if re.match(_PATH_START, value) and "\n" not in value:
        left_out["folder of a path"] += 1
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    text, count = _PATH.subn("[path]", value)
    if count:
        left_out["path in a text"] += count
    return text


# --- the other end


@contextlib.contextmanager
def restored_ids(submission: str | Path, dataset: DatasetFolder) -> Iterator[Path]:
    """A submission whose masked ids (see :func:`outgoing_copy`) are those of the dataset again.

    Yields
    ------
    Path
        The folder itself where no id is masked, else a temporary copy. Nothing is validated here.
    """
    folder = Path(submission)
    key = dataset_key(dataset)
    plain = {masked_id(row_id, key): row_id for (row_id,) in dataset.values("id")}
    with scratch_folder(Path(tempfile.gettempdir()) / "medground-ids") as copy:
        changed = False
        try:
            with open(folder / PREDICTIONS_FILE, "rb") as source, open(copy / PREDICTIONS_FILE, "wb") as target:
                for _, line in read_lines(source):
                    if line is None:  # too long: the validation of the folder itself says so
                        changed = False
                        break
                    found = _MASKED.search(line.decode("utf-8", "replace"))
                    if found and found.group() in plain:
                        line, changed = _with_id(line, plain), True
                    target.write(line)
        except OSError as error:
            raise MedGroundError(f"cannot be read: {error.strerror}", where=folder / PREDICTIONS_FILE) from error
        if not changed:
            yield folder
            return
        shutil.copy(folder / HEADER_FILE, copy / HEADER_FILE)
        if (folder / "heatmaps").is_dir():
            shutil.copytree(folder / "heatmaps", copy / "heatmaps", symlinks=True)
        yield copy


def _with_id(line: bytes, plain: Mapping[str, str]) -> bytes:
    try:
        row = parse_json(line)
    except JsonFault:
        return line
    if row.duplicate_keys or row.has_constants or not isinstance(row.value, dict):
        return line  # faults that the validation has to see
    if isinstance(key := row.value.get("id"), str) and key in plain:
        return json.dumps({**row.value, "id": plain[key]}, ensure_ascii=False).encode() + b"\n"
    return line
