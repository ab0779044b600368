"""The work of a filter run before it starts: questions, edits, storage and hours, from a measured sample.

A sample of candidates, spread evenly over the sources, is really run (its verdicts are thrown away, its edits stay in
the cache); shares, times and sizes are taken from it and multiplied up. The upper bound assumes that every candidate
passes every gate. Edits do not depend on the LVLM or the mode, so several LVLMs share them: the expected number is that
of candidates of which at least one LVLM asks for the edit.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from medground_bench.causal.cache import EditCache
from medground_bench.causal.editors.base import Editor, EditRequest, Progress
from medground_bench.causal.filter import Answerer, edit_seed, judge
from medground_bench.causal.masks import box_mask
from medground_bench.causal.verdicts import ANSWERS, Verdict
from medground_bench.core.errors import MedGroundError
from medground_bench.core.schema import Candidate, question
from medground_bench.imaging.read import Scaling, read_image

if TYPE_CHECKING:
    from medground_bench.lvlm import Generated
    from medground_bench.sources.base import Source

__all__ = ["FilterPlan", "plan_filter"]

SAMPLE = 8
"""Candidates measured unless told otherwise."""


@dataclass(frozen=True)
class FilterPlan:
    """What a run will cost.

    Attributes
    ----------
    candidates : dict of str to int
        Source -> candidates.
    sample : int
        Candidates measured.
    questions, edits : dict of str to int
        ``"expected"`` and ``"at most"``: over all LVLMs.
    per_lvlm : dict of str to dict
        LVLM -> expected questions, seconds per question.
    seconds_per_edit, bytes_per_edit : float
        Measured: on the sample's edits, else (it came to none, or all were in the cache) on two made for it.
    hours, gigabytes : dict of str to float
        ``"expected"`` and ``"at most"``, for one process.
    """

    candidates: dict[str, int]
    sample: int
    questions: dict[str, int]
    edits: dict[str, int]
    per_lvlm: dict[str, dict[str, float]]
    seconds_per_edit: float
    bytes_per_edit: float
    hours: dict[str, float]
    gigabytes: dict[str, float]


def plan_filter(
    lvlms: Mapping[str, Callable[[], Answerer]],
    mode: str,
    sources: Mapping[str, Source],
    editor: Editor,
    cache: str | Path,
    *,
    limit: int | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    batch_size: int = 8,
    max_new_tokens: int | None = None,
    scaling: Scaling = "minmax",
) -> FilterPlan:
    """Measure a sample and multiply it up.

    Parameters
    ----------
    lvlms : mapping of str to callable
        Key -> how to load it: one is in memory at a time.
    mode, sources, editor, limit, seed, batch_size, max_new_tokens, scaling
        As for :func:`~medground_bench.causal.filter.filter_candidates`.
    cache : path
        The run's edit cache, where the sample's edits stay.
    sample : int
        Candidates to measure.

    Raises
    ------
    MedGroundError
        If there is no candidate, or none of the sample can be judged.
    """
    counts = {name: min(len(source), limit or len(source)) for name, source in sources.items()}
    total = sum(counts.values())
    if sample < 1 or not lvlms:
        raise MedGroundError(f"a sample of {sample} candidates and {len(lvlms)} LVLMs", expected="at least one of each")
    chosen = _sample(sources, counts, sample)
    if not chosen:
        raise MedGroundError("there is no candidate with an evidence box to plan for")
    timed = _Timed(EditCache(editor, cache))
    reached: dict[str, list[int]] = {}
    seconds: dict[str, float] = {}
    for key, load in lvlms.items():
        clock = _Clock(load())
        clock.generate_warm(chosen[0], mode, max_new_tokens, scaling)
        verdicts: list[Verdict] = []
        for start in range(0, len(chosen), batch_size):
            batch = chosen[start : start + batch_size]
            verdicts += judge(
                clock,
                mode,
                batch,
                timed,  # type: ignore[arg-type]
                seed=seed,
                max_new_tokens=max_new_tokens,
                scaling=scaling,
            )
        answered = [sum(verdict.answers[name] is not None for name in ANSWERS) for verdict in verdicts]
        if not any(answered):
            raise MedGroundError(f"{key} answered no question of the sample", remedy=verdicts[0].error)
        reached[key] = answered
        seconds[key] = clock.seconds / max(1, clock.questions)
    if not timed.measured:
        timed.measure(chosen[0], seed, scaling)
    return _multiply(counts, total, reached, seconds, timed)


def _multiply(
    counts: dict[str, int], total: int, reached: dict[str, list[int]], seconds: dict[str, float], timed: _Timed
) -> FilterPlan:
    size = len(next(iter(reached.values())))
    # An edit is wanted as soon as one LVLM's candidate gets to its gate: gate k needs k answers and k - 1 edits.
    wanted = [max(answers[i] for answers in reached.values()) - 1 for i in range(size)]
    scale = total / size
    expected = {key: sum(answers) * scale for key, answers in reached.items()}
    questions = {"expected": round(sum(expected.values())), "at most": 4 * total * len(reached)}
    edits = {"expected": round(sum(max(0, w) for w in wanted) * scale), "at most": 3 * total}
    each, size_each = timed.seconds_per_edit, timed.bytes_per_edit
    asking = {
        "expected": sum(expected[key] * seconds[key] for key in reached),
        "at most": sum(4 * total * seconds[key] for key in reached),
    }
    return FilterPlan(
        candidates=counts,
        sample=size,
        questions=questions,
        edits=edits,
        per_lvlm={key: {"questions": expected[key], "seconds per question": seconds[key]} for key in reached},
        seconds_per_edit=each,
        bytes_per_edit=size_each,
        hours={kind: (asking[kind] + edits[kind] * each) / 3600 for kind in edits},
        gigabytes={kind: edits[kind] * size_each / 1e9 for kind in edits},
    )


def _sample(sources: Mapping[str, Source], counts: Mapping[str, int], size: int) -> list[Candidate]:
    """Candidates with boxes, evenly spread over all sources together."""
    places = [(name, i) for name, count in counts.items() for i in range(count)]
    step = max(1, len(places) // max(1, size))
    spread = OrderedDict.fromkeys([*places[step // 2 :: step], *places])
    out = []
    for name, i in spread:
        candidate = sources[name][i]
        if candidate.boxes:
            out.append(candidate)
        if len(out) == size:
            break
    return out


class _Clock:
    """An LVLM whose answers are timed."""

    def __init__(self, lvlm: Answerer) -> None:
        self._lvlm = lvlm
        self.key, self.revision = lvlm.key, lvlm.revision
        self.seconds, self.questions = 0.0, 0

    def generate_warm(self, candidate: Candidate, mode: str, max_new_tokens: int | None, scaling: Scaling) -> None:
        """One question off the clock: the first call of a model compiles and allocates."""
        try:
            image = read_image(candidate.image_path, scaling)
        except MedGroundError:
            return
        self._lvlm.generate([image], [question(candidate.attribute, mode)], max_new_tokens=max_new_tokens or 8)

    def generate(self, images: Sequence[Any], questions: Sequence[str], max_new_tokens: int = 32) -> list[Generated]:
        start = time.perf_counter()
        answers = self._lvlm.generate(images, questions, max_new_tokens=max_new_tokens)
        self.seconds += time.perf_counter() - start
        self.questions += len(questions)
        return answers


class _Timed:
    """A cache whose editor is timed."""

    def __init__(self, cache: EditCache) -> None:
        self._cache = cache
        self.editor = cache.editor
        self._seconds, self._made, self._bytes, self._files = 0.0, 0, 0, 0

    def edit_batch(self, requests: Sequence[EditRequest], *, progress: Progress | None = None) -> list[Any]:
        made, start = self._cache.made, time.perf_counter()
        outcomes = self._cache.edit_batch(requests, progress=progress)
        if self._cache.made > made:
            self._seconds += time.perf_counter() - start
            self._made += self._cache.made - made
        for path in {self._cache.path(request) for request in requests}:
            if path.is_file():
                self._bytes += path.stat().st_size + path.with_suffix(".json").stat().st_size
                self._files += 1
        return outcomes

    @property
    def measured(self) -> bool:
        """Whether an edit was made."""
        return self._made > 0

    def measure(self, candidate: Candidate, seed: int, scaling: Scaling) -> None:
        """Time two edits of a candidate that nobody asked for, or that were in the cache: in a cache of their own."""
        image = read_image(candidate.image_path, scaling)
        mask = box_mask(candidate.boxes, image.size)
        prompt, number = f"No {candidate.attribute}", edit_seed(seed, candidate)
        self.editor.bind(candidate, image)
        kept = self._cache
        with TemporaryDirectory() as folder:
            self._cache = EditCache(self.editor, folder)
            self.edit_batch([EditRequest(image, m, prompt, number) for m in (mask, ~mask)])
        self._cache = kept

    @property
    def seconds_per_edit(self) -> float:
        return self._seconds / self._made if self._made else 0.0

    @property
    def bytes_per_edit(self) -> float:
        return self._bytes / self._files if self._files else 0.0
