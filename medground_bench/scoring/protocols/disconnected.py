"""Provably disconnected quarters: heat on them is an error of the method, whatever the LVLM (DiFull and DiPart)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.quarters import disconnected, settled_size
from medground_bench.lvlm.store import Store
from medground_bench.scoring.protocols.grid_pointing import cell_share, frame_of, mosaic, others_of
from medground_bench.scoring.protocols.protocol import Evaluate, Measure, Protocol, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["DisconnectedParameters", "difull", "dipart"]

_CONNECTED, _HIDDEN = (0, 3), (1, 2)
"""Quarters in reading order: as in the paper's code what is explained is at the top left and the bottom right."""


@dataclass(frozen=True)
class DisconnectedParameters:
    """Attributes: ``least``, by which blanking the connected quarters must change the answer's confidence."""

    least: float = 0.05


def _disconnected(name: str, *, asks: str, note: str) -> Callable[[Evaluate], Protocol]:
    """What the two protocols share."""
    return protocol(
        name,
        asks=asks,
        measures=[
            Measure("share", "positive heat in the two connected quarters", bounds=(0, 1), chance=0.5),
            Measure("hit", "hottest points in them", bounds=(0, 1), chance=0.5),
        ],
        needs=("heatmaps", "lvlm", "weights", "method"),
        parameters=DisconnectedParameters,
        cost="1 run of the method, 2 F",
        reference="Rao, Boehle & Schiele 2022 (there between a CNN's cells and classifier)",
        note=note,
    )


@_disconnected(
    "difull",
    asks="Is the heat on what can reach the answer, where half of the image provably cannot?",
    note="a test of the method's implementation: 1 is right, and nothing is said of the LVLM. Heat that the method "
    "smears over a quarter's edge counts.",
)
def difull(case: Case, parameters: DisconnectedParameters) -> Mapping[str, float]:
    """The vision tower sees four pictures apart, and the decoder does not attend to two of them."""
    return _connected_share(case, parameters, tower=True)


@_disconnected(
    "dipart",
    asks="Is the heat on the image tokens that the decoder attends to, where it does not attend to half of them?",
    note="what the vision tower tells of a hidden quarter in the tokens of the others may count: maps of pixels can be "
    "below 1 and right, maps of image tokens cannot.",
)
def dipart(case: Case, parameters: DisconnectedParameters) -> Mapping[str, float]:
    """The vision tower sees the mosaic as a whole, and the decoder does not attend to the tokens of two quarters."""
    return _connected_share(case, parameters, tower=False)


def _connected_share(case: Case, parameters: DisconnectedParameters, *, tower: bool) -> dict[str, float]:
    """The record's frame twice, beside those of two other patients, which are disconnected."""
    probe = case.probe
    frames = (frame_of(record, case) for record in others_of(case, case.rng("mosaic")))
    beside = [frame for frame, _ in zip((f for f in frames if f.shape == probe.frame.shape), _HIDDEN, strict=False)]
    if len(beside) < len(_HIDDEN):
        raise Skip("fewer than two images of other patients")
    height, width = probe.frame.shape[:2]
    picture = mosaic([probe.frame, *beside, probe.frame], settled_size(probe.lvlm, width, height))
    # What a changed LVLM says is not to be remembered.
    parted = probe.other(image=Image.fromarray(picture), store=Store(None, case.record.id))
    parted.side = None
    blank = parted.frame.copy()
    h, w = blank.shape[0] // 2, blank.shape[1] // 2
    for quarter in _CONNECTED:
        y, x = divmod(quarter, 2)
        blank[y * h : (y + 1) * h, x * w : (x + 1) * w] = round(float(picture.mean()))
    try:
        with disconnected(parted.lvlm, parted.episode, _HIDDEN, tower=tower):
            before, after = parted.confidence(np.stack([parted.frame, blank]))
            if abs(before - after) < parameters.least:
                raise Skip("the connected quarters hardly change the answer's confidence")
            heat = case.again(parted)
    except LvlmError as error:
        raise Skip(error.message) from error
    if any(n % 2 for n in heat.shape):
        raise Skip(f"a map of {heat.shape[0]} x {heat.shape[1]} has no quarters")
    hottest = np.argwhere(heat == heat.max())
    quarters = 2 * (hottest[:, 0] >= heat.shape[0] / 2) + (hottest[:, 1] >= heat.shape[1] / 2)
    return {
        "share": sum(cell_share(heat, quarter) for quarter in _CONNECTED),
        "hit": float(np.isin(quarters, _CONNECTED).mean()),
    }
