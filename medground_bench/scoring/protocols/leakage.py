"""Label leakage: whether the shape of a map gives its answer away, whatever is in the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.attribution.fills import compose
from medground_bench.scoring.protocols.maps import averaged, check_fill, order, ranked_units, units
from medground_bench.scoring.protocols.protocol import Measure, Table, protocol
from medground_bench.scoring.protocols.shapes import told_apart
from medground_bench.scoring.protocols.target import opposite
from medground_bench.scoring.statistics import MIN_CLUSTERS

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case, Trial

__all__ = ["LeakageParameters", "leakage"]


@dataclass(frozen=True)
class LeakageParameters:
    """Attributes: ``fill``; ``regions`` that are shown whole; ``shares`` of the image that are shown."""

    fill: str = "blur"
    regions: str = "tiles:8x8"
    shares: tuple[float, ...] = (0.05, 0.1, 0.2)

    def __post_init__(self) -> None:
        check_fill(self.fill)
        if not all(0 < share < 1 for share in self.shares):
            raise ValueError("shares must lie between 0 and 1")


_COARSE = 8
_ANSWERS = ("yes", "no")


def _coarse(case: Case, heat: np.ndarray) -> np.ndarray:
    """A map's shape: 8 x 8 values from 0 to 1; of a signed one that of its positive part, as its boxes are."""
    small = averaged(np.maximum(heat, 0) if case.trial.submission.signed else heat, (_COARSE, _COARSE)).ravel()
    return (small - small.min()) / max(float(np.ptp(small)), 1e-300)


def _tables(trial: Trial, values: Mapping[str, Mapping[str, float]], parameters: Any) -> Sequence[Table]:
    """Whether the answer can be told from the map alone, the image unseen."""
    keys = [key for key, row in values.items() if "_yes_0" in row]
    patients = trial.patients(keys)
    if len(set(patients)) < MIN_CLUSTERS:
        return [Table(f"too few to tell the answer by: maps of {len(set(patients))} patients", [])]
    maps = np.array([[values[key][f"_{said}_{k}"] for k in range(_COARSE**2)] for said in _ANSWERS for key in keys])
    told = told_apart(maps, np.arange(len(maps)) < len(keys), patients * 2)
    row = {
        "records": len(keys),
        "patients": len(set(patients)),
        "auroc": told.auroc,
        "low": told.low,
        "high": told.high,
    }
    return [Table("telling the answer by the shape of the map alone, on other patients (the evidence has 0.5)", [row])]


@protocol(
    "leakage",
    asks="Do the maps of yes and of no each make the model say so, whichever is right?",
    measures=[
        Measure(
            "leak", "pairs that both drive the model to their label, mean over the shares", "low", (0, 1), "leak_random"
        ),
        Measure("leak_random", "pairs of random maps that do", "", (0, 1)),
        Measure("divergence", "KL divergence of the answers' probabilities, the map's parts alone", "low", (0, np.inf)),
        Measure("log_loss", "log-loss of the answer, the map's parts alone", "low", (0, np.inf), "log_loss_random"),
        Measure("log_loss_random", "the same of a random map's parts", "", (0, np.inf)),
    ],
    needs=("heatmaps", "lvlm", "method"),
    parameters=LeakageParameters,
    cost="1 run of the method, 8 x shares F",
    reference="Jethani, Saporta & Ranganath 2023; the swap test, and the answer told by the map alone",
    note="where yes and no exclude each other, what speaks for one speaks against the other: signed maps of the two "
    "have their positive parts in different places, and so tell the answer.",
    summarise=_tables,
)
def leakage(case: Case, parameters: LeakageParameters) -> Mapping[str, float]:
    """Insert the hottest share of the map of the response and of the map of its opposite into an empty frame.

    A pair leaks if each is answered by its own label, by the probabilities of the two answers scaled to sum 1.
    """
    said, other = case.probe, case.probe.other(response=opposite(case))
    masks, areas = units(case, parameters.regions)
    rng = case.rng("leakage")
    heats = (case.heatmap, case.again(other))
    ranked = [ranked_units(case, masks, areas, heat) for heat in heats]
    ranked += [order(rng.random(len(areas)), rng) for _ in range(2)]
    shown = []
    for first in ranked:
        reached = np.cumsum(areas[first])
        for share in parameters.shares:
            count = max(1, int(np.searchsorted(reached, share + 1e-9)))
            shown.append(np.logical_or.reduce(masks[first[:count]], axis=0))
    frames = compose(said.filled(parameters.fill), np.stack(shown), said.frame)
    frames = np.concatenate([frames, said.frame[None]])
    a, b = said.confidence(frames), other.confidence(frames)
    mine = a / (a + b)
    p, full = mine[:-1].reshape(4, -1), np.clip(mine[-1], 1e-9, 1 - 1e-9)
    shown_p = np.clip(p[0], 1e-9, 1 - 1e-9)
    divergence = full * np.log(full / shown_p) + (1 - full) * np.log((1 - full) / (1 - shown_p))
    shapes = zip(_ANSWERS if said.answer == "yes" else _ANSWERS[::-1], heats, strict=True)
    return {
        "leak": float(((p[0] > 0.5) & (p[1] < 0.5)).mean()),
        "leak_random": float(((p[2] > 0.5) & (p[3] < 0.5)).mean()),
        "divergence": float(divergence.mean()),
        "log_loss": float(-np.log(shown_p).mean()),
        "log_loss_random": float(-np.log(np.clip(p[2], 1e-9, 1)).mean()),
        **{f"_{label}_{k}": round(v, 4) for label, heat in shapes for k, v in enumerate(_coarse(case, heat).tolist())},
    }
