"""Planted evidence: synthetic findings drawn into real radiographs, with exact masks and exact counterfactuals.

>>> from medground_bench.sources.planted import CanvasAnatomy, load_localizer, plant
>>> canvas = ...  # uint8 array, a frontal radiograph without findings
>>> anatomy = CanvasAnatomy(load_localizer("multi_atlas", cache=True)(canvas))  # doctest: +SKIP
>>> planted = plant(canvas, anatomy, seed=7, findings=["pleural effusion", "nodule"])  # doctest: +SKIP
>>> planted.image, planted.findings[0].mask, planted.without("nodule").image  # doctest: +SKIP
"""

from __future__ import annotations

from medground_bench.sources.planted.anatomy import CanvasAnatomy, Localization, available_localizers, load_localizer
from medground_bench.sources.planted.canvas import Canvas
from medground_bench.sources.planted.distractors import DISTRACTORS
from medground_bench.sources.planted.findings import FINDINGS
from medground_bench.sources.planted.sample import Distractor, Finding, Planted, plant
from medground_bench.sources.planted.source import INFO, PlantedFile, load_planted, read
from medground_bench.sources.planted.write import WrittenPlanted, write_planted

__all__ = [
    "DISTRACTORS",
    "FINDINGS",
    "INFO",
    "Canvas",
    "CanvasAnatomy",
    "Distractor",
    "Finding",
    "Localization",
    "Planted",
    "PlantedFile",
    "WrittenPlanted",
    "available_localizers",
    "load_localizer",
    "load_planted",
    "plant",
    "read",
    "write_planted",
]
