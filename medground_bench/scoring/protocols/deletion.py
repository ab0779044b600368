"""Deletion and insertion: how fast the answer goes when the hottest parts go first, and how fast it comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.attribution.fills import FILLS, compose
from medground_bench.scoring.protocols.maps import check_fill, order, prefix_masks, ranked_units, trapezoid, units
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["DeletionParameters", "deletion"]

_SENSITIVE = 0.2
"""Probability that a token gains by the image, to be one that needs it (EAGLE)."""


@dataclass(frozen=True)
class DeletionParameters:
    """Options.

    Attributes
    ----------
    fill : str
        What takes the place of what is deleted. Methods that were made with a fill have an advantage with it: most of
        them use black.
    regions : str
        Units that are deleted whole (see :func:`medground_bench.attribution.regions.region_labels`).
    steps : int
        Points of a curve beyond the first.
    randoms : int
        Random orders that a map is compared with.
    least : float
        A record is left out if the whole image changes the confidence by less.
    also : tuple of str
        Further fills, whose skill stands beside that of ``fill``: as many passes again each.
    """

    fill: str = "blur"
    regions: str = "tiles:8x8"
    steps: int = 32
    randoms: int = 5
    least: float = 0.05
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for fill in (self.fill, *self.also):
            check_fill(fill)
        if self.steps < 1 or self.randoms < 1:
            raise ValueError("steps and randoms must be at least 1")


@protocol(
    "deletion",
    asks="Do the hottest parts of the map carry the answer, more than parts at random?",
    measures=[
        Measure("skill", "insertion minus deletion, beyond random orders", chance=0.0),
        Measure("difference", "insertion minus deletion", chance="difference_random"),
        Measure("deletion", "area under the deletion curve", "low", chance="deletion_random"),
        Measure("insertion", "area under the insertion curve", "high", chance="insertion_random"),
        Measure("deletion_random", "of random orders", ""),
        Measure("insertion_random", "of random orders", ""),
        Measure("difference_random", "of random orders", ""),
        Measure("highest", "highest confidence on the insertion curve", bounds=(0.0, 1.0)),
        Measure("insertion_sensitive", "area of the tokens that need the image, as probability", bounds=(0.0, 1.0)),
        *(Measure(f"skill_{fill}", f"skill with the fill {fill}", chance=0.0) for fill in FILLS),
    ],
    needs=("heatmaps", "lvlm"),
    parameters=DeletionParameters,
    cost="2 x steps F, and as many for each random order (shared by all methods); all that again for each further fill",
    reference="RISE (Petsiuk et al. 2018); difference as in Yang et al. 2022; highest confidence and sensitive tokens "
    "as in EAGLE (2025)",
    optimised_by=("eagle", "lima", "smdl", "vps", "igos_plus", "igos_pp", "extremal_perturbation"),
)
def deletion(case: Case, parameters: DeletionParameters) -> Mapping[str, float]:
    """Curves of ``p = exp(s / T)``, normalised to 0 (nothing left) and 1 (the image), over the share of the image.

    Units are ordered by mean heat. Log-probabilities have no lower bound and would let one step decide; p has.
    """
    masks, areas = units(case, parameters.regions)
    rng = case.rng("deletion")
    orders = [order(rng.random(len(areas)), rng) for _ in range(parameters.randoms)]
    mine = ranked_units(case, masks, areas, case.heatmap)

    def judged(fill: str) -> dict[str, float]:
        return _curves(case, parameters, fill, masks, areas, [mine, *orders])

    out = judged(parameters.fill)
    for fill in parameters.also:
        try:
            out[f"skill_{fill}"] = judged(fill)["skill"]
        except Skip:
            continue
    return out


def _curves(
    case: Case,
    parameters: DeletionParameters,
    fill: str,
    masks: np.ndarray,
    areas: np.ndarray,
    orders: Sequence[np.ndarray],
) -> dict[str, float]:
    """The numbers of one fill; of the orders the first is the map's, the others are random."""
    probe = case.probe
    empty = probe.filled(fill)
    tokens = probe.scores(np.stack([empty, probe.frame]))
    ends = np.exp(tokens.mean(axis=1))
    sensitive = np.exp(tokens[1]) - np.exp(tokens[0]) > _SENSITIVE
    if abs(ends[1] - ends[0]) < parameters.least:
        raise Skip("the image hardly changes the answer's confidence")

    def curves(ranked: np.ndarray) -> tuple[float, float, float, float]:
        removed, counts = prefix_masks(masks, ranked, parameters.steps)
        share = np.concatenate([[0.0], np.cumsum(areas[ranked])])[counts]
        down = probe.confidence(compose(probe.frame, removed, empty))
        shown = probe.scores(compose(empty, removed, probe.frame))
        up = np.exp(shown.mean(axis=1))
        scaled = [(c - ends[0]) / (ends[1] - ends[0]) for c in (down, up)]
        alone = trapezoid(np.exp(shown[:, sensitive]).mean(axis=1), share) if sensitive.any() else np.nan
        return trapezoid(scaled[0], share), trapezoid(scaled[1], share), float(up.max()), alone

    down, up, highest, alone = curves(orders[0])
    at_random = np.array([curves(ranked)[:2] for ranked in orders[1:]]).mean(axis=0)
    return {
        "skill": (up - down) - (at_random[1] - at_random[0]),
        "difference": up - down,
        "deletion": down,
        "insertion": up,
        "deletion_random": at_random[0],
        "insertion_random": at_random[1],
        "difference_random": at_random[1] - at_random[0],
        "highest": highest,
        "insertion_sensitive": alone,
    }
