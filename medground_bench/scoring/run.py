"""Scoring submissions against a dataset folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.errors import ScoringError, SubmissionError
from medground_bench.core.versions import software_versions
from medground_bench.imaging import Letterbox
from medground_bench.imaging.areas import RaggedBoxes, ragged
from medground_bench.imaging.overlap import BoxScores
from medground_bench.scoring.aggregate import (
    Aggregate,
    aggregate,
    aggregate_chance,
    record_scores,
    score_quotients,
)
from medground_bench.scoring.chance import DRAWS
from medground_bench.scoring.files import ScoreFile, SubmissionScores
from medground_bench.scoring.heatmaps import HEATMAP_METRICS, TOLERANCE, score_heatmap
from medground_bench.scoring.statistics import CONFIDENCE, RESAMPLES
from medground_bench.scoring.table import Reference, load_reference
from medground_bench.submission import Prediction, Submission, open_submission, validate_submission
from medground_bench.submission.format import Clock, Fault

if TYPE_CHECKING:
    from medground_bench.dataset.folder import DatasetFolder

__all__ = ["score_submission", "score_submissions"]

_LEVELS = ("all", "dataset", "size", "attribute")
_SHOWN = 20


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
    progress : callable, optional
        Called with (done, total, what).

    Raises
    ------
    SubmissionError
        If a submission is not valid, or was made for another dataset.
    ScoringError
        If two submissions are of the same method for the same LVLM and mode.
    """
    reference = load_reference(
        dataset, fingerprint=dataset.fingerprint, config=str(getattr(dataset, "config", "")), seed=seed
    )
    scored: list[SubmissionScores] = []
    made: dict[tuple[str, str, str], str | Path] = {}
    shared: dict[bytes, dict[str, list[Aggregate]]] = {}
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
    shared: dict[bytes, dict[str, list[Aggregate]]] | None = None,
) -> SubmissionScores:
    """Validate and score one submission (see :func:`score_submissions`); ``rows`` are those of the reference.

    ``shared`` keeps the chance aggregates between submissions over the same records.
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
    answers = submission.predictions()
    index = reference.covered(str(submission.header["lvlm"]), str(submission.header["mode"]))
    rows = [answers.get(key) for key in reference.table.id[index].tolist()]
    scores = _record_scores(rows, index, reference)
    if heatmaps and any(row and row.heatmap for row in rows):
        scores.update(_heatmap_scores(submission, rows, index, reference, tolerance))
    table = reference.table.take(index)
    chance = {row: _take(s, index) for row, s in reference.chance.items()}
    options: dict[str, Any] = {"resamples": resamples, "confidence": confidence, "seed": seed}
    shared = {} if shared is None else shared
    if index.tobytes() not in shared:
        shared[index.tobytes()] = aggregate_chance(chance, table, _LEVELS, **options)
    return SubmissionScores(
        provenance=submission.header,
        predictions=submission.digest(),
        rows=index,
        scores=scores,
        aggregates=aggregate(
            score_quotients(scores, table.evidence_fraction, chance), table, _LEVELS, chance=chance, **options
        ),
        chance_aggregates=shared[index.tobytes()],
        warnings=[str(w) for w in report.warnings],
    )


def _take(scores: BoxScores, index: np.ndarray) -> BoxScores:
    return BoxScores(*(column[index] for column in scores))


def _select(boxes: RaggedBoxes, index: np.ndarray) -> RaggedBoxes:
    """The boxes of some of the records."""
    counts = boxes.counts[index]
    starts = (np.cumsum(boxes.counts) - boxes.counts)[index]
    offset = np.cumsum(counts) - counts
    return RaggedBoxes(boxes.boxes[np.arange(int(counts.sum())) + np.repeat(starts - offset, counts)], counts)


def _record_scores(rows: Sequence[Prediction | None], index: np.ndarray, reference: Reference) -> dict[str, np.ndarray]:
    predicted = ragged([row.boxes if row else () for row in rows], "predictions")
    scores = record_scores(predicted, _select(reference.boxes, index), reference.sizes[index])
    evidence = reference.table.evidence_fraction[index]

    def flag(name: str) -> np.ndarray:
        return np.array([float(bool(row and getattr(row, name))) for row in rows])

    def over_evidence(values: np.ndarray) -> np.ndarray:
        return np.divide(values, evidence, out=np.full(len(rows), np.nan), where=evidence > 0)

    return {
        **scores,
        "fallback": flag("fallback"),
        "degenerate": flag("degenerate"),
        "area_ratio": over_evidence(scores["predicted_fraction"]),
        "precision_lift": over_evidence(scores["precision"]),
    }


def _heatmap_scores(
    submission: Submission,
    rows: Sequence[Prediction | None],
    index: np.ndarray,
    reference: Reference,
    tolerance: float,
) -> dict[str, np.ndarray]:
    """Heat-map scores, NaN for the records without a map."""
    settings = submission.header.get("settings") or {}
    side = settings.get("frame_side", 224)
    table = np.full((len(HEATMAP_METRICS), len(rows)), np.nan)
    starts = np.cumsum(reference.boxes.counts) - reference.boxes.counts
    clock = Clock(submission.seconds)
    for k, (row, i) in enumerate(zip(rows, index.tolist(), strict=True)):
        clock.check()
        heatmap = submission.heatmap(row) if row else None
        if heatmap is None:
            continue
        width, height = (int(v) for v in reference.sizes[i])
        frame = Letterbox.fit(width, height, int(side)) if side else Letterbox.identity(width, height)
        mine = reference.boxes.boxes[starts[i] : starts[i] + reference.boxes.counts[i]]
        table[:, k] = score_heatmap(np.asarray(heatmap), frame, mine, tolerance=tolerance)
    return dict(zip(HEATMAP_METRICS, table, strict=True))


def _file(
    reference: Reference,
    scored: list[SubmissionScores],
    resamples: int,
    confidence: float,
    tolerance: float,
    seed: int,
) -> ScoreFile:
    """A score file with only the records that some submission covers."""
    used = np.unique(np.concatenate([s.rows for s in scored])) if scored else np.empty(0, np.int64)
    renumbered = [SubmissionScores(**{**s.__dict__, "rows": np.searchsorted(used, s.rows)}) for s in scored]
    return ScoreFile(
        config=reference.config,
        fingerprint=reference.fingerprint,
        dataset_records=len(reference.table),
        table=reference.table.take(used),
        chance={row: _take(s, used) for row, s in reference.chance.items()},
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
    )
