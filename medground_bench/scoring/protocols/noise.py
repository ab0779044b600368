"""Low signal to noise: whether the map still finds the evidence as dose goes down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import in_pixels
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["NoiseParameters", "feature_precision", "noise", "uscore"]

LEVELS = (4, 8, 16, 32, 64)


@dataclass(frozen=True)
class NoiseParameters:
    """Attributes: ``levels``, standard deviations of the noise in grey levels."""

    levels: tuple[int, ...] = LEVELS


def uscore(heat: np.ndarray, truth: np.ndarray) -> float:
    """``mean(1 - |a - b| / (|a| + |b|))`` of two maps that are scaled to sum 1 in absolute value.

    A cell where both are 0 counts as 1, so that a small truth makes every score high.
    """
    a, b = (np.asarray(v, float) / max(np.abs(v).sum(), 1e-30) for v in (heat, truth))
    return float((1 - np.abs(a - b) / (np.abs(a) + np.abs(b) + 1e-7 / a.size)).mean())


def feature_precision(heat: np.ndarray, truth: np.ndarray) -> float:
    """Share of the k hottest cells that are true, of k true ones; equally hot cells count by their share."""
    count = int(truth.sum())
    values = np.ravel(heat)
    least = np.sort(values)[::-1][count - 1]
    above, level = values > least, values == least
    hits = np.ravel(truth)[above].sum() + np.ravel(truth)[level].mean() * (count - above.sum())
    return float(hits / count)


@protocol(
    "noise",
    asks="Does the map still find the evidence when the image is noisy and the answer still right?",
    measures=[
        Measure("loss", "area under the precision-recall curve lost, mean over the levels", "low", (-1, 1)),
        Measure("auprc_0", "area under the precision-recall curve without noise", bounds=(0, 1), chance="auprc_chance"),
        *(
            Measure(f"auprc_{s}", f"with noise of {s} grey levels", bounds=(0, 1), chance="auprc_chance")
            for s in LEVELS
        ),
        Measure("auprc_chance", "of a constant map", "", (0, 1)),
        Measure("uscore_0", "agreement with the evidence without noise", bounds=(0, 1)),
        Measure("precision_0", "of as many pixels as the evidence has", bounds=(0, 1), chance="auprc_chance"),
        *(Measure(f"kept_{s}", f"answers kept with noise of {s} grey levels", "", (0, 1)) for s in LEVELS),
    ],
    needs=("heatmaps", "lvlm", "method"),
    parameters=NoiseParameters,
    cost="a run of the method and an answer a level",
    reference="ChaosMining (Shi et al. 2024): UScore, feature precision; noise on frames",
)
def noise(case: Case, parameters: NoiseParameters) -> Mapping[str, float]:
    """Gaussian noise on the image; only records that are still answered as before."""
    heat, probe = case.heatmap, case.probe
    scores = case.judged(heat)
    x1, y1, x2, y2 = probe.letterbox.content
    truth = probe.mask_of(case.record.boxes)[y1:y2, x1:x2]
    if not truth.any():
        raise Skip("the evidence has no pixel of the frame")
    pixels = in_pixels(case, heat)[y1:y2, x1:x2]
    out = {
        "auprc_0": scores.auprc,
        "auprc_chance": scores.auprc_chance,
        "uscore_0": uscore(np.maximum(pixels, 0), truth),
        "precision_0": feature_precision(pixels, truth),
    }
    grain = case.rng("grain").normal(0, 1, probe.frame.shape[:2])[y1:y2, x1:x2]
    losses = []
    for level in parameters.levels:
        noisy = probe.with_content(probe.content + level * (grain if probe.frame.ndim == 2 else grain[..., None]))
        kept = probe.kept(noisy[None])[0]
        out[f"kept_{level}"] = kept
        if not kept:
            continue
        try:
            found = case.judged(case.again(probe.reframed(noisy))).auprc
        except Skip:
            found = scores.auprc_chance  # a map that names nothing
        out[f"auprc_{level}"] = found
        losses.append(scores.auprc - found)
    if losses:
        out["loss"] = float(np.mean(losses))
    return out
