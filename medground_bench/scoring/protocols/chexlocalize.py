"""CheXlocalize's scores: hit rate and mean IoU of thresholded maps, and what of the evidence they depend on."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.scoring.protocols.maps import correlation, hottest
from medground_bench.scoring.protocols.protocol import Measure, Skip, Table, protocol
from medground_bench.scoring.statistics import MIN_CLUSTERS, bootstrap_ratios, cluster_codes, holm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medground_bench.scoring.protocols.case import Case, Trial

__all__ = ["CheXlocalizeParameters", "chexlocalize", "fill_holes", "otsu", "shape_features"]

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
FEATURES = ("instances", "area", "elongation", "rectangularity")
_FOLDS = 2


@dataclass(frozen=True)
class CheXlocalizeParameters:
    """Attributes: ``least``, confidence of the answer below which a map's mask is empty, and its IoU 0."""

    least: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1:
            raise ValueError("least must lie between 0 and 1")


def otsu(values: np.ndarray) -> int:
    """Otsu's threshold of 8-bit values: the level above which the variance between both classes is greatest."""
    counts = np.bincount(np.ravel(values), minlength=256).astype(float)
    levels = np.arange(256)
    below = np.cumsum(counts)
    above = below[-1] - below
    mean = np.cumsum(counts * levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean[-1] * below / below[-1] - mean) ** 2 / (below * above)
    return int(np.nanargmax(np.where(np.isfinite(between), between, -1)))


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """A mask whose outlines are filled."""
    from scipy.ndimage import binary_fill_holes

    return np.asarray(binary_fill_holes(mask))


def shape_features(mask: np.ndarray) -> dict[str, float]:
    """Number of parts, share of the image, elongation and rectangularity of a mask.

    The last two are of the smallest rectangle, at any angle, around the largest part: long over short side, and the
    share of it that the part fills.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return dict.fromkeys(FEATURES, float("nan"))
    sizes = np.bincount(labels.ravel())[1:]
    part = labels == 1 + int(np.argmax(sizes))
    edge = part & ~ndimage.binary_erosion(part)
    rows, cols = np.nonzero(edge)
    corners = np.concatenate([np.stack([cols + dx, rows + dy], axis=1) for dx in (0, 1) for dy in (0, 1)]).astype(float)
    best = (np.inf, 1.0)
    for angle in np.deg2rad(np.arange(0, 90, 1.0)):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        extent = np.ptp(corners @ turn, axis=0)
        if extent.prod() < best[0] - 1e-9:
            best = (float(extent.prod()), float(extent.max() / extent.min()))
    return {
        "instances": float(count),
        "area": float(mask.mean()),
        "elongation": best[1],
        "rectangularity": float(part.sum() / best[0]),
    }


def evidence_mask(case: Case) -> np.ndarray:
    """(height, width) bool over the native image: the source's masks where it has any, else the boxes."""
    candidate = case.trial.candidates.get(case.record.id)
    if candidate is not None and candidate.masks:
        return np.logical_or.reduce([mask.raster() for mask in candidate.masks])
    return case.native_mask(case.record.boxes)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Of two masks; NaN where both are empty."""
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else float("nan")


def _tuned(trial: Trial, values: Mapping[str, Mapping[str, float]]) -> list[tuple[str, float, float]]:
    """(record, threshold, IoU): the threshold of its finding is the best on the other half of the patients."""
    codes, count = cluster_codes(trial.patients(values))
    fold_of = np.random.default_rng(0).permutation(count) % _FOLDS
    folds = dict(zip(values, fold_of[codes].tolist(), strict=True))
    out = []
    for fold in range(_FOLDS):
        tuned: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
        for key, row in values.items():
            if folds[key] != fold:
                for t in THRESHOLDS:
                    tuned[trial.records[key].attribute][t].append(row[f"iou_{t}"])
        every = {t: [v for found in tuned.values() for v in found[t]] for t in THRESHOLDS}
        for key, row in values.items():
            if folds[key] == fold:
                found = tuned.get(trial.records[key].attribute) or every
                means = np.array([np.nanmean(found[t]) if len(found[t]) else -1.0 for t in THRESHOLDS])
                best = THRESHOLDS[int(np.argmax(means))]
                out.append((key, best, row[f"iou_{best}"]))
    return out


def _tables(trial: Trial, values: Mapping[str, Mapping[str, float]], parameters: Any) -> Sequence[Table]:
    patients = set(trial.patients(values))
    readers = _reader_rows(trial, values)
    if len(patients) < MIN_CLUSTERS:
        return [Table(f"no tuning and no regression from {len(patients)} patients", []), *readers]
    tuned = _tuned(trial, values)
    by_finding: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for key, threshold, score in tuned:
        by_finding[trial.records[key].attribute].append((threshold, score))
    rows = [
        {
            "finding": name,
            "records": len(found),
            "threshold": float(np.mean([t for t, _ in found])),
            "iou": float(np.nanmean([s for _, s in found])),
        }
        for name, found in sorted(by_finding.items())
    ]
    rows.append(
        {"finding": "all", "records": len(tuned), "iou": float(np.nanmean([s for *_, s in tuned]))}
        | {"threshold": float(np.mean([t for _, t, _ in tuned]))}
    )
    return [
        Table("IoU at the threshold of the finding that is best on other patients", rows),
        Table(
            "what of the evidence, and of the confidence, the scores depend on (Spearman; Holm over the table)",
            _regressions({"": values}),
        ),
        *_by_finding(trial, values),
        *readers,
    ]


def _by_finding(trial: Trial, values: Mapping[str, Mapping[str, float]]) -> list[Table]:
    """The regressions of every finding that enough patients have, where there are several."""
    found: dict[str, dict[str, Mapping[str, float]]] = defaultdict(dict)
    for key, row in values.items():
        found[trial.records[key].attribute][key] = row
    enough = {name: rows for name, rows in sorted(found.items()) if len(set(trial.patients(rows))) >= MIN_CLUSTERS}
    rows = _regressions(enough) if len(found) > 1 else []
    return [Table("the same by finding (Holm over the table)", rows)] if rows else []


def _reader_rows(trial: Trial, values: Mapping[str, Mapping[str, float]]) -> list[Table]:
    """A second annotator beside the map, over the records that have one."""
    keys = [key for key, row in values.items() if np.isfinite(row.get("iou_reader", np.nan))]
    if not keys:
        return []
    patients = trial.patients(keys)
    rows = []
    for name, measures in (("second annotator", ("hit_reader", "iou_reader")), (trial.name, ("hit", "iou_otsu"))):
        columns = np.array([[values[key][measure] for measure in measures] for key in keys])
        hit, overlap = bootstrap_ratios(columns, np.ones_like(columns), patients, bounds=[(0, 1)] * 2, resamples=2000)
        row = {"row": name, "records": len(keys), "patients": len(set(patients)), "hit": hit.value, "hit_low": hit.low}
        rows.append(
            row | {"hit_high": hit.high, "iou": overlap.value, "iou_low": overlap.low, "iou_high": overlap.high}
        )
    return [Table("a second annotator beside the map, judged alike", rows)]


def _regressions(groups: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Rows of every group of records; a group without a name is all of them."""
    rows: list[dict[str, Any]] = []
    for finding, values in groups.items():
        rows += [{**({"finding": finding} if finding else {}), **row} for row in _dependences(values)]
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
    return rows


def _dependences(values: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for score in ("iou_otsu", "hit"):
        for feature in (*FEATURES, "_confidence"):
            pairs = np.array([(row.get(feature, np.nan), row[score]) for row in values.values()], float)
            pairs = pairs[np.isfinite(pairs).all(axis=1)]
            if len(pairs) < 4 or not (np.ptp(pairs[:, 0]) and np.ptp(pairs[:, 1])):
                continue
            rho = correlation(pairs[:, 0], pairs[:, 1])
            low, high, p = _fisher(rho, len(pairs))
            slope = float(np.polyfit(pairs[:, 0], pairs[:, 1], 1)[0])
            rows.append(
                {
                    "score": score,
                    "feature": feature.strip("_"),
                    "n": len(pairs),
                    "spearman": rho,
                    "low": low,
                    "high": high,
                }
                | {"slope": slope, "p": p}
            )
    return rows


def _fisher(rho: float, n: int) -> tuple[float, float, float]:
    """95 % interval and two-sided p-value of a correlation by Fisher's transformation (Bonett & Wright 2000)."""
    from scipy.stats import norm

    z = np.arctanh(np.clip(rho, -0.999999, 0.999999))
    error = np.sqrt((1 + rho**2 / 2) / (n - 3))
    low, high = np.tanh(z - 1.96 * error), np.tanh(z + 1.96 * error)
    return float(low), float(high), float(2 * norm.sf(abs(z) * np.sqrt(n - 3)))


@protocol(
    "chexlocalize",
    asks="What do radiologists' usual scores of localisation say, and what of the evidence do they depend on?",
    measures=[
        Measure("hit", "hottest point in the evidence", bounds=(0, 1), chance="area"),
        Measure("iou_otsu", "IoU of the map at Otsu's threshold, holes filled", bounds=(0, 1)),
        *(Measure(f"iou_{t}", f"IoU of the map above {t}", bounds=(0, 1)) for t in THRESHOLDS),
        Measure("hit_reader", "centre of a second annotator's largest box in the evidence", "", (0, 1)),
        Measure("iou_reader", "IoU of a second annotator's boxes", "", (0, 1)),
        Measure("instances", "parts of the evidence", "", (0, np.inf)),
        Measure("area", "share of the image that is evidence", "", (0, 1)),
        Measure("elongation", "long over short side of its smallest rectangle", "", (1, np.inf)),
        Measure("rectangularity", "share of that rectangle that is evidence", "", (0, 1)),
    ],
    needs=("heatmaps",),
    parameters=CheXlocalizeParameters,
    cost="0 F; 1 F where the LVLM is given, for its confidence",
    reference="CheXlocalize (Saporta et al. 2022); thresholds per finding from other patients; intervals over patients",
    summarise=_tables,
)
def chexlocalize(case: Case, parameters: CheXlocalizeParameters) -> Mapping[str, float]:
    """Maps scaled to [0, 1] over the native image, against the source's masks where it has them, else the boxes."""
    heat, sure = case.heatmap, _confidence(case)
    if parameters.least and not sure:
        raise Skip("the answer's confidence is not known without its LVLM")
    truth = evidence_mask(case)
    if not truth.any():
        raise Skip("no evidence in the image")
    height, width = truth.shape
    box = case.letterbox
    native = np.asarray(box.heatmap_to_native(_finite32(heat)), np.float64)
    low, high = native.min(), native.max()
    if not high > low:
        raise Skip("the map is constant over the image")
    scaled = (native - low) / (high - low)
    levels = np.rint(255 * scaled).astype(np.uint8)
    x, y = hottest(case, heat)
    inside = 0 <= x < width and 0 <= y < height and truth[int(y), int(x)]
    told = not sure or sure["_confidence"] >= parameters.least
    return {
        "hit": float(inside),
        "iou_otsu": iou(fill_holes(levels > otsu(levels)) & told, truth),
        **{f"iou_{t}": iou((scaled > t) & told, truth) for t in THRESHOLDS},
        **_reader(case, truth),
        **shape_features(truth),
        **sure,
    }


def _reader(case: Case, truth: np.ndarray) -> dict[str, float]:
    """A second annotator of the same finding on the same image, judged as the map is."""
    boxes = case.trial.readings.get(case.record.id)
    if not boxes:
        return {}
    x1, y1, x2, y2 = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    x, y = int((x1 + x2) / 2), int((y1 + y2) / 2)
    inside = 0 <= x < truth.shape[1] and 0 <= y < truth.shape[0] and truth[y, x]
    return {"hit_reader": float(inside), "iou_reader": iou(case.native_mask(boxes), truth)}


def _confidence(case: Case) -> dict[str, float]:
    """How sure the LVLM is of the response, where the run has it: the scores may depend on that, too."""
    lvlm = case.trial.lvlm
    if lvlm is None or lvlm.key != case.trial.submission.header["lvlm"]:
        return {}
    return {"_confidence": float(case.probe.confidence(case.probe.frame[None])[0])}


def _finite32(heat: np.ndarray) -> np.ndarray:
    """A map in the range of float32; only its order and ratios matter."""
    peak = np.abs(heat).max()
    return np.asarray(heat / peak if peak > 0 else heat, np.float32)
