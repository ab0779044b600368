"""Grid pointing game: four radiographs in one, of which one has the finding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from medground_bench.scoring.protocols.maps import in_pixels
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.dataset.columns import Record
    from medground_bench.scoring.protocols.case import Case

__all__ = ["GridParameters", "cell_share", "frame_of", "grid_pointing", "mosaic", "others_of"]


@dataclass(frozen=True)
class GridParameters:
    """Options.

    Attributes
    ----------
    confidence : float
        Least confidence in the answer to the mosaic.
    tries : int
        Images of other patients that are asked until three lack the finding.
    """

    confidence: float = 0.9
    tries: int = 12


def mosaic(frames: list[np.ndarray], size: tuple[int, int] | None = None) -> np.ndarray:
    """Four frames of one shape in reading order, grey; ``size``, (width, height), is that of one frame by default."""
    width, height = frames[0].shape[1::-1] if size is None else size
    grey = [f if f.ndim == 2 else f.mean(axis=2).astype(np.uint8) for f in frames]
    half = [np.asarray(Image.fromarray(f).resize((width // 2, height // 2), Image.Resampling.BICUBIC)) for f in grey]
    return np.block([[half[0], half[1]], [half[2], half[3]]])


def cell_share(heat: np.ndarray, place: int) -> float:
    """Share of a map's positive heat in one of its four quadrants; 0 where nothing is positive."""
    positive = np.maximum(heat, 0)
    total = positive.sum()
    if total <= 1e-7 * max(float(np.abs(heat).max()), 1e-30):
        return 0.0
    y, x = divmod(place, 2)
    h, w = heat.shape[0] // 2, heat.shape[1] // 2
    return float(positive[y * h : (y + 1) * h, x * w : (x + 1) * w].sum() / total)


@protocol(
    "grid_pointing",
    asks="In a mosaic of four radiographs, is the heat on the one with the finding?",
    measures=[
        Measure("share", "positive heat in the radiograph with the finding", bounds=(0, 1), chance=0.25),
        Measure("hit", "hottest point in it", bounds=(0, 1), chance=0.25),
    ],
    needs=("heatmaps", "lvlm", "method"),
    parameters=GridParameters,
    cost="1 run of the method, up to 2 + tries answers",
    reference="GridPG (Boehle et al. 2021; Rao et al. 2022)",
    note="only mosaics that the LVLM is sure of, and denies without the finding: a test of the map, not of the LVLM.",
)
def grid_pointing(case: Case, parameters: GridParameters) -> Mapping[str, float]:
    """The record's frame beside those of three other patients to which the LVLM answers the same question with no."""
    probe = case.probe
    if probe.answer != "yes":
        raise Skip("the response is no")
    rng = case.rng("mosaic")
    normal: list[np.ndarray] = []
    for other in others_of(case, rng)[: parameters.tries]:
        frame = frame_of(other, case)
        if frame.shape == probe.frame.shape and probe.answers(frame[None]) == ["no"]:
            normal.append(frame)
        if len(normal) == 4:
            break
    if len(normal) < 3:
        raise Skip("fewer than three images of other patients lack the finding for this LVLM")
    place = int(rng.integers(4))
    cells = normal[:3]
    with_finding = mosaic([*cells[:place], probe.frame, *cells[place:]])
    without = mosaic([*cells[:place], normal[-1], *cells[place:]])
    whole = probe.other(image=Image.fromarray(with_finding))
    answers = whole.answers(np.stack([with_finding, without]))
    sure = whole.confidence(with_finding[None])[0] >= parameters.confidence
    if answers != ["yes", "no"] or not sure:
        raise Skip("the LVLM does not read the mosaic")
    heat = in_pixels(case, case.again(whole))
    y, x = np.argwhere(heat == heat.max()).mean(axis=0)
    hit = 2 * int(y >= heat.shape[0] / 2) + int(x >= heat.shape[1] / 2) == place
    return {"share": cell_share(heat, place), "hit": float(hit)}


def others_of(case: Case, rng: np.random.Generator) -> list[Record]:
    """One record of every other patient and image, in random order."""
    found: dict[tuple[str, str], Record] = {}
    for record in case.trial.others(case.record):
        found.setdefault((record.dataset, record.image_id), record)
    records = list(found.values())
    return [records[k] for k in rng.permutation(len(records))]


def frame_of(record: Record, case: Case) -> np.ndarray:
    """Another record's image in the frame of a case."""
    return case.probe.framed(record.image, case.beside(record.id).letterbox)
