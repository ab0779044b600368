"""Modality share: how much of the answer comes from the image at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medground_bench.attribution.fills import FILLS
from medground_bench.scoring.protocols.protocol import Measure, NoParameters, protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from medground_bench.scoring.protocols.case import Case

__all__ = ["modality"]

_FROM_TEXT = 0.05


@protocol(
    "modality",
    asks="How much of the answer's confidence goes when the image does?",
    measures=[
        Measure("drop", "confidence lost without the image, the least over the fills", "", (-1, 1)),
        Measure("from_text", "records answered from the text: less than 0.05 is lost", "", (0, 1)),
        *(Measure(f"drop_{fill}", f"the image replaced by {fill}", "", (-1, 1)) for fill in FILLS),
        Measure("token_drop", "nats that the token loses that loses most", "", (-np.inf, np.inf)),
        Measure("answer_kept", "answers that stay without the image", "", (0, 1)),
        Measure("image_share", "share of a method's attribution on image tokens, of all tokens", "", (0, 1)),
    ],
    needs=("lvlm",),
    cost="4 F, 3 answers, shared by all methods",
    reference="language priors; token drops as in EAGLE (2025); share of the image as in MAEA (Jain et al. 2023)",
    note="a property of LVLM and record, not of the method, but for image_share: maps of records that are answered "
    "from the text explain nothing of the image.",
)
def modality(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """The frame replaced whole by each fill; what of its attribution the method itself says is the image's."""
    probe = case.probe
    blanks = np.stack([probe.filled(fill) for fill in FILLS])
    scores = probe.scores(np.concatenate([probe.frame[None], blanks]))
    confidence = np.exp(scores.mean(axis=1))
    drops = confidence[0] - confidence[1:]
    return {
        "drop": float(drops.min()),
        "from_text": float(drops.min() < _FROM_TEXT),
        **{f"drop_{fill}": float(drop) for fill, drop in zip(FILLS, drops, strict=True)},
        "token_drop": float((scores[0] - scores[1:].mean(axis=0)).max()),
        "answer_kept": float(probe.kept(blanks).mean()),
        "image_share": _told(case.prediction.extras.get("image_share")),
    }


def _told(share: object) -> float:
    """A share that a submission tells; NaN where it tells none, or what is none."""
    return (
        float(share) if isinstance(share, int | float) and not isinstance(share, bool) and 0 <= share <= 1 else np.nan
    )
