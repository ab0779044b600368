"""Stability: whether the map stays when nothing that matters has changed."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from medground_bench.core.errors import MedGroundError
from medground_bench.scoring.protocols.maps import alike
from medground_bench.scoring.protocols.protocol import Measure, Skip, Table, protocol
from medground_bench.scoring.protocols.shift import shifted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medground_bench.scoring.protocols.case import Case, Probe, Trial

__all__ = ["StabilityParameters", "stability"]

PARAPHRASES = ("Does the image show {}?", "Can {} be seen in this radiograph?")
"""Other words for the benchmark's question; its suffix stays."""

_WORST = 0.05
_TRIES = 5  # other records, until one has a map

_CHANGES = ("noise", "jpeg", "contrast", "pixel", "words")


@dataclass(frozen=True)
class StabilityParameters:
    """Attributes: ``tolerance``, nats a token by which a change may move the response."""

    tolerance: float = 0.05


def _tables(
    trial: Trial, values: Mapping[str, Mapping[str, float]], parameters: StabilityParameters
) -> Sequence[Table]:
    rows = []
    for measure in ("kendall", "cosine", "top", "rerun", "seeds", "precision"):
        found = np.array([row.get(measure, np.nan) for row in values.values()])
        if len(found := found[np.isfinite(found)]):
            low = float(np.quantile(found, _WORST))
            rows.append({"measure": measure, "records": len(found), "mean": float(found.mean()), "p5": low})
    return [Table("the least stable twentieth of the records (p5: 5th percentile)", rows)] if rows else []


@protocol(
    "stability",
    asks="Does the map stay the same under changes that leave the answer as it is?",
    measures=[
        Measure("kendall", "Kendall's tau-b, mean over the changes", bounds=(-1, 1), chance=0.0),
        Measure("cosine", "cosine of the centred maps", bounds=(-1, 1), chance=0.0),
        Measure("top", "IoU of the hottest tenths", bounds=(0, 1)),
        Measure("worst", "Kendall's tau-b under the change that moves it most", bounds=(-1, 1)),
        *(Measure(f"kendall_{name}", f"under {name}", bounds=(-1, 1)) for name in _CHANGES),
        Measure("max_sensitivity", "largest relative change of the map", "low", (0, np.inf)),
        Measure("lipschitz", "largest relative change of the map for that of the image", "low", (0, np.inf)),
        Measure("rerun", "rank correlation with the same method run again here", bounds=(-1, 1)),
        Measure("seeds", "rank correlation with another seed of the method", bounds=(-1, 1)),
        Measure("precision", "rank correlation with the model in another data type", bounds=(-1, 1)),
        Measure("records", "rank correlation with the map of another patient", "", (-1, 1)),
        Measure("unchanged", "changes that left the response as it was", "", (0, 1)),
    ],
    needs=("heatmaps", "lvlm", "method"),
    parameters=StabilityParameters,
    cost="up to 9 runs of the method, 5 F",
    reference="max-sensitivity (Yeh et al. 2019); local Lipschitz estimate (Alvarez-Melis & Jaakkola 2018), relative; "
    "tau and cosine (Wang & Kong 2022)",
    note="'rerun' compares with the submission: where it was made in another data type or on another device, that is "
    "what it measures. 'precision' is bfloat16 for a model in float32, else float32: a map that it changes as much as "
    "another record does is noise. The control centre_prior is perfectly stable.",
    summarise=_tables,
)
def stability(case: Case, parameters: StabilityParameters) -> Mapping[str, float]:
    """Noise of 2 grey levels, JPEG at quality 90, contrast of 3 % more, a shift by a pixel, other words."""
    heat, probe = case.heatmap, case.probe
    before, frame = probe.scores(probe.frame[None])[0].mean(), probe.frame.astype(float)
    found: dict[str, dict[str, float]] = {}
    tried, largest, steepest = 0, 0.0, 0.0
    for name, other in _changes(case).items():
        tried += 1
        after = other.scores(other.frame[None])[0].mean()
        if abs(after - before) >= parameters.tolerance:
            continue
        try:
            changed = case.again(other)
        except Skip:
            continue
        found[name] = alike(heat, changed)
        if changed.shape == heat.shape:
            moved = float(np.linalg.norm(changed - heat) / np.linalg.norm(heat))
            largest = max(largest, moved)
            if apart := np.linalg.norm(other.frame - frame):
                steepest = max(steepest, moved / float(apart / np.linalg.norm(frame)))
    out = {"unchanged": len(found) / tried}
    if found:
        for measure in ("kendall", "cosine", "top"):
            out[measure] = float(np.mean([f[measure] for f in found.values()]))
        out |= {f"kendall_{name}": f["kendall"] for name, f in found.items()}
        out |= {"worst": min(f["kendall"] for f in found.values()), "max_sensitivity": largest}
        if steepest or largest == 0:
            out["lipschitz"] = steepest
    out["rerun"] = alike(heat, case.again(probe))["spearman"]
    _, values = case.trial.method
    if any(f.name == "seed" for f in dataclasses.fields(values)):
        out["seeds"] = alike(heat, case.again(probe, seed=int(values.seed or 0) + 1))["spearman"]
    return out | _precision(case) | _records(case)


def _precision(case: Case) -> dict[str, float]:
    """With the weights in another type; nothing where they are not at hand."""
    from medground_bench.lvlm.retype import other_type, retyped

    lvlm = case.probe.lvlm
    dtype = other_type(lvlm)
    if dtype is None:
        return {}
    try:
        with retyped(lvlm, dtype):
            return {"precision": alike(case.heatmap, case.again(case.probe))["spearman"]}
    except (Skip, MedGroundError):
        return {}


def _records(case: Case) -> dict[str, float]:
    """With the submission's map of one record of another patient, drawn at random."""
    others = case.trial.others(case.record)
    for k in case.rng("another record").permutation(len(others))[:_TRIES]:
        try:
            other = case.beside(others[k].id).heatmap
        except Skip:
            continue
        return {"records": alike(case.heatmap, other)["spearman"]}
    return {}


def _changes(case: Case) -> dict[str, Probe]:
    """The record, changed in ways that do not matter."""
    probe, rng = case.probe, case.rng("stability")
    image = probe.content.astype(float)
    grain = rng.normal(0, 2, image.shape[:2])

    def framed(values: np.ndarray) -> Probe:
        return probe.reframed(probe.with_content(values))

    stream = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(stream, "JPEG", quality=90)
    out = {
        "noise": framed(image + (grain if image.ndim == 2 else grain[..., None])),
        "jpeg": framed(np.asarray(Image.open(stream), float)),
        "contrast": framed((image - image.mean()) * 1.03 + image.mean()),
        "pixel": framed(shifted(image, 1)),
    }
    attribute = case.record.attribute
    bare = f"Is there evidence of {attribute} in the image?"
    if bare in probe.question:
        words = PARAPHRASES[int(rng.integers(len(PARAPHRASES)))].format(attribute)
        out["words"] = probe.other(question=probe.question.replace(bare, words))
    return out
