"""Scores of plain lists, without a dataset folder: what the ``evaluate`` module returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medground_bench.core.errors import ScoringError
from medground_bench.imaging.areas import RaggedBoxes, ragged, record_areas
from medground_bench.imaging.overlap import METRICS, BoxScores
from medground_bench.scoring.aggregate import Aggregate, aggregate, aggregate_chance, record_scores, score_quotients
from medground_bench.scoring.chance import chance_scores, inside
from medground_bench.scoring.chance import image_sizes as sizes_array
from medground_bench.scoring.statistics import CONFIDENCE, RESAMPLES, Interval, cluster_codes
from medground_bench.scoring.table import RecordTable, size_tertiles

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
    drop_invalid: bool = False,
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
        Bootstrap resamples of the groups; 0 leaves out the intervals and the comparison with chance.
    confidence, seed
        Of the intervals; the seed is also that of the random chance row.
    per_record : bool
        Add the scores of every record.
    drop_invalid : bool
        Leave out reversed boxes and boxes without area, and count them, instead of refusing them.

    Returns
    -------
    dict
        ``iou``, ``precision``, ``recall``, ``f1``, ``records``, ``clusters`` (groups, else records), ``coverage``;
        ``intervals``, where there are at least six clusters; with the columns ``by_dataset``, ``by_model``, ``macro``,
        ``area_ratio``, ``precision_lift``, ``chance``, ``skill``, ``against_chance``; with ``drop_invalid``,
        ``dropped_boxes``. Plain Python values, fractions; NaN only for means over no records.

    Raises
    ------
    ScoringError
        If a box is faulty or a column does not have one entry per record.
    """
    predicted, evidence = ragged(predictions, "predictions"), ragged(references, "references")
    lost = [_invalid(predictions, predicted, "predictions"), _invalid(references, evidence, "references")]
    if not drop_invalid:
        for fault in (fault for _, fault in lost if fault is not None):
            raise fault
    n = len(evidence.counts)
    if len(predicted.counts) != n:
        raise ScoringError(f"{len(predicted.counts)} predictions for {n} references", expected="one list of boxes each")
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
    sources = [""] * n if datasets is None else [str(name) for name in datasets]
    clusters = list(range(n) if groups is None else groups)
    sizes = sizes_array(image_sizes, evidence) if image_sizes is not None and n else None
    chance: dict[str, BoxScores] = {}
    if sizes is not None:
        evidence = inside(evidence, sizes)
        findings = list(zip(sources, [""] * n if attributes is None else attributes, strict=True))
        # Several LVLMs are asked about the same evidence of the same patient: it counts once in the prior.
        asked = [(c, *f, str(b)) for c, f, b in zip(clusters, findings, references, strict=True)]
        chance = chance_scores(
            evidence, sizes, findings, clusters, items=asked if groups is not None else None, seed=seed
        )
        if attributes is None:
            del chance["centre_prior"]
    scores = record_scores(predicted, evidence, sizes)
    fraction = None if sizes is None else record_areas(evidence, evidence).evidence / sizes.prod(axis=1)
    table = _table(n, datasets, models, attributes, cluster_codes(clusters)[0], fraction)
    quotients = score_quotients(scores, fraction, chance)
    options: dict[str, Any] = {"resamples": resamples, "confidence": confidence, "seed": seed}
    (whole,) = aggregate(quotients, table, ["all"], chance=chance, **options) or [_nothing()]

    out: dict[str, Any] = {**_values(whole, METRICS), "records": n, "clusters": whole.clusters}
    out["coverage"] = whole.values["coverage"].value
    found = {name: whole.values[name] for name in METRICS}
    if not any(np.isnan(interval.low) for interval in found.values()):
        out["intervals"] = {name: [interval.low, interval.high] for name, interval in found.items()}
    groups_of = {
        level: {a.group: a for a in aggregate(quotients, table, [level], resamples=0)}
        for level in ("dataset", "lvlm", "macro")
    }
    for key, level, column in (("by_dataset", "dataset", datasets), ("by_model", "lvlm", models)):
        if column is not None:
            out[key] = {
                name: {**_values(a, METRICS), "records": a.records, "clusters": a.clusters}
                for name, a in groups_of[level].items()
            }
    if models is not None:
        out["macro"] = _values(groups_of["macro"].get("", whole), METRICS)
    if sizes is not None:
        out |= _values(whole, ("area_ratio", "precision_lift"))
        by_chance = aggregate_chance(chance, table, ["all"], resamples=0)
        out["chance"] = {row: _values(a, METRICS) for row, (a,) in by_chance.items()}
        out["skill"] = {
            row: {name: whole.values[f"skill_{name}_{row}"].value for name in ("iou", "f1")} for row in chance
        }
        out["against_chance"] = {"row": whole.best_chance}
        if not np.isnan(whole.p_chance):
            out["against_chance"]["p_value"] = whole.p_chance
    if per_record:
        out["per_record"] = {name: scores[name].tolist() for name in METRICS}
    if drop_invalid:
        out["dropped_boxes"] = dict(zip(("predictions", "references"), (count for count, _ in lost), strict=True))
    return out


def _values(aggregate: Aggregate, names: Sequence[str]) -> dict[str, float]:
    return {name: aggregate.values[name].value for name in names}


def _nothing() -> Aggregate:
    """What is known without records."""
    nan = float("nan")
    return Aggregate("all", "", 0, 0, {name: Interval(nan, nan, nan) for name in (*METRICS, "coverage")})


def _table(
    n: int,
    datasets: Sequence[Any] | None,
    models: Sequence[Any] | None,
    attributes: Sequence[Any] | None,
    cluster: np.ndarray,
    fraction: np.ndarray | None,
) -> RecordTable:
    def texts(column: Sequence[Any] | None) -> np.ndarray:
        return np.array([""] * n if column is None else [str(value) for value in column], object)

    share = np.zeros(n) if fraction is None else fraction
    none = texts(None)
    return RecordTable(
        none, texts(datasets), texts(models), none, texts(attributes), cluster, share, size_tertiles(share)
    )


def _invalid(records: Sequence[Any], kept: RaggedBoxes, name: str) -> tuple[int, ScoringError | None]:
    """How many boxes are reversed or have no area, and the error of the first of them, as ``validate`` puts it."""
    lost = 0 if isinstance(records, RaggedBoxes) else sum(map(len, records)) - int(kept.counts.sum())
    if not lost:
        return 0, None
    places = ((i, k, box) for i, boxes in enumerate(records) for k, box in enumerate(boxes))
    i, k, box = next((i, k, b) for i, k, b in places if b[2] <= b[0] or b[3] <= b[1])
    return lost, ScoringError(
        f"box {k} is reversed or has no area: {[float(v) for v in box]}",
        where=f"{name}[{i}]",
        expected="x1 < x2 and y1 < y2 (half-open, xyxy)",
        remedy="correct it, or give drop_invalid=True to leave such boxes out and have them counted",
    )
