"""Scores of plain lists, without a dataset folder: what the ``evaluate`` module returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.imaging.areas import RaggedBoxes, RecordAreas, ragged, record_areas
from medground_bench.imaging.overlap import METRICS, BoxScores, score_areas
from medground_bench.scoring.chance import chance_scores, skill
from medground_bench.scoring.statistics import CONFIDENCE, RESAMPLES, bootstrap_ratios

__all__ = ["evaluate_boxes"]


def evaluate_boxes(
    predictions: Sequence[Any],
    references: Sequence[Any],
    *,
    datasets: Sequence[Any] | None = None,
    models: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
    image_sizes: Sequence[Sequence[float]] | None = None,
    attributes: Sequence[Any] | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    per_record: bool = False,
) -> dict[str, Any]:
    """Means of the four scores, and what the optional columns allow beside them.

    Parameters
    ----------
    predictions, references : sequence of (sequence of [x1, y1, x2, y2])
        Per record, native pixels.
    datasets, models, groups, attributes : sequence of length n, optional
        Dataset, model, patient (else image) and finding of every record.
    image_sizes : sequence of [width, height], optional
        Of every record's image.
    resamples : int
        Bootstrap resamples of the groups; 0 leaves the intervals out.
    confidence, seed
        Of the intervals; the seed is also that of the random chance row.
    per_record : bool
        Add the scores of every record.

    Returns
    -------
    dict
        ``iou``, ``precision``, ``recall``, ``f1``, ``records``, ``coverage``; ``intervals``; with the columns
        ``by_dataset``, ``by_model``, ``macro``, ``area_ratio``, ``precision_lift``, ``chance``, ``skill``. Plain
        Python values, fractions.

    Raises
    ------
    ScoringError
        If a box is faulty or a column does not have one entry per record.
    """
    predicted, evidence = ragged(predictions, "predictions"), ragged(references, "references")
    areas = record_areas(predicted, evidence)
    scores = score_areas(areas)
    n = len(scores.iou)
    columns = {
        "datasets": datasets,
        "models": models,
        "groups": groups,
        "image_sizes": image_sizes,
        "attributes": attributes,
    }
    for name, column in columns.items():
        if column is not None and len(column) != n:
            raise ScoringError(f"{len(column)} {name} for {n} records", expected="one entry per record")
    out: dict[str, Any] = {**_means(scores), "records": n, "coverage": _mean(predicted.counts > 0)}
    clusters = groups if groups is not None else range(n)
    if resamples and n:
        out["intervals"] = _intervals(scores, clusters, resamples, confidence, seed)
    if datasets is not None:
        out["by_dataset"] = _by(scores, datasets)
    if models is not None:
        out["by_model"] = _by(scores, models)
        out["macro"] = {
            m: float(np.mean([s[m] for s in out["by_model"].values()])) if n else float("nan") for m in METRICS
        }
    if image_sizes is not None and n:
        _against_chance(out, areas, evidence, image_sizes, attributes, clusters, seed)
    if per_record:
        out["per_record"] = {name: values.tolist() for name, values in scores._asdict().items()}
    return out


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _means(scores: BoxScores) -> dict[str, Any]:
    return {name: _mean(values) for name, values in scores._asdict().items()}


def _by(scores: BoxScores, column: Sequence[Any]) -> dict[str, dict[str, Any]]:
    names = np.array([str(value) for value in column], np.str_)
    out = {}
    for name in sorted(set(names.tolist())):
        mask = names == name
        out[name] = {**_means(BoxScores(*(v[mask] for v in scores))), "records": int(mask.sum())}
    return out


def _intervals(
    scores: BoxScores, clusters: Sequence[Any], resamples: int, confidence: float, seed: int
) -> dict[str, list[float]]:
    values = np.stack(scores, axis=1)
    found = bootstrap_ratios(
        values, np.ones_like(values), list(clusters), resamples=resamples, confidence=confidence, seed=seed
    )
    return {name: [interval.low, interval.high] for name, interval in zip(METRICS, found, strict=True)}


def _against_chance(
    out: dict[str, Any],
    areas: RecordAreas,
    evidence: RaggedBoxes,
    image_sizes: Sequence[Sequence[float]],
    attributes: Sequence[Any] | None,
    clusters: Sequence[Any],
    seed: int,
) -> None:
    findings = attributes if attributes is not None else [""] * len(evidence.counts)
    chance = chance_scores(evidence, image_sizes, findings, clusters, seed=seed)
    if attributes is None:
        del chance["centre_prior"]
    pixels = np.asarray(image_sizes, np.float64).prod(axis=1)
    expected = _mean(areas.evidence / pixels)
    out["area_ratio"] = _mean(areas.prediction / pixels) / expected if expected else float("nan")
    out["precision_lift"] = out["precision"] / expected if expected else float("nan")
    out["chance"] = {row: _means(s) for row, s in chance.items()}
    out["skill"] = {row: {name: skill(out[name], out["chance"][row][name]) for name in ("iou", "f1")} for row in chance}
