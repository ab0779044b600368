"""Verdicts on disk: one JSON line per candidate, LVLM and mode, and the header that says how they were made.

A folder of verdicts holds ``filter.json`` (the header: seed, editor, sources, versions and, per LVLM and mode, the
model's revision) and ``verdicts-00000.jsonl``, ``verdicts-00001.jsonl``, ... (one part per process). It may hold
several LVLMs, modes and sources. A line:

.. code-block:: json

    {"model": "...", "mode": "direct", "dataset": "...", "image_id": "...", "attribute": "...", "index": 7,
     "gate": null, "verdict": "kept", "answers": {"original": "Yes", "foreground": "No", "background": "Yes",
     "background_normal": "Yes"}, "read": {"original": "yes", "...": "..."}, "quality": {"foreground": {"...": 0}},
     "flags": []}

``gate`` is null for a kept candidate, the first failed of :data:`medground_bench.core.schema.GATES`, or ``"error"``.
``verdict`` is ``kept``, ``rejected``, ``undecided`` (rejected because an answer decides nothing), ``error`` (image,
editor or LVLM failed; the next run tries again, and a verdict it reaches replaces the error) or ``skipped`` (no valid
evidence box).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from medground_bench.core.errors import RecordsError
from medground_bench.core.files import atomic_write, file_lock, read_journals
from medground_bench.core.schema import GATES, Candidate
from medground_bench.core.settings import require_same
from medground_bench.sources.base import Source

__all__ = [
    "ANSWERS",
    "ERROR",
    "HEADER",
    "STEM",
    "VERDICTS",
    "all_verdicts",
    "is_open",
    "read_header",
    "source_digest",
    "update_header",
    "verdict_key",
]

ANSWERS: tuple[str, ...] = ("original", "foreground", "background", "background_normal")
"""Names of the four answers, in the order of the gates."""

VERDICTS: tuple[str, ...] = ("kept", "rejected", "undecided", "error", "skipped")
"""What becomes of a candidate."""

ERROR = "error"
HEADER = "filter.json"
STEM = "verdicts"
_FORMAT = 1

Key = tuple[str, str, str, str, str, int]


def verdict_key(line: Mapping[str, Any]) -> Key:
    """(model, mode, dataset, image, attribute, ordinal): what a verdict is about."""
    return (
        line["model"],
        line["mode"],
        line["dataset"],
        line["image_id"],
        line["attribute"],
        int(line.get("ordinal", 1)),
    )


def all_verdicts(folder: str | Path) -> Iterator[dict[str, Any]]:
    """Every verdict of a folder, each candidate once per LVLM and mode.

    Raises
    ------
    RecordsError
        If the folder holds no verdicts or a line is not one.
    """
    folder = Path(folder)
    if not any(folder.glob(f"{STEM}-*.jsonl")):
        raise RecordsError(
            "there are no verdicts here",
            where=folder,
            expected=f"{STEM}-*.jsonl, as 'medground-bench filter --out' writes them",
        )
    failed = {verdict_key(line) for line in _lines(folder) if is_open(line)}
    settled = {key for line in _lines(folder) if not is_open(line) and (key := verdict_key(line)) in failed}
    seen: set[Key] = set()
    for line in _lines(folder):
        key = verdict_key(line)
        if key not in seen and not (key in settled and is_open(line)):
            seen.add(key)
            yield line


def is_open(line: Mapping[str, Any]) -> bool:
    """Whether a verdict is an error that the next run tries again."""
    return line["gate"] == ERROR and line.get("verdict") != "skipped"


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(read_journals(folder, STEM), 1):
        if not _is_verdict(line):
            raise RecordsError("this is not a verdict", where=f"{folder}: verdict {number}")
        yield line


def _is_verdict(line: Any) -> bool:
    texts = ("model", "mode", "dataset", "image_id", "attribute")
    return (
        isinstance(line, dict)
        and all(isinstance(line.get(k), str) for k in texts)
        and "gate" in line
        and line["gate"] in (None, ERROR, *GATES)
    )


def source_digest(candidates: Iterable[Candidate]) -> str:
    """``sha256:`` over a source's candidates: ids, boxes and order."""
    digest = hashlib.sha256()
    for c in candidates:
        digest.update(json.dumps([c.image_id, c.attribute, c.ordinal, c.boxes], separators=(",", ":")).encode() + b"\n")
    return "sha256:" + digest.hexdigest()


def read_header(folder: str | Path) -> dict[str, Any] | None:
    """The header of a folder of verdicts, None if it has none.

    Raises
    ------
    RecordsError
        If it cannot be read.
    """
    path = Path(folder) / HEADER
    if not path.is_file():
        return None
    try:
        header = json.loads(path.read_bytes())
    except ValueError as error:
        raise RecordsError(f"this file is not complete JSON: {error}", where=path) from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise RecordsError("this is not the header of a filter run", where=path, expected=f'"format": {_FORMAT}')
    return header


def update_header(
    folder: str | Path,
    *,
    settings: Mapping[str, Any],
    sources: Mapping[str, Source],
    run: str,
    lvlm: Mapping[str, Any],
    versions: Mapping[str, str],
) -> None:
    """Write the header, or check that an earlier run's fits and add this LVLM, mode and sources to it.

    Raises
    ------
    MedGroundError
        If the folder's verdicts were made with other settings, another copy of a source, or another model.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "filter.lock", wait=True):
        header = read_header(folder) or {
            "format": _FORMAT,
            "settings": dict(settings),
            "sources": {},
            "runs": {},
        }
        require_same("the verdicts in this folder", header["settings"], settings, where=folder / HEADER)
        for name, source in sources.items():
            about = {"candidates": len(source), "digest": source_digest(source)}
            known = header["sources"].setdefault(name, about)
            require_same(f"the verdicts on {name} in this folder", known, about, where=folder / HEADER)
        about = dict(lvlm)
        known = header["runs"].setdefault(run, {**about, "versions": dict(versions)})
        before = {k: v for k, v in known.items() if k != "versions"}
        require_same(f"the verdicts of {run} in this folder", before, about, where=folder / HEADER)
        with atomic_write(folder / HEADER) as file:
            json.dump(header, file, indent=1)
            file.write("\n")
