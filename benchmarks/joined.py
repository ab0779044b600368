"""Score files of several seeds as those of one set: records side by side, and patients stay patients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medground_bench.core.numbering import Numbering
from medground_bench.dataset.folder import open_folder
from medground_bench.imaging.overlap import METRICS, BoxScores
from medground_bench.scoring import ScoreFile, SubmissionScores, read_scores
from medground_bench.scoring.table import RecordTable


def read_joined(demos: Sequence[Path], mode: str) -> ScoreFile:
    """The score file of a mode, of all records of some demos (which must not have records in common).

    Score files number the patients of one dataset; the datasets beside them tell which are the same.
    """
    files = [read_scores(demo / "results" / mode / "scores.json") for demo in demos]
    patients, tables = Numbering(), []
    for demo, file in zip(demos, files, strict=True):
        named = open_folder(demo / "medground-bench", mode).values("id", "dataset", "patient_id", "image_id")
        numbers = {key: patients.number(f"{source}\0{patient or image}") for key, source, patient, image in named}
        tables.append(replace(file.table, cluster=np.array([numbers[key] for key in file.table.id])))
    columns = {name: np.concatenate([getattr(t, name) for t in tables]) for name in RecordTable.__dataclass_fields__}
    if len(set(columns["id"].tolist())) < len(columns["id"]):
        raise ValueError(f"{', '.join(map(str, demos))}: records in common; give every demo a seed of its own")
    starts = np.cumsum([0, *(len(t) for t in tables[:-1])])
    parts: dict[tuple[str, str], list[tuple[int, SubmissionScores]]] = defaultdict(list)
    for start, file in zip(starts.tolist(), files, strict=True):
        for one in file.submissions:
            parts[one.method, one.lvlm].append((start, one))
    return replace(
        files[0],
        table=RecordTable(**columns),
        chance={row: _columns([f.chance[row] for f in files]) for row in files[0].chance},
        bounds={row: _columns([f.bounds[row] for f in files]) for row in files[0].bounds},
        submissions=[_one(found) for found in parts.values()],
        evidence_places=None,
        area_places=None,
    )


def _columns(parts: Sequence[BoxScores]) -> BoxScores:
    return BoxScores(*(np.concatenate([getattr(part, name) for part in parts]) for name in METRICS))


def _one(parts: Sequence[tuple[int, SubmissionScores]]) -> SubmissionScores:
    """A submission on all of the sets; its cost is that of a record of any of them."""
    first, sizes = parts[0][1], [len(one.positions) for _, one in parts]
    costs = [one.cost for _, one in parts]
    cost = {name: float(np.average([c[name] for c in costs], weights=sizes)) for name in costs[0] if all(costs)}
    names = dict.fromkeys(name for _, one in parts for name in one.scores)
    scores: dict[str, Any] = {
        name: np.concatenate(
            [one.scores.get(name, np.full(n, np.nan)) for n, (_, one) in zip(sizes, parts, strict=True)]
        )
        for name in names
    }
    return replace(
        first,
        provenance={**first.provenance, "cost": cost},
        positions=np.concatenate([start + one.positions for start, one in parts]),
        scores=scores,
        aggregates=[],
        chance_aggregates={},
        bound_aggregates={},
        protocols={},
        places=None,
    )
