"""Concepts in another vocabulary: the zones that follow from the eleven."""

from __future__ import annotations

import dataclasses

import numpy as np

from medfocus.result import FRAME, Found, Transfer
from medground_bench.core.anatomy import VOCABULARIES
from medground_bench.core.errors import MethodError
from medground_bench.imaging.letterbox import Letterbox
from medground_bench.imaging.zones import zone_boxes

__all__ = ["in_vocabulary", "require_vocabulary"]


def require_vocabulary(name: str) -> None:
    """Raise on an unknown vocabulary.

    Raises
    ------
    MethodError
        If it is not one of :data:`medground_bench.core.anatomy.VOCABULARIES`.
    """
    if name not in VOCABULARIES:
        raise MethodError(f"unknown vocabulary {name!r}", expected=" or ".join(VOCABULARIES))


def in_vocabulary(transfer: Transfer, vocabulary: str, width: int, height: int) -> Transfer:
    """What was located on an image of a size, in ``"concepts"`` or ``"zones"``.

    A zone's box is that of :func:`medground_bench.imaging.zones.zone_boxes`; its pixels are those of its lung inside
    the box, or the whole box where it is no part of a lung field.

    Raises
    ------
    MethodError
        If the vocabulary is unknown.
    """
    require_vocabulary(vocabulary)
    if vocabulary == "concepts":
        return transfer
    frame = Letterbox.fit(width, height, FRAME)
    found: dict[str, Found] = {}
    for name, box in zone_boxes(transfer.boxes, width, height).items():
        if name in transfer.concepts:
            found[name] = transfer.concepts[name]
            continue
        x1, y1, x2, y2 = (round(v) for v in frame.to_frame([box])[0])
        mask = np.zeros((FRAME, FRAME), bool)
        mask[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = True
        lung = transfer.concepts.get(f"{name.split()[0]} lung")
        if name.endswith("zone") and lung is not None and lung.mask.any():
            mask &= lung.mask
        found[name] = Found(box, mask)
    return dataclasses.replace(transfer, concepts=found)
