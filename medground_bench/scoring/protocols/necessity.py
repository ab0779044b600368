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
from medground_bench.core.errors import LvlmError
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol
from medground_bench.scoring.protocols.target import opposite

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case, Probe

__all__ = ["NecessityParameters", "necessity", "necessity_edited", "necessity_tokens", "random_places"]

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


@protocol(
    "necessity_tokens",
    asks="Does the answer need the image tokens of the reported boxes, with no pixel painted over?",
    measures=[
        Measure("necessity_gain", "necessity beyond random boxes", bounds=(-1, 1), chance=0.0),
        Measure("necessity", "drop without the region's tokens", bounds=(-1, 1), chance="necessity_random"),
        Measure("necessity_random", "drop without those of random boxes of its size", "", (-1, 1)),
        Measure("sufficiency", "drop with the region's tokens alone", "low", (-1, 1)),
        Measure("turned", "the opposite answer is likelier without them", bounds=_SHARE, chance="turned_random"),
        Measure("turned_random", "the same of random boxes", "", _SHARE),
        Measure("necessity_evidence", "drop without the tokens of the expert's boxes", "", (-1, 1)),
        Measure("tokens", "share of the image tokens that is the region's", "", _SHARE),
    ],
    needs=("lvlm", "weights"),
    parameters=NecessityParameters,
    cost="2 passes of the vision tower and 2 x (4 + draws) of the decoder",
    reference="as necessity; tokens leave attention as in TIS (Englebert et al. 2023)",
    note="what the vision tower tells of the region in the tokens around it stays.",
)
def necessity_tokens(case: Case, parameters: NecessityParameters) -> Mapping[str, float]:
    """The decoder attends to none of the region's image tokens, or to no others; places in the sequence stay.

    A token is the region's if half of it lies there, and the one that has most of it, if none is.
    """
    probe = case.probe
    places = random_places(case, case.prediction.boxes, parameters.draws)
    try:
        regions = [_tokens_of(case, boxes) for boxes in (case.prediction.boxes, case.record.boxes, *places)]
        region, expert, *random = regions
        hidden = np.stack([np.zeros_like(region), region, ~region, expert, *random])
        said, other = (_without_tokens(one, hidden) for one in (probe, probe.other(response=opposite(case))))
    except LvlmError as error:
        raise Skip(error.message) from error
    case.trial.count.passes += 2 * len(hidden)
    drop, turned = said[0] - said[1:], (other > said)[1:]
    return {
        "necessity_gain": drop[0] - drop[3:].mean(),
        "necessity": drop[0],
        "necessity_random": drop[3:].mean(),
        "sufficiency": drop[1],
        "turned": float(turned[0]),
        "turned_random": float(turned[3:].mean()),
        "necessity_evidence": drop[2],
        "tokens": float(region.mean()),
    }


def _tokens_of(case: Case, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Which image tokens are a region's, (P,) bool; a token without a place is nobody's."""
    mask = case.probe.mask_of(boxes)
    inside = np.zeros(len(case.probe.episode.grid))
    for token, box in enumerate(case.probe.episode.grid.boxes):
        if box is not None:
            x1, y1, x2, y2 = (round(v) for v in box)
            inside[token] = mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)].mean()
    most = inside.max(initial=0.0)
    return inside >= (0.5 if most >= 0.5 or most == 0 else most)


def _without_tokens(probe: Probe, hidden: np.ndarray) -> np.ndarray:
    """The response's confidence with sets of image tokens (N, P) out of the decoder's attention, (N,)."""
    import torch

    from medground_bench.lvlm.embeddings import embedding_log_probs, leaf_embeddings

    lvlm, episode = probe.lvlm, probe.episode
    own = leaf_embeddings(lvlm, episode)
    out = torch.zeros(len(hidden), episode.length, dtype=torch.bool, device=own.device)
    out[:, list(episode.image_positions)] = torch.as_tensor(hidden, device=own.device)
    scores = embedding_log_probs(lvlm, episode, len(hidden), lambda a, b: own.expand(b - a, -1, -1), out)
    return np.asarray(np.exp(scores.mean(axis=1)))
