"""Strata of evidence size, and how much a score depends on the threshold that turns a map into boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.imaging import heatmap_to_boxes
from medground_bench.scoring.protocols.protocol import Measure, NoParameters, Skip, Table, protocol
from medground_bench.scoring.statistics import bootstrap_ratios

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medground_bench.scoring.protocols.case import Case, Trial

__all__ = ["strata", "stratum"]

QUANTILES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
EDGES = (0.01, 0.05, 0.15)
NAMES = ("below 1 %", "1 to 5 %", "5 to 15 %", "above 15 %")


def stratum(share: float) -> str:
    """The stratum of an evidence's share of the image."""
    return NAMES[int(np.searchsorted(EDGES, share, side="right"))]


def _tables(trial: Trial, values: Mapping[str, Mapping[str, float]], parameters: Any) -> Sequence[Table]:
    rows = []
    for name in NAMES:
        keys = [key for key, row in values.items() if stratum(row["evidence"]) == name]
        if not keys:
            continue
        columns = np.array([(values[k]["iou"], values[k]["dice"]) for k in keys])
        patients = trial.patients(keys)
        iou, dice = bootstrap_ratios(columns, np.ones_like(columns), patients, bounds=[(0, 1), (0, 1)], resamples=2000)
        rows.append(
            {"evidence": name, "records": len(keys), "patients": len(set(patients)), "iou": iou.value, "low": iou.low}
            | {"high": iou.high, "dice": dice.value}
        )
    tables = [Table("by size of the evidence", rows)]
    curve = []
    for q in QUANTILES:
        found = [(row[f"iou_q{q}"], row.get(f"_dice_q{q}", np.nan)) for row in values.values() if f"iou_q{q}" in row]
        if found:
            means = np.mean(found, axis=0).tolist()
            curve.append({"quantile": q, "records": len(found), "iou": means[0], "dice": means[1]})
    if curve:
        tables.append(Table("by the quantile at which maps become boxes (the benchmark's is 0.9)", curve))
    return tables


@protocol(
    "strata",
    asks="How do scores depend on the size of the evidence, and on the threshold that makes boxes of a map?",
    measures=[
        Measure("iou", "IoU of the submission's boxes", bounds=(0, 1)),
        Measure("dice", "Dice coefficient (F1) of the submission's boxes", bounds=(0, 1)),
        *(Measure(f"iou_q{q}", f"IoU of boxes from the map at its {q} quantile", bounds=(0, 1)) for q in QUANTILES),
        Measure("best_threshold_gain", "IoU at each record's best quantile minus that at 0.9", "", (0, 1)),
        Measure("evidence", "share of the image that is evidence", "", (0, 1)),
    ],
    cost="0 F",
    reference="XBench (2025): size strata and thresholds",
    summarise=_tables,
)
def strata(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """Boxes as submitted and, where there is a map, boxes by the benchmark's protocol at other quantiles."""
    scores = case.overlap(case.prediction.boxes)
    out = {"iou": scores["iou"], "dice": scores["f1"], "evidence": scores["evidence"]}
    try:
        heat = case.over_frame(np.maximum(case.heatmap, 0) if case.trial.submission.signed else case.heatmap)
    except Skip:
        return out
    for q in QUANTILES:
        scores = case.overlap(case.letterbox.to_native(heatmap_to_boxes(heat, quantile=q)))
        out |= {f"iou_q{q}": scores["iou"], f"_dice_q{q}": scores["f1"]}
    best = max(out[f"iou_q{q}"] for q in QUANTILES)
    return {**out, "best_threshold_gain": best - out["iou_q0.9"]}
