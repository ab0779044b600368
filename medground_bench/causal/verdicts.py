"""Verdicts on disk: one JSON line per candidate, LVLM and mode, and the header that says how they were made.

A folder of verdicts holds ``filter.json`` (the header: seed, editor, sources, versions and, per LVLM and mode, the
model's revision) and ``verdicts-00000.jsonl``, ``verdicts-00001.jsonl``, ... (one part per process). It may hold
several LVLMs, modes and sources. A line:

.. code-block:: json

    {"model": "...", "mode": "direct", "dataset": "...", "image_id": "...", "attribute": "...", "index": 7,
     "gate": null, "verdict": "kept", "answers": {"original": "Yes", "foreground": "No", "background": "Yes",
     "background_normal": "Yes"}, "cut": [], "read": {"original": "yes", "...": "..."},
     "quality": {"foreground": {"...": 0}}, "flags": []}

``cut`` names the answers that were cut off at the limit of tokens, which are read from a marked final answer only.
``gate`` is null for a kept candidate, the first failed of :data:`medground_bench.core.schema.GATES`, or ``"error"``.
``verdict`` is ``kept``, ``rejected``, ``undecided`` (rejected because an answer decides nothing), ``error`` (image,
editor or LVLM failed; the next run tries again, and a verdict it reaches replaces the error) or ``skipped`` (no valid
evidence box).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.causal.answers import read_answer
from medground_bench.core.errors import RecordsError
from medground_bench.core.files import atomic_write, file_lock, read_journals
from medground_bench.core.schema import DATASETS, GATES, MODES, Candidate
from medground_bench.core.settings import require_same

if TYPE_CHECKING:
    from medground_bench.sources.base import Source

__all__ = [
    "ANSWERS",
    "ERROR",
    "EXPECTED",
    "HEADER",
    "STEM",
    "VERDICTS",
    "Key",
    "Verdict",
    "failed_gate",
    "has_verdicts",
    "read_header",
    "read_verdicts",
    "source_digest",
    "update_header",
]

ANSWERS: tuple[str, ...] = ("original", "foreground", "background", "background_normal")
"""Names of the four answers, in the order of the gates."""

VERDICTS: tuple[str, ...] = ("kept", "rejected", "undecided", "error", "skipped")
"""What becomes of a candidate."""

ERROR = "error"
HEADER = "filter.json"
STEM = "verdicts"
_FORMAT = 1

EXPECTED: dict[str, str] = dict(zip(ANSWERS, ("yes", "no", "yes", "yes"), strict=True))
"""What each answer must read for a candidate to be kept."""

Key = tuple[str, str, str, str, str, int]
"""(LVLM, mode, source, image, attribute, ordinal): what a verdict is about."""


def failed_gate(answers: Iterable[str | None], attribute: str | None = None, cut: Collection[str] = ()) -> str | None:
    """First gate of the causal filter that four answers fail; None when they read yes, no, yes, yes.

    Parameters
    ----------
    answers : iterable of str or None
        The texts, in the order of :data:`ANSWERS`.
    attribute : str, optional
        What was asked about; not known where a released record names its candidate by position.
    cut : collection of str
        Names of those that were cut off at the limit of tokens.
    """
    for gate, text, (name, expected) in zip(GATES, answers, EXPECTED.items(), strict=True):
        if read_answer(text, attribute, cut=name in cut) != expected:
            return gate
    return None


@dataclass(frozen=True)
class Verdict:
    """What the filter found about one candidate, for one LVLM in one mode: one line of the journal.

    Attributes
    ----------
    model, mode, dataset, image_id, attribute : str
        What it is about.
    gate : str or None
        The first gate that failed, ``"error"``, or None for a kept candidate.
    verdict : str
        One of :data:`VERDICTS`.
    answers : dict of str to (str or None)
        The LVLM's texts by name of the image; None where it was not asked.
    cut : list of str
        Names of the answers that were cut off at the limit of tokens: they are read from a marked final answer only.
    read : dict of str to (str or None)
        What they read: ``"yes"``, ``"no"`` or None.
    quality : dict
        Figures of each edit (:mod:`medground_bench.causal.quality`).
    flags : list of str
        What a reader should know, e.g. ``"undecided"`` or ``"unchanged:foreground"``.
    error : str or None
        Why it could not be judged.
    index : int or None
        Position in the source it was made from.
    ordinal : int
        As in :class:`~medground_bench.core.schema.Candidate`.
    """

    model: str
    mode: str
    dataset: str
    image_id: str
    attribute: str
    gate: str | None
    verdict: str = ""
    answers: Mapping[str, str | None] = field(default_factory=dict)
    cut: Sequence[str] = ()
    read: Mapping[str, str | None] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    flags: Sequence[str] = ()
    error: str | None = None
    index: int | None = None
    ordinal: int = 1

    @property
    def key(self) -> Key:
        return (self.model, self.mode, self.dataset, self.image_id, self.attribute, self.ordinal)

    @property
    def kept(self) -> bool:
        return self.gate is None

    @property
    def is_open(self) -> bool:
        """Whether it is an error that the next run tries again."""
        return self.gate == ERROR and self.verdict != "skipped"

    def to_json(self) -> dict[str, Any]:
        """The line of the journal; what says nothing is left out."""
        line = asdict(self)
        line["cut"], line["flags"] = list(self.cut), list(self.flags)
        for name, silent in (("error", None), ("index", None), ("ordinal", 1)):
            if line[name] == silent:
                del line[name]
        return line

    @classmethod
    def from_json(cls, line: Any, where: str) -> Verdict:
        """Read a line of the journal.

        Raises
        ------
        RecordsError
            If it is not a verdict, names an unknown mode, source or gate, or is kept against its answers.
        """
        texts = ("model", "mode", "dataset", "image_id", "attribute")
        if not isinstance(line, dict) or not all(isinstance(line.get(k), str) for k in texts) or "gate" not in line:
            keys = ", ".join((*texts, "gate", "answers"))
            raise RecordsError("this is not a verdict", where=where, expected=f"an object with {keys}")
        if line["mode"] not in MODES or line["dataset"] not in DATASETS or line["gate"] not in (None, ERROR, *GATES):
            raise RecordsError(
                f"mode {line['mode']!r}, dataset {line['dataset']!r}, gate {line['gate']!r}: one is unknown",
                where=where,
                expected=f"modes {', '.join(MODES)}; datasets {', '.join(DATASETS)}; gates null, {', '.join(GATES)}",
            )
        verdict = cls(**{f.name: line[f.name] for f in fields(cls) if f.name in line})
        if verdict.kept:
            answers = verdict.answers if isinstance(verdict.answers, dict) else {}
            if not all(isinstance(answers.get(a), str) for a in ANSWERS):
                raise RecordsError(
                    "a kept verdict lacks an answer", where=where, expected="answers: " + ", ".join(ANSWERS)
                )
            gate = failed_gate((verdict.answers[a] for a in ANSWERS), verdict.attribute, verdict.cut)
            if gate is not None:
                raise RecordsError(f"a kept verdict fails gate {gate!r}: {verdict.answers}", where=where)
        return verdict


def has_verdicts(folder: str | Path) -> bool:
    """Whether a folder holds verdicts."""
    return any(Path(folder).glob(f"{STEM}-*.jsonl"))


def read_verdicts(folder: str | Path) -> list[Verdict]:
    """Every verdict of a folder, each candidate once per LVLM and mode, in the order of the journal.

    A verdict that was reached replaces an earlier or later error.

    Raises
    ------
    RecordsError
        If a line is malformed, or contradicts another one about the same candidate.
    """
    found: dict[Key, Verdict] = {}
    for number, line in enumerate(read_journals(folder, STEM), 1):
        where = f"{folder}: verdict {number}"
        verdict = Verdict.from_json(line, where)
        known = found.get(verdict.key)
        if known is None or known.is_open:
            found.pop(verdict.key, None)  # takes the place in the order of the run that reached it
            found[verdict.key] = verdict
        elif not verdict.is_open and verdict.gate != known.gate:
            raise RecordsError(
                "two verdicts on one candidate contradict each other: " + str(verdict.key),
                where=where,
                remedy="keep the lines of one run only",
            )
    return list(found.values())


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
