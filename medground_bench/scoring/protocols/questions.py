"""Across questions: whether maps of one image differ when the question does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import alike
from medground_bench.scoring.protocols.protocol import Measure, NoParameters, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["question_independence"]


@protocol(
    "question_independence",
    asks="Are maps of one image the same whatever is asked?",
    measures=[
        Measure("similarity", "rank correlation of maps of one image for different questions", "low", (-1, 1)),
        Measure("ignores", "maps that ignore the question: a similarity above 0.95", "low", (0, 1)),
        Measure("top", "IoU of the hottest tenths", "low", (0, 1)),
    ],
    needs=("heatmaps",),
    cost="0 F: other records of the same image",
    reference="across-question independence, after Adebayo et al. 2018",
    note="where the image stands before the question, hidden states at its tokens cannot know the question: maps that "
    "are read from them alone have 1.",
)
def question_independence(case: Case, parameters: NoParameters) -> Mapping[str, float]:
    """Mean over the submission's other records of the same image."""
    heat, trial = case.heatmap, case.trial
    found = []
    for key in trial.same_image[case.record.dataset, case.record.image_id]:
        if trial.records[key].question == case.record.question:
            continue
        try:
            found.append(alike(heat, case.beside(key).heatmap))
        except Skip:
            continue
    if not found:
        raise Skip("the only question about its image")
    similarity = float(np.mean([f["spearman"] for f in found]))
    return {
        "similarity": similarity,
        "ignores": float(similarity > 0.95),
        "top": float(np.mean([f["top"] for f in found])),
    }
