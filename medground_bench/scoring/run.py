"""Scoring submissions against a dataset folder."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.errors import ScoringError, SubmissionError
from medground_bench.core.numbering import Numbering
from medground_bench.core.versions import software_versions
from medground_bench.imaging.areas import BoxColumn, RaggedBoxes
from medground_bench.imaging.overlap import BoxScores
from medground_bench.scoring.aggregate import (
    Aggregate,
    aggregate,
    aggregate_bounds,
    aggregate_chance,
    record_scores,
    score_quotients,
)
from medground_bench.scoring.ceiling import TILES
from medground_bench.scoring.chance import DRAWS
from medground_bench.scoring.concepts import CONCEPT_METRICS, ConceptReference, heat_in_concepts, score_concepts
from medground_bench.scoring.files import ScoreFile, SubmissionScores
from medground_bench.scoring.heatmaps import HEATMAP_METRICS, TOLERANCE, score_heatmap
from medground_bench.scoring.places import PLACES, box_shares, heat_shares
from medground_bench.scoring.statistics import CONFIDENCE, RESAMPLES
from medground_bench.scoring.table import Reference, is_every, load_reference
from medground_bench.scoring.tokens import TOKEN_METRICS, token_auroc
from medground_bench.submission import Prediction, Submission, open_submission, validate_submission
from medground_bench.submission.format import Clock, Fault

if TYPE_CHECKING:
    from medground_bench.attribution.token_evidence import TokenEvidence
    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.imaging import Letterbox
    from medground_bench.sources import Source
    from medground_bench.sources.planted.anatomy import Localizer

__all__ = ["score_submission", "score_submissions"]

_LEVELS = ("all", "dataset", "size", "attribute")
_SHOWN = 20
_MOST_CELLS = 512  # rows or columns of image tokens
_LARGEST_FRAME = 16_384  # pixels a side


def score_submissions(
    submissions: Sequence[str | Path],
    dataset: DatasetFolder,
    *,
    partial: bool = False,
    heatmaps: bool = True,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    sources: Sequence[Source] = (),
    localizer: Localizer | None = None,
    tokens: Sequence[TokenEvidence] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> ScoreFile:
    """Validate and score submissions.

    Parameters
    ----------
    submissions : sequence of path
        Submission folders, each for one LVLM of the dataset.
    dataset : DatasetFolder
        The opened config they were made for.
    partial : bool
        Score a submission that lacks records: they count as not answered, with scores of 0.
    heatmaps : bool
        Also score the heat maps that rows name.
    resamples, confidence, seed
        Of the bootstrap; the seed is also that of the random chance row.
    tolerance : float
        Of the pointing game, as a share of the image's longer side.
    sources : sequence of Source
        What else is known of the images: a phantom set tells its anatomical concepts (a ceiling row), another source
        of the same images is a second annotator (the human row).
    localizer : callable, optional
        Finds the anatomical concepts on images of which neither record nor source tells them; what a method says about
        concepts is judged by these.
    tokens : sequence of TokenEvidence, optional
        Which tokens of the responses rest on the finding; token scores are judged by them.
    progress : callable, optional
        Called with (done, total, what).

    Raises
    ------
    SubmissionError
        If a submission is not valid, or was made for another dataset.
    ScoringError
        If two submissions are of the same method for the same LVLM and mode, or token evidence is of another dataset.
    """
    for one_evidence in tokens:
        if one_evidence.header.get("dataset_fingerprint") != dataset.fingerprint:
            raise ScoringError(
                f"token evidence of {one_evidence.header.get('lvlm')} is of another dataset",
                expected=dataset.fingerprint,
                remedy="run medground-bench tokens on this dataset and config",
            )
    reference = load_reference(
        dataset,
        fingerprint=dataset.fingerprint,
        config=str(getattr(dataset, "config", "")),
        seed=seed,
        sources=sources,
        localizer=localizer,
    )
    scored: list[SubmissionScores] = []
    made: dict[tuple[str, str, str], str | Path] = {}
    shared: _Shared = {}
    for k, path in enumerate(submissions):
        if progress is not None:
            progress(k, len(submissions), str(path))
        one = score_submission(
            path,
            dataset,
            reference,
            partial=partial,
            heatmaps=heatmaps,
            resamples=resamples,
            confidence=confidence,
            tolerance=tolerance,
            seed=seed,
            tokens=tokens,
            shared=shared,
        )
        key = (one.method, one.lvlm, one.mode)
        if key in made:
            raise ScoringError(
                f"two submissions of method {one.method!r} for {one.lvlm} in mode {one.mode}",
                where=f"{made[key]} and {path}",
                remedy="score one of them, or give one another method name",
            )
        made[key] = path
        scored.append(one)
    if progress is not None:
        progress(len(submissions), len(submissions), "done")
    return _file(reference, scored, resamples, confidence, tolerance, seed)


def score_submission(
    path: str | Path,
    dataset: DatasetFolder,
    reference: Reference,
    *,
    partial: bool = False,
    heatmaps: bool = True,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    tokens: Sequence[TokenEvidence] = (),
    shared: _Shared | None = None,
) -> SubmissionScores:
    """Validate and score one submission (see :func:`score_submissions`); ``rows`` are those of the reference.

    ``shared`` keeps the aggregates of chance rows and ceilings between submissions over the same records.
    """
    report = validate_submission(path, dataset)
    faults = [f for f in report.faults if not (partial and f.code == "missing-id")]
    if not faults and any(code != "missing-id" for code in report.unlisted):
        faults = [Fault("more", f"{sum(report.unlisted.values())} faults are not listed", "correct those listed first")]
    for fault in faults:
        if fault.code == "fingerprint":  # nothing else that is wrong matters then
            raise SubmissionError(f"this submission was {fault.message}", where=path, remedy=fault.remedy)
    if faults:
        lines = [f"  {fault}" for fault in faults[:_SHOWN]]
        if report.count > _SHOWN:
            lines.append(f"  ... and {report.count - _SHOWN} more")
        only_missing = set(report.counts()) == {"missing-id"}
        raise SubmissionError(
            f"this submission is not valid: {report.count} faults\n" + "\n".join(lines),
            where=path,
            remedy="score it with --partial: missing records count as not answered"
            if only_missing
            else "run medground-bench validate for the whole list, and correct them",
        )
    submission = open_submission(path)
    index = reference.covered(str(submission.header["lvlm"]), str(submission.header["mode"]))
    answers = _Answers(submission, reference.table.id[index])
    scores = _record_scores(answers, index, reference)
    if heatmaps and answers.first_heatmap:
        scores.update(_heatmap_scores(answers, index, reference, tolerance))
    if reference.anatomy is not None:
        scores.update(_concept_scores(answers, index, reference, reference.anatomy, heatmaps))
    places, of = _places(answers, index, reference, heatmaps)
    drops = {k: v for t in tokens if t.header.get("lvlm") == submission.header["lvlm"] for k, v in t.drops.items()}
    if drops and answers.tokens:
        (name,) = TOKEN_METRICS
        scores[name] = np.full(len(index), np.nan)
        for k, row in answers.placed():
            if row.tokens and row.id in drops:
                scores[name][k] = token_auroc(row.tokens, drops[row.id])
    table = reference.table.take(index)
    chance = {row: _take(s, index) for row, s in reference.chance.items()}
    options: dict[str, Any] = {"resamples": resamples, "confidence": confidence, "seed": seed}
    shared = {} if shared is None else shared
    bounds = _bounds(submission.header, reference)
    mine = {row: _take(scores_of, index) for row, (_, scores_of) in bounds.items()}
    chance_key, bound_key = (index.tobytes(), ()), (index.tobytes(), tuple(key for key, _ in bounds.values()))
    if chance_key not in shared:
        shared[chance_key] = aggregate_chance(chance, table, _LEVELS, **options)
    if bound_key not in shared:
        shared[bound_key] = aggregate_bounds(mine, table, _LEVELS, **options)
    return SubmissionScores(
        provenance=submission.header,
        predictions=submission.digest(),
        positions=index,
        scores=scores,
        aggregates=aggregate(
            score_quotients(scores, table.evidence_fraction, chance), table, _LEVELS, chance=chance, **options
        ),
        chance_aggregates=shared[chance_key],
        warnings=[str(w) for w in report.warnings],
        bounds={row: key for row, (key, _) in bounds.items() if not np.isnan(mine[row].iou).all()},
        bound_aggregates=shared[bound_key],
        own_ceiling=_own_ceiling(answers, bounds),
        places=places,
        places_of=of,
    )


class _Answers:
    """What a valid submission says of records, in their order: numbers alone are kept, the file is read again for more.

    Attributes
    ----------
    boxes : RaggedBoxes
        Of every record; none where it is not answered.
    fallback, degenerate : ndarray, (n,)
        1 where the row says so.
    names_concept, concepts, tokens : bool
        Whether some row names a concept, says anything of concepts, has token scores.
    first_heatmap : Prediction or None
        The answer to the first record that has a heat map.
    """

    def __init__(self, submission: Submission, ids: np.ndarray) -> None:
        self.submission = submission
        self._ids = ids
        self._places: Numbering | None = None
        self.fallback, self.degenerate = np.zeros(len(ids)), np.zeros(len(ids))
        self.names_concept = self.concepts = self.tokens = False
        self.first_heatmap: Prediction | None = None
        column, places, first = BoxColumn(), array("q"), len(ids)
        for k, row in self.placed():
            places.append(k)
            column.append(row.boxes)
            self.fallback[k], self.degenerate[k] = row.fallback, row.degenerate
            self.names_concept |= row.concept is not None and bool(row.concept)
            self.concepts |= bool(row.concept or row.concept_scores)
            self.tokens |= row.tokens is not None
            if row.heatmap and k < first:
                first, self.first_heatmap = k, row
        given, order = column.ragged("predictions"), np.asarray(places)
        counts = np.zeros(len(ids), np.int64)
        counts[order] = given.counts
        self.boxes = RaggedBoxes(_select(given, np.argsort(order)).boxes, counts)

    def placed(self) -> Iterator[tuple[int, Prediction]]:
        """The rows in the file's order, each with the position of its record."""
        k = -1
        for row in self.submission:
            k += 1
            if k == len(self._ids) or self._ids[k] != row.id:  # not in the dataset's order
                if self._places is None:
                    self._places = Numbering(self._ids)
                if (place := self._places.get(row.id)) is None:
                    raise SubmissionError(
                        "this submission changed while it was scored",
                        where=f"{self.submission.path}: {row.id}",
                        remedy="score it again",
                    )
                k = place
            yield k, row

    def rows(self) -> list[Prediction | None]:
        """The row of every record, None where it has none; all of them held."""
        out: list[Prediction | None] = [None] * len(self._ids)
        for k, row in self.placed():
            out[k] = row
        return out


_Shared = dict[tuple[bytes, tuple[str, ...]], dict[str, list[Aggregate]]]


def _setting(header: Mapping[str, Any], name: str) -> Any:
    settings = header.get("settings")
    return settings.get(name) if isinstance(settings, Mapping) else None


def token_grid(header: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and columns of the image tokens that a submission's header states; None where it does not."""
    grid = _setting(header, "token_grid")
    good = isinstance(grid, list) and len(grid) == 2 and all(type(v) is int and 0 < v <= _MOST_CELLS for v in grid)
    return (grid[0], grid[1]) if good else None


def _bounds(header: Mapping[str, Any], reference: Reference) -> dict[str, tuple[str, BoxScores]]:
    """Ceilings and second annotator of a submission: row -> (key in the score file, scores of all records)."""
    settings = header.get("settings")
    side = settings.get("frame_side", 224) if isinstance(settings, Mapping) else 224
    if side is not None and not (type(side) is int and 0 < side <= _LARGEST_FRAME):
        return {}
    frame = str(side or "native")
    out: dict[str, tuple[str, BoxScores]] = {}
    grid = token_grid(header)
    if grid is not None:
        out["token_grid"] = (f"token_grid {grid[0]}x{grid[1]} {frame}", reference.ceiling(grid, side))
    out["tiles"] = (f"tiles {TILES[0]}x{TILES[1]} {frame}", reference.ceiling(TILES, side))
    out["pixels"] = (f"pixels {frame}", reference.ceiling(None, side))
    for row, scores in (("concepts", reference.concepts), ("second_annotator", reference.second)):
        if scores is not None:
            out[row] = (row, scores)
    return out


def _own_ceiling(answers: _Answers, bounds: Mapping[str, tuple[str, BoxScores]]) -> str:
    """The ceiling of the space that the method speaks in, as its settings and predictions show it; empty: unknown."""
    submission = answers.submission
    if answers.names_concept:
        return "concepts" if "concepts" in bounds else ""
    regions = str(_setting(submission.header, "regions"))
    if regions == f"tiles:{TILES[0]}x{TILES[1]}":
        return "tiles"
    heatmap = submission.heatmap(answers.first_heatmap) if answers.first_heatmap else None
    if regions == "tokens" or (heatmap is not None and heatmap.shape == token_grid(submission.header)):
        return "token_grid" if "token_grid" in bounds else ""
    return "pixels" if "pixels" in bounds else ""


def _take(scores: BoxScores, index: np.ndarray) -> BoxScores:
    return scores if is_every(index, len(scores.iou)) else BoxScores(*(column[index] for column in scores))


def _select(boxes: RaggedBoxes, index: np.ndarray) -> RaggedBoxes:
    """The boxes of some of the records."""
    if is_every(index, len(boxes.counts)):
        return boxes
    counts = boxes.counts[index]
    starts = (np.cumsum(boxes.counts) - boxes.counts)[index]
    offset = np.cumsum(counts) - counts
    return RaggedBoxes(boxes.boxes[np.arange(int(counts.sum())) + np.repeat(starts - offset, counts)], counts)


def _record_scores(answers: _Answers, index: np.ndarray, reference: Reference) -> dict[str, np.ndarray]:
    scores = record_scores(answers.boxes, _select(reference.boxes, index), reference.sizes[index])
    evidence = reference.table.evidence_fraction[index]

    def over_evidence(values: np.ndarray) -> np.ndarray:
        return np.divide(values, evidence, out=np.full(len(index), np.nan), where=evidence > 0)

    return {
        **scores,
        "fallback": answers.fallback,
        "degenerate": answers.degenerate,
        "area_ratio": over_evidence(scores["predicted_fraction"]),
        "precision_lift": over_evidence(scores["precision"]),
    }


def _heatmap_scores(
    answers: _Answers, index: np.ndarray, reference: Reference, tolerance: float
) -> dict[str, np.ndarray]:
    """Heat-map scores, NaN for the records without a map."""
    submission = answers.submission
    table = np.full((len(HEATMAP_METRICS), len(index)), np.nan)
    starts = np.cumsum(reference.boxes.counts) - reference.boxes.counts
    clock = Clock(submission.seconds)
    for k, row in answers.placed():
        clock.check()
        heatmap = submission.heatmap(row)
        if heatmap is None:
            continue
        i = index[k]
        letterbox = _letterbox(submission, reference, i)
        mine = reference.boxes.boxes[starts[i] : starts[i] + reference.boxes.counts[i]]
        table[:, k] = score_heatmap(np.asarray(heatmap), letterbox, mine, tolerance=tolerance)
    return dict(zip(HEATMAP_METRICS, table, strict=True))


def _letterbox(submission: Submission, reference: Reference, i: int) -> Letterbox:
    """What a submission's heat map of the reference's i-th record lies over."""
    width, height = (int(v) for v in reference.sizes[i])
    return submission.letterbox((width, height))


def _concept_scores(
    answers: _Answers,
    index: np.ndarray,
    reference: Reference,
    anatomy: ConceptReference,
    heatmaps: bool,
) -> dict[str, np.ndarray]:
    """What a method says about concepts, by naming them or else by its heat maps; NaN where nothing is known or said.

    The columns of chance are over the same records. Empty where it says nothing of any record.
    """
    submission, rows = answers.submission, answers.rows()
    names = answers.concepts
    signed = submission.signed
    columns = {name: np.full(len(rows), np.nan) for name in CONCEPT_METRICS}
    clock = Clock(submission.seconds)
    for k, (row, i) in enumerate(zip(rows, index.tolist(), strict=True)):
        clock.check()
        holds, known = anatomy.holding[i], anatomy.anatomy[i]
        if not holds:
            continue
        if names:
            named, said = (row.concept, row.concept_scores) if row else (None, {})
        else:
            heatmap = submission.heatmap(row) if row and heatmaps else None
            if heatmap is None or known is None:
                continue
            heat = np.asarray(heatmap, np.float64)
            said = heat_in_concepts(
                np.maximum(heat, 0) if signed else heat, _letterbox(submission, reference, i), known
            )
            named = max(said, key=said.__getitem__) if said else None
        for name, value in score_concepts(named, said, holds).items():
            columns[name][k] = value
        for name, values in anatomy.chance.items():
            columns[name][k] = values[i]
    return {} if np.isnan(columns["concept_accuracy"]).all() else columns


def _places(
    answers: _Answers, index: np.ndarray, reference: Reference, heatmaps: bool
) -> tuple[np.ndarray | None, str]:
    """Share of every record's map, or of its boxes where the submission has no maps, in every place; and of which."""
    anatomies = None if reference.anatomy is None else [reference.anatomy.anatomy[i] for i in index.tolist()]
    if anatomies is None or not any(anatomies):
        return None, "boxes"
    submission = answers.submission
    maps = heatmaps and answers.first_heatmap is not None
    signed = submission.signed
    out = np.full((len(index), len(PLACES)), np.nan)
    clock = Clock(submission.seconds)
    for k, row in answers.placed():
        clock.check()
        i, known = index[k], anatomies[k]
        if known is None:
            continue
        if not maps:
            out[k] = box_shares(known.labels, row.boxes, (int(reference.sizes[i][0]), int(reference.sizes[i][1])))
        elif (heat := submission.heatmap(row)) is not None:
            out[k] = heat_shares(known.labels, heat, _letterbox(submission, reference, i), signed=signed)
    return out, "map" if maps else "boxes"


def _reference_places(reference: Reference, used: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Share of the evidence and of the image in every place."""
    if reference.anatomy is None or not any(reference.anatomy.anatomy):
        return None, None
    starts = np.cumsum(reference.boxes.counts) - reference.boxes.counts
    evidence, area = np.full((2, len(used), len(PLACES)), np.nan)
    for k, i in enumerate(used.tolist()):
        if (known := reference.anatomy.anatomy[i]) is None:
            continue
        width, height = (int(v) for v in reference.sizes[i])
        mine = reference.boxes.boxes[starts[i] : starts[i] + reference.boxes.counts[i]]
        evidence[k] = box_shares(known.labels, mine, (width, height))
        area[k] = box_shares(known.labels, [(0, 0, width, height)], (width, height))
    return evidence, area


def _used_bounds(scored: Sequence[SubmissionScores], reference: Reference, used: np.ndarray) -> dict[str, BoxScores]:
    """The columns of ceilings and second annotators that the submissions name."""
    out: dict[str, BoxScores] = {}
    for one in scored:
        for row, (key, scores) in _bounds(one.provenance, reference).items():
            if row in one.bounds:
                out.setdefault(key, _take(scores, used))
    return out


def _file(
    reference: Reference,
    scored: list[SubmissionScores],
    resamples: int,
    confidence: float,
    tolerance: float,
    seed: int,
) -> ScoreFile:
    """A score file with only the records that some submission covers."""
    used = np.unique(np.concatenate([s.positions for s in scored])) if scored else np.empty(0, np.int64)
    renumbered = [SubmissionScores(**{**s.__dict__, "positions": np.searchsorted(used, s.positions)}) for s in scored]
    evidence, area = _reference_places(reference, used)
    return ScoreFile(
        config=reference.config,
        fingerprint=reference.fingerprint,
        dataset_records=len(reference.table),
        table=reference.table.take(used),
        chance={row: _take(s, used) for row, s in reference.chance.items()},
        bounds=_used_bounds(scored, reference, used),
        submissions=renumbered,
        settings={
            "resamples": resamples,
            "confidence": confidence,
            "tolerance": tolerance,
            "seed": seed,
            "random_boxes": DRAWS,
        },
        versions=software_versions(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        evidence_places=evidence,
        area_places=area,
    )
