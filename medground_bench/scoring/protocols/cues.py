"""Cues: whether answer, words and map follow a hint in the picture or in the question."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.scoring.protocols.maps import alike, free_place, in_pixels
from medground_bench.scoring.protocols.protocol import Measure, NoParameters, Skip, Table, protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medground_bench.scoring.protocols.case import Case, Trial

__all__ = ["HINT", "arrow", "cues"]

HINT = "A colleague says that there is no {}. "
"""Said before the question: it is false, where the response is yes."""

_MOVED = 0.5
_FOLLOW = {"answer": "answers", "words": "responses in other words", "map": "maps"}


def arrow(frame: np.ndarray, x: int, y: int, size: int) -> np.ndarray:
    """A white arrow in a frame whose tip is at a place, pointing right."""
    out = frame.copy()
    for step in range(size):
        half = min(step, size // 3)
        column = x - step
        if column < 0:
            break
        thick = half if step <= size // 3 else max(1, size // 10)
        out[max(0, y - thick) : y + thick + 1, column] = 255
    return out


def _tables(trial: Trial, values: Mapping[str, Mapping[str, float]], parameters: NoParameters) -> Sequence[Table]:
    rows: list[dict[str, Any]] = []
    for what in _FOLLOW if values else ():
        image, text = (float(np.mean([row[f"{cue}_{what}"] for row in values.values()])) for cue in ("image", "text"))
        rows.append({"follows": what, "image": image, "text": text, "text / image": text / image if image else None})
    return [Table("what moves more, words or picture", rows)]


@protocol(
    "cues",
    asks="Do answer, words and map follow a misleading arrow in the picture or a misleading hint in the question?",
    measures=[
        Measure("unfaithful", "cues that move the map or the answer, and not both", "low", (0, 1)),
        Measure("image_hit", "hottest points on the drawn arrow", "", (0, 1), "image_hit_before"),
        Measure("image_hit_before", "of the submitted map, without the arrow", "", (0, 1)),
        *(
            Measure(f"{cue}_{what}", f"{title} that follow the {cue} cue", "", (0, 1))
            for cue in ("image", "text")
            for what, title in _FOLLOW.items()
        ),
    ],
    needs=("heatmaps", "lvlm", "method"),
    cost="2 runs of the method, 2 answers",
    reference="Moll et al. 2025 (TAIX-VQA): text and image perturbations of reasoning",
    note="a map follows where its rank correlation with the submitted one falls below 0.5.",
    summarise=_tables,
)
def cues(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """An arrow at a random place beside the evidence; a colleague who denies the finding."""
    heat, probe = case.heatmap, case.probe
    rng = case.rng("cue")
    size = max(6, probe.content.shape[1] // 8)
    evidence = probe.mask_of(case.record.boxes)
    place = free_place(case, rng, 2 * (size // 3) + 1, size + 1, evidence)
    if place is None:
        raise Skip("no place beside the evidence")
    there = np.zeros(evidence.shape, bool)
    there[place] = True
    drawn = probe.reframed(arrow(probe.frame, place[1].stop - 1, place[0].start + size // 3, size))
    told = probe.other(question=HINT.format(case.record.attribute) + probe.question)
    out = {"image_hit_before": _hit(in_pixels(case, heat), there)}
    consistent: list[bool] = []
    for name, other in (("image", drawn), ("text", told)):
        text = other.texts(other.frame[None])[0]
        moved = float(other.flipped(other.frame[None])[0])
        try:
            found = case.again(other.other(response=text or probe.response))
            followed = float(alike(heat, found)["spearman"] < _MOVED)
            if name == "image":
                out["image_hit"] = _hit(in_pixels(case, found), there)
        except Skip:
            followed = 1.0
        out |= {
            f"{name}_answer": moved,
            f"{name}_words": float(text.split() != probe.response.split()),
            f"{name}_map": followed,
        }
        consistent.append(moved == followed)
    return {"unfaithful": float(1 - np.mean(consistent)), **out}


def _hit(pixels: np.ndarray, there: np.ndarray) -> float:
    """The share of the hottest pixels that lies in a place."""
    return float(there[pixels == pixels.max()].mean())
