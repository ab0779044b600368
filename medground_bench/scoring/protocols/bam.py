"""Relative importance (BAM): the same pixels under a question that needs them, and pixels that no answer needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import free_place, in_pixels
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["BamParameters", "bam", "concept_attribution", "disc"]


@dataclass(frozen=True)
class BamParameters:
    """Options.

    Attributes
    ----------
    size : float
        Side of the useless object, of the image's shorter side.
    irrelevant : float
        An object is useless if it changes the answer's confidence by less.
    independent : float
        Share by which a useless patch may change its region's attribution.
    """

    size: float = 0.12
    irrelevant: float = 0.02
    independent: float = 0.1


def concept_attribution(heat: np.ndarray, mask: np.ndarray) -> float:
    """Mean of the positive map over a mask of the same shape, clipped at its 99th percentile and scaled to [0, 1]."""
    positive = np.maximum(heat, 0)
    clipped = np.minimum(positive, np.percentile(positive, 99))
    low, high = clipped.min(), clipped.max()
    if not mask.any():
        raise Skip("the region has no pixel of the frame")
    return float(((clipped - low) / (high - low))[mask].mean()) if high > low else 0.0


@protocol(
    "bam",
    asks="Do the same pixels matter more to the question that needs them, and useless ones to none?",
    measures=[
        Measure(
            "question_contrast", "attribution of the evidence: its question minus another", bounds=(-1, 1), chance=0.0
        ),
        Measure("input_dependence", "useless objects that do not raise their region's attribution", bounds=(0, 1)),
        Measure("input_independence", "useless textures that leave their region's attribution", bounds=(0, 1)),
    ],
    needs=("heatmaps", "lvlm", "method"),
    parameters=BamParameters,
    cost="3 runs of the method, 2 F",
    reference="BAM (Yang & Kim 2019): model contrast as question contrast, IDR, IIR",
    note="clipping at a percentile makes a region's attribution depend on the rest of the map.",
)
def bam(case: Case, parameters: BamParameters) -> Mapping[str, float]:
    """Evidence under two questions about one frame; a bright disc and a faint texture beside the evidence."""
    heat, probe = case.heatmap, case.probe
    evidence = probe.mask_of(case.record.boxes)
    mine = concept_attribution(in_pixels(case, heat), evidence)
    out = {}
    other = _other_question(case)
    if other is not None:
        out["question_contrast"] = mine - concept_attribution(other, evidence)
    for name, drawn in (("input_dependence", disc), ("input_independence", _texture)):
        found = _useless(case, drawn, parameters)
        if found is None:
            continue
        before, after = found
        better = (
            after < before if name == "input_dependence" else abs(after - before) <= parameters.independent * before
        )
        out[name] = float(better)
    if not out:
        raise Skip("no other question about its image, and no useless object")
    return out


def _other_question(case: Case) -> np.ndarray | None:
    """The map, in pixels, of another record's question about the same image: the submission's own where it has one."""
    trial, record = case.trial, case.record
    attributes = sorted({r.attribute for r in trial.records.values() if r.attribute != record.attribute})
    for key in trial.same_image[record.dataset, record.image_id]:
        if trial.records[key].attribute != record.attribute:
            try:
                return in_pixels(case, case.beside(key).heatmap)
            except Skip:
                continue
    if not attributes:
        return None
    asked = record.question.replace(record.attribute, attributes[int(case.rng("question").integers(len(attributes)))])
    probe = case.probe.other(question=asked)
    try:
        return in_pixels(case, case.again(probe.other(response=probe.texts(probe.frame[None])[0])))
    except Skip:
        return None


def _useless(case: Case, drawn: object, parameters: BamParameters) -> tuple[float, float] | None:
    """Attribution of a place before and after something is drawn there; None where the answer notices."""
    probe = case.probe
    side = max(4, round(parameters.size * min(probe.content.shape[:2])))
    evidence, rng = probe.mask_of(case.record.boxes), case.rng("useless")
    place = free_place(case, rng, side, side, evidence)
    if place is None:
        return None
    mask = np.zeros(evidence.shape, bool)
    mask[place] = True
    frame = probe.frame.copy()
    frame[place] = np.clip(drawn(frame[place], rng), 0, 255).astype(np.uint8)  # type: ignore[operator]
    before, after = probe.confidence(np.stack([probe.frame, frame]))
    if abs(after - before) >= parameters.irrelevant or probe.kept(frame[None])[0] == 0:
        return None
    changed = in_pixels(case, case.again(probe.reframed(frame)))
    return concept_attribution(in_pixels(case, case.heatmap), mask), concept_attribution(changed, mask)


def disc(patch: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """A patch with a bright disc, as a coin or an electrode."""
    side = patch.shape[0]
    y, x = np.ogrid[:side, :side]
    inside = (y - (side - 1) / 2) ** 2 + (x - (side - 1) / 2) ** 2 <= (side / 2 - 1) ** 2
    out = patch.copy()
    out[inside] = 240
    return out


def _texture(patch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Faint noise."""
    noise = rng.normal(0, 6, patch.shape[:2])
    return patch + (noise if patch.ndim == 2 else noise[..., None])
