"""The three-step causal filter for one LVLM and mode over any source (paper, section 3.2).

The same question is asked of four images: the original, the foreground edit (``No {attribute}`` inside the evidence
boxes), the background edit (the same prompt outside them) and the background edit to ``No abnormality``. A candidate is
kept when the answers are yes, no, yes, yes. Gates stand in this order and a candidate that fails one goes no further:
the first gate costs no edit and lets the fewest through.

Candidates are worked through in fixed batches of their source's order, batch k by process k modulo their number. The
make-up of a batch thus depends neither on the number of processes nor on where an earlier run was stopped, and nor do
the answers, although a batched forward in half precision is not bit for bit that of a single image. Every verdict is on
disk before the next batch begins.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medground_bench.causal.answers import Answer, read_answer
from medground_bench.causal.cache import EditCache
from medground_bench.causal.editors.base import Editor, EditRequest
from medground_bench.causal.masks import box_mask
from medground_bench.causal.quality import edit_quality, quality_flags
from medground_bench.causal.verdicts import (
    ANSWERS,
    ERROR,
    EXPECTED,
    STEM,
    Key,
    Verdict,
    read_verdicts,
    update_header,
)
from medground_bench.core.errors import EditorError, ImageError, MedGroundError
from medground_bench.core.files import Journal
from medground_bench.core.processes import ProcessGroup
from medground_bench.core.schema import GATES, MODES, Candidate, question
from medground_bench.core.versions import software_versions
from medground_bench.imaging.read import SCALINGS, Scaling, read_image
from medground_bench.sources.base import Source, resized

if TYPE_CHECKING:
    from PIL.Image import Image

    from medground_bench.lvlm import Generated

__all__ = [
    "MAX_NEW_TOKENS",
    "NO_ABNORMALITY",
    "Answerer",
    "Asked",
    "FilterReport",
    "edit_request",
    "edit_seed",
    "filter_candidates",
    "judge",
]

MAX_NEW_TOKENS = {"direct": 32, "reason": 512}
"""Longest answer by mode, in tokens."""

NO_ABNORMALITY = "No abnormality"

_GATE = dict(zip(ANSWERS, GATES, strict=True))


class Asked(Protocol):
    """What an edit is about: a candidate, or a record of a dataset folder."""

    @property
    def dataset(self) -> str: ...
    @property
    def image_id(self) -> str: ...
    @property
    def attribute(self) -> str: ...


class Answerer(Protocol):
    """What the filter needs of an LVLM: see :class:`medground_bench.lvlm.Lvlm`."""

    key: str
    revision: str | None

    def generate(self, images: Sequence[Any], questions: Sequence[str], max_new_tokens: int = ...) -> list[Generated]:
        """Greedy answers, one per native image and question."""
        ...


@dataclass
class FilterReport:
    """What a run of :func:`filter_candidates` did.

    Attributes
    ----------
    computed, reused : int
        Verdicts made now, and found from earlier runs, by this process.
    verdicts : Counter
        The verdicts made now, by kind.
    questions : int
        Questions put to the LVLM.
    edits_made, edits_found : int
        Edits made by the editor, and found in the cache.
    errors : list of str
        One line for every candidate that could not be judged.
    """

    computed: int = 0
    reused: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    questions: int = 0
    edits_made: int = 0
    edits_found: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass(eq=False)
class _Case:
    """A candidate under way."""

    candidate: Candidate
    image: Image | None = None
    mask: NDArray[np.bool_] | None = None
    answers: dict[str, str | None] = field(default_factory=lambda: dict.fromkeys(ANSWERS))
    cut: list[str] = field(default_factory=list)
    quality: dict[str, Any] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)
    gate: str | None = None
    error: str | None = None
    skipped: bool = False

    def fail(self, error: str, flag: str) -> None:
        self.gate, self.error = ERROR, error
        self.flags.append(flag)

    def read(self, name: str) -> Answer | None:
        return read_answer(self.answers[name], self.candidate.attribute, cut=name in self.cut)

    @property
    def kind(self) -> str:
        """One of :data:`~medground_bench.causal.verdicts.VERDICTS`."""
        if self.gate is None:
            return "kept"
        if self.gate == ERROR:
            return "skipped" if self.skipped else "error"
        return "undecided" if "undecided" in self.flags else "rejected"

    def verdict(self, model: str, mode: str) -> Verdict:
        c = self.candidate
        return Verdict(
            model=model,
            mode=mode,
            dataset=c.dataset,
            image_id=c.image_id,
            attribute=c.attribute,
            gate=self.gate,
            verdict=self.kind,
            answers=self.answers,
            cut=self.cut,
            read={name: self.read(name) for name in ANSWERS},
            quality=self.quality,
            flags=self.flags,
            error=self.error,
            index=c.index,
            ordinal=c.ordinal,
        )


def edit_request(name: str, about: Asked, image: Image, mask: NDArray[np.bool_], seed: int) -> EditRequest:
    """The edit that the filter asks for under a name of :data:`~medground_bench.causal.verdicts.ANSWERS`.

    Parameters
    ----------
    name : {"foreground", "background", "background_normal"}
        Which.
    about : Candidate, Record or alike
        What is asked about.
    image : PIL image
        The native radiograph.
    mask : bool array, (H, W)
        Pixels of the evidence.
    seed : int
        The filter's.
    """
    prompt = NO_ABNORMALITY if name == "background_normal" else f"No {about.attribute}"
    return EditRequest(image, mask if name == "foreground" else ~mask, prompt, edit_seed(seed, about))


def edit_seed(seed: int, candidate: Asked) -> int:
    """Seed of all edits of a candidate's image: edits of one image share their inversion, different images do not."""
    text = f"{seed}\0{candidate.dataset}\0{candidate.image_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def filter_candidates(
    lvlm: Answerer,
    mode: str,
    sources: Mapping[str, Source],
    editor: Editor,
    out: str | Path,
    *,
    limit: int | None = None,
    batch_size: int = 8,
    seed: int = 0,
    max_new_tokens: int | None = None,
    scaling: Scaling = "minmax",
    edits: str | Path | None = None,
    group: ProcessGroup | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> FilterReport:
    """Judge every candidate; run again with the same arguments to resume.

    Parameters
    ----------
    lvlm : Lvlm
        Whom to ask: anything with ``key``, ``revision`` and ``generate``.
    mode : {"direct", "reason"}
        How to ask.
    sources : mapping of str to Source
        Opened sources by key.
    editor : Editor
        Makes the counterfactuals.
    out : path
        Folder of verdicts; it may hold other LVLMs, modes and sources, made with the same settings.
    limit : int, optional
        Only the first so many candidates of each source.
    batch_size : int
        Candidates per batch.
    seed : int
        From which the seed of every image's edits is drawn.
    max_new_tokens : int, optional
        Longest answer in tokens; by default :data:`MAX_NEW_TOKENS` of the mode.
    scaling : {"minmax", "percentile"}
        How images deeper than 8 bits are read.
    edits : path, optional
        Folder of the edit cache, by default ``edits`` inside ``out``.
    group : ProcessGroup, optional
        This process's place among those that share the work; alone by default.
    progress : callable, optional
        Called with (done, total, what is under way), of this process's share.

    Returns
    -------
    FilterReport

    Raises
    ------
    MedGroundError
        If the folder holds verdicts made otherwise, another process is writing it, or an argument is out of range.
        A candidate that cannot be judged does not stop the others: it is in the report.
    """
    if mode not in MODES:
        raise MedGroundError(f"unknown mode {mode!r}", expected="one of " + ", ".join(MODES))
    if batch_size < 1 or (limit is not None and limit < 1):
        raise MedGroundError(f"batch size {batch_size}, limit {limit}", expected="at least 1")
    if scaling not in SCALINGS:
        raise MedGroundError(f"unknown scaling {scaling!r}", expected="one of " + ", ".join(SCALINGS))
    group = group or ProcessGroup()
    out = Path(out)
    tokens = max_new_tokens or MAX_NEW_TOKENS[mode]
    update_header(
        out,
        settings={"editor": dict(editor.settings), "seed": seed, "scaling": scaling, "batch_size": batch_size},
        sources=sources,
        run=f"{lvlm.key}/{mode}",
        lvlm=_about(lvlm, tokens),
        versions=software_versions(),
    )
    batches = group.share(list(_batches(sources, limit, batch_size)))
    total = sum(map(len, batches))
    cache = EditCache(editor, edits or out / "edits")
    report = FilterReport()
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(out, STEM, group.rank))
        done, failed = _done(out, {_key(lvlm.key, mode, c) for batch in batches for c in batch})
        judging = _Judging(lvlm, mode, cache, tokens, seed, scaling, report)
        finished = 0
        for batch in batches:
            fresh = [_key(lvlm.key, mode, c) not in done for c in batch]
            if any(fresh):
                # The whole batch, even where some of it is judged: the others' answers must not depend on that.
                if progress is not None:
                    judging.tell = partial(progress, finished, total)
                for case, new in zip(judging(batch), fresh, strict=True):
                    if new:
                        if case.kind != "error" or _key(lvlm.key, mode, case.candidate) not in failed:
                            journal.append(case.verdict(lvlm.key, mode).to_json())
                        _count(report, case)
            report.reused += len(fresh) - sum(fresh)
            finished += len(batch)
            if progress is not None:
                progress(finished, total, batch[-1].image_id)
    report.edits_made, report.edits_found = cache.made, cache.hits
    return report


def judge(
    lvlm: Answerer,
    mode: str,
    candidates: Sequence[Candidate],
    cache: EditCache,
    *,
    seed: int = 0,
    max_new_tokens: int | None = None,
    scaling: Scaling = "minmax",
) -> list[Verdict]:
    """Verdicts on one batch of candidates, in memory."""
    judging = _Judging(lvlm, mode, cache, max_new_tokens or MAX_NEW_TOKENS[mode], seed, scaling, FilterReport())
    return [case.verdict(lvlm.key, mode) for case in judging(candidates)]


class _Judging:
    """The gates, for a batch of candidates at a time."""

    def __init__(
        self,
        lvlm: Answerer,
        mode: str,
        cache: EditCache,
        max_new_tokens: int,
        seed: int,
        scaling: Scaling,
        report: FilterReport,
    ) -> None:
        self.lvlm, self.mode, self.cache = lvlm, mode, cache
        self.max_new_tokens, self.seed, self.scaling, self.report = max_new_tokens, seed, scaling, report
        self.tell: Callable[[str], None] = lambda what: None

    def __call__(self, candidates: Sequence[Candidate]) -> list[_Case]:
        self.tell(candidates[0].image_id)
        cases = [_Case(c) for c in candidates]
        self._load(cases)
        self._ask("original", [(case, case.image) for case in cases if case.gate is None])
        for name in ANSWERS[1:]:
            self._ask(name, self._edit(name, [case for case in cases if case.gate is None]))
        for case in cases:
            case.image = case.mask = None
        return cases

    def _load(self, cases: Sequence[_Case]) -> None:
        images: dict[Path, Image] = {}
        for case in cases:
            c = case.candidate
            if not c.boxes:
                case.skipped = True
                case.fail("no valid evidence box: " + "; ".join(c.problems), "no_valid_box")
                continue
            try:
                if c.image_path not in images:
                    image = read_image(c.image_path, self.scaling)
                    if found := resized(c, image.size):
                        raise ImageError(found, where=c.image_path)
                    images[c.image_path] = image
                case.image = images[c.image_path]
                case.mask = box_mask(c.boxes, case.image.size)
            except MedGroundError as error:
                case.fail(str(error), "image_failed" if case.image is None else "no_valid_box")
                continue
            self.cache.editor.bind(c, case.image)

    def _edit(self, name: str, cases: Sequence[_Case]) -> list[tuple[_Case, Image | None]]:
        requests = [self._request(name, case) for case in cases]
        outcomes = self.cache.edit_batch(
            requests, progress=lambda done, total: self.tell(f"{name} edits, {100 * done // max(1, total)} %")
        )
        asked: list[tuple[_Case, Image | None]] = []
        for case, request, outcome in zip(cases, requests, outcomes, strict=True):
            if isinstance(outcome, EditorError):
                case.fail(str(outcome), f"edit_failed:{name}")
                continue
            quality = edit_quality(request.image, outcome, request.mask)
            case.quality[name] = quality
            flags = [f for f in quality_flags(quality) if f != "unchanged" or not self.cache.editor.exact]
            case.flags += [f"{flag}:{name}" for flag in flags]
            asked.append((case, outcome))
        return asked

    def _request(self, name: str, case: _Case) -> EditRequest:
        assert case.image is not None  # only loaded cases come here
        assert case.mask is not None
        return edit_request(name, case.candidate, case.image, case.mask, self.seed)

    def _ask(self, name: str, asked: Sequence[tuple[_Case, Image | None]]) -> None:
        if not asked:
            return
        self.report.questions += len(asked)
        for (case, _), answer in zip(asked, self._answers(asked), strict=True):
            if isinstance(answer, MedGroundError):
                case.fail(str(answer), f"question_failed:{name}")
                continue
            case.answers[name] = answer.text
            if not answer.ended:
                case.cut.append(name)
            read = case.read(name)
            if read != EXPECTED[name]:
                case.gate = _GATE[name]
            if read is None:
                case.flags.append("undecided")

    def _answers(self, asked: Sequence[tuple[_Case, Image | None]]) -> list[Generated | MedGroundError]:
        images = [image for _, image in asked]
        questions = [question(case.candidate.attribute, self.mode) for case, _ in asked]
        try:
            return list(self.lvlm.generate(images, questions, max_new_tokens=self.max_new_tokens))
        except MedGroundError as error:
            if len(asked) == 1:
                return [error]
        # One of them is at fault: ask one by one to find it.
        return [self._answers([one])[0] for one in asked]


def _batches(sources: Mapping[str, Source], limit: int | None, size: int) -> Iterator[list[Candidate]]:
    """Fixed batches, each of one source: a longer run's batches begin with a shorter one's."""
    for source in sources.values():
        candidates = list(source[: limit if limit is not None else len(source)])
        for start in range(0, len(candidates), size):
            yield candidates[start : start + size]


def _key(model: str, mode: str, c: Candidate) -> Key:
    return (model, mode, c.dataset, c.image_id, c.attribute, c.ordinal)


def _done(out: Path, wanted: set[Key]) -> tuple[set[Key], set[Key]]:
    """What earlier runs judged, by whatever number of processes, and where they failed, which is tried again."""
    known = [verdict for verdict in read_verdicts(out) if verdict.key in wanted]
    return {v.key for v in known if not v.is_open}, {v.key for v in known if v.is_open}


def _count(report: FilterReport, case: _Case) -> None:
    report.computed += 1
    report.verdicts[case.kind] += 1
    if case.kind == "error":
        report.errors.append(f"{case.candidate.id}: {(case.error or '').splitlines()[0]}")


def _about(lvlm: Answerer, max_new_tokens: int) -> dict[str, Any]:
    about: dict[str, Any] = {"revision": lvlm.revision, "max_new_tokens": max_new_tokens}
    for name in ("hub_id", "family", "dtype", "decoding", "backend", "bits"):
        value = getattr(lvlm, name, None)
        # A local folder's path is nobody else's business; its fingerprint is the revision.
        if value is not None and not (name == "hub_id" and Path(str(value)).is_absolute()):
            about[name] = value if isinstance(value, Mapping) else str(value).removeprefix("torch.")
    return about
