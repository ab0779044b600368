"""Low signal to noise: whether the map still finds the evidence as dose goes down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.bam import disc
from medground_bench.scoring.protocols.maps import free_place, in_pixels
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.core.schema import Box
    from medground_bench.scoring.protocols.case import Case

__all__ = ["NoiseParameters", "feature_precision", "noise", "uscore"]

LEVELS = (4, 8, 16, 32, 64)
DECOYS = (1, 2, 4, 8)
_DECOY = 0.1  # diameter, of the image's shorter side


@dataclass(frozen=True)
class NoiseParameters:
    """Options.

    Attributes
    ----------
    levels : tuple of int
        Standard deviations of the noise in grey levels.
    decoys : tuple of int
        Numbers of bright discs that are drawn beside the evidence: a run and an answer each.
    """

    levels: tuple[int, ...] = LEVELS
    decoys: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not set(self.decoys) <= set(DECOYS):
            raise ValueError(f"decoys must be among {', '.join(map(str, DECOYS))}")


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
        Measure("loss_decoys", "area under the precision-recall curve lost to decoys, their mean", "low", (-1, 1)),
        *(
            measure
            for k in DECOYS
            for measure in (
                Measure(f"auprc_decoys_{k}", f"with {k} decoys", bounds=(0, 1), chance="auprc_chance"),
                Measure(f"heat_decoys_{k}", f"heat on {k} decoys", "low", (0, 1), f"heat_before_{k}"),
                Measure(f"heat_before_{k}", "heat of the submitted map there, without them", "", (0, 1)),
                Measure(f"kept_decoys_{k}", f"answers kept with {k} decoys", "", (0, 1)),
            )
        ),
    ],
    needs=("heatmaps", "lvlm", "method"),
    parameters=NoiseParameters,
    cost="a run of the method and an answer a level, and as many for each number of decoys",
    reference="ChaosMining (Shi et al. 2024): UScore, feature precision; noise on frames, distractors beside evidence",
)
def noise(case: Case, parameters: NoiseParameters) -> Mapping[str, float]:
    """Gaussian noise on the image, or bright discs beside the evidence; only records still answered as before."""
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

    def changed(frame: np.ndarray, name: str) -> tuple[float, np.ndarray] | None:
        """What of the curve's area is lost, and the map there; None where the answer is another one."""
        kept = probe.kept(frame[None])[0]
        out[f"kept_{name}"] = kept
        if not kept:
            return None
        try:
            other = case.again(probe.reframed(frame))
            out[f"auprc_{name}"] = case.judged(other).auprc
        except Skip:
            other = np.ones((1, 1))  # a map that names nothing
            out[f"auprc_{name}"] = scores.auprc_chance
        return scores.auprc - out[f"auprc_{name}"], other

    noisy = []
    for level in parameters.levels:
        added = level * (grain if probe.frame.ndim == 2 else grain[..., None])
        noisy.append(changed(probe.with_content(probe.content + added), f"{level}"))
    drawn = []
    for count in parameters.decoys:
        frame, places = _with_decoys(case, count)
        if len(places) < count:
            continue
        drawn.append(changed(frame, f"decoys_{count}"))
        if drawn[-1] is not None:
            out[f"heat_decoys_{count}"] = case.judged(drawn[-1][1], places).energy
            out[f"heat_before_{count}"] = case.judged(heat, places).energy
    for name, found in (("loss", noisy), ("loss_decoys", drawn)):
        if losses := [one[0] for one in found if one is not None]:
            out[name] = float(np.mean(losses))
    return out


def _with_decoys(case: Case, count: int) -> tuple[np.ndarray, list[Box]]:
    """The frame with discs beside the evidence and beside each other, and their native boxes; fewer where none fits."""
    probe, rng = case.probe, case.rng("decoys")
    frame, taken, places = probe.frame.copy(), probe.mask_of(case.record.boxes), []
    side = max(4, round(_DECOY * min(probe.content.shape[:2])))
    for _ in range(count):
        place = free_place(case, rng, side, side, taken)
        if place is None:
            break
        frame[place], taken[place] = disc(frame[place]), True
        places.append((place[1].start, place[0].start, place[1].stop, place[0].stop))
    return frame, case.letterbox.to_native(places)
