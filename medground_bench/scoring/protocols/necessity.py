"""Whether the answer needs the reported region, and whether the region is enough.

The benchmark keeps a record because removing the expert's boxes flips the answer and editing everything else does not.
This protocol asks the same of the boxes that a method reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.attribution.fills import compose
from medground_bench.scoring.protocols.protocol import Measure, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["NecessityParameters", "necessity", "necessity_edited", "random_places"]

FILLS = ("blur", "mean")
_SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class NecessityParameters:
    """Attributes: ``draws``, random places of boxes of the same sizes."""

    draws: int = 10

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError("draws must be at least 1")


def random_places(case: Case, boxes: Sequence[Sequence[float]], draws: int) -> list[list[tuple[float, ...]]]:
    """The boxes moved to uniformly random places inside the image, ``draws`` times: equal number, equal sizes."""
    rng = case.rng("places")
    given = np.asarray(boxes, float).reshape(-1, 4)
    extent = given[:, 2:] - given[:, :2]
    out = []
    for _ in range(draws):
        corner = rng.random(extent.shape) * np.maximum(np.array(case.record.size) - extent, 0.0)
        out.append([tuple(box) for box in np.concatenate([corner, corner + extent], axis=1).tolist()])
    return out


def _measures() -> list[Measure]:
    out = []
    for fill in FILLS:
        out += [
            Measure(f"necessity_gain_{fill}", f"necessity beyond random boxes, {fill}", bounds=(-1, 1), chance=0.0),
            Measure(f"necessity_{fill}", "drop without the region", bounds=(-1, 1), chance=f"necessity_random_{fill}"),
            Measure(f"necessity_random_{fill}", "drop without random boxes of its size", "", (-1, 1)),
            Measure(f"sufficiency_{fill}", "drop with the region alone", "low", (-1, 1)),
            Measure(f"flip_{fill}", "answers flipped without it", bounds=_SHARE, chance=f"flip_random_{fill}"),
            Measure(f"flip_random_{fill}", "answers flipped without random boxes", "", _SHARE),
            Measure(f"kept_{fill}", "answers kept with it alone", bounds=_SHARE),
            Measure(f"necessity_evidence_{fill}", "drop without the expert's boxes", "", (-1, 1)),
        ]
    return [*out, Measure("area", "share of the image reported", "", _SHARE)]


@protocol(
    "necessity",
    asks="Does the answer need the reported boxes, and are they enough, beyond random boxes of the same size?",
    measures=_measures(),
    needs=("lvlm",),
    parameters=NecessityParameters,
    cost="2 fills x (2 + draws) F + as many answers",
    reference="comprehensiveness and sufficiency (DeYoung et al. 2020) of regions, at matched area",
)
def necessity(case: Case, parameters: NecessityParameters) -> Mapping[str, float]:
    """Boxes filled by the image's blur and by its mean.

    With p the geometric mean probability of the response's tokens and R the boxes: necessity ``p(x) - p(x without R)``,
    sufficiency ``p(x) - p(R alone)``, flip: the answer turns into its opposite without R, kept: it stays with R alone.
    """
    probe = case.probe
    boxes = case.prediction.boxes
    region = probe.mask_of(boxes)
    places = np.stack([probe.mask_of(place) for place in random_places(case, boxes, parameters.draws)])
    masks = np.concatenate([region[None], ~region[None], places, probe.mask_of(case.record.boxes)[None]])
    full = probe.confidence(probe.frame[None])[0]
    x1, y1, x2, y2 = probe.letterbox.content
    out = {"area": float(region[y1:y2, x1:x2].mean())}
    for fill in FILLS:
        variants = compose(probe.frame, masks, probe.filled(fill))
        drop = full - probe.confidence(variants)
        flips = probe.flipped(variants[:-1])
        at_random = drop[2:-1].mean()
        out |= {
            f"necessity_{fill}": drop[0],
            f"sufficiency_{fill}": drop[1],
            f"necessity_random_{fill}": at_random,
            f"necessity_gain_{fill}": drop[0] - at_random,
            f"necessity_evidence_{fill}": drop[-1],
            f"flip_{fill}": flips[0],
            f"flip_random_{fill}": flips[2:].mean(),
            f"kept_{fill}": probe.kept(variants[1:2])[0],
        }
    return out


@protocol(
    "necessity_edited",
    asks="Does the benchmark's own causal test, turned on the reported boxes, verify them?",
    measures=[
        Measure("flip_gain", "answers flipped by editing the region, beyond random boxes", bounds=(-1, 1), chance=0.0),
        Measure("verified", "flips without the region, stays with everything else edited", bounds=_SHARE),
        Measure("flip", "answers flipped by editing the region", bounds=_SHARE, chance="flip_random"),
        Measure("flip_random", "answers flipped by editing random boxes of its size", "", _SHARE),
        Measure("kept", "answers kept when all but the region is edited", bounds=_SHARE),
        Measure("necessity", "drop when the region is edited", bounds=(-1, 1), chance="necessity_random"),
        Measure("necessity_random", "drop when random boxes are edited", "", (-1, 1)),
        Measure("sufficiency", "drop when all but the region is edited", "low", (-1, 1)),
        Measure("flip_evidence", "answers flipped by editing the expert's boxes", "", _SHARE),
    ],
    needs=("lvlm", "editor"),
    parameters=NecessityParameters,
    cost="(3 + draws) edits, F and answers",
    reference="the causal filter of MedGround-Bench, on a method's answer",
)
def necessity_edited(case: Case, parameters: NecessityParameters) -> Mapping[str, float]:
    """The causal editor takes the finding away inside the boxes (``"No {attribute}"``), and outside of them.

    The expert's boxes flip the answer by construction: that is why the record was kept.
    """
    probe = case.probe
    boxes = case.prediction.boxes
    region = case.native_mask(boxes)
    places = [case.native_mask(place) for place in random_places(case, boxes, parameters.draws)]  # type: ignore[arg-type]
    masks = [region, ~region, *places, case.native_mask(case.record.boxes)]
    frames = np.stack(case.edit(masks, f"No {case.record.attribute}"))
    drop = probe.confidence(probe.frame[None])[0] - probe.confidence(frames)
    flips, kept = probe.flipped(frames), probe.kept(frames[1:2])[0]
    return {
        "flip_gain": flips[0] - flips[2:-1].mean(),
        "verified": flips[0] * kept,
        "flip": flips[0],
        "flip_random": flips[2:-1].mean(),
        "kept": kept,
        "necessity": drop[0],
        "necessity_random": drop[2:-1].mean(),
        "sufficiency": drop[1],
        "flip_evidence": flips[-1],
    }
