"""Subgroups: whether a method serves patients of both sexes, of all ages and in both projections alike."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.scoring.concepts import anatomy_of
from medground_bench.scoring.places import box_shares, heat_shares
from medground_bench.scoring.protocols.protocol import Measure, Skip, Table, protocol
from medground_bench.scoring.protocols.strata import stratum
from medground_bench.scoring.statistics import bootstrap_ratios, cluster_codes, holm
from medground_bench.sources.planted.anatomy import available_localizers, load_localizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from medground_bench.core.schema import Candidate
    from medground_bench.scoring.protocols.case import Case, Trial

__all__ = ["SubgroupParameters", "age_group", "groups_of", "permuted_gap", "standardised", "subgroups"]

FIELDS = ("sex", "age", "view")
_SCORES = ("iou", "f1")
_BREASTS = "heat_breasts"
_SOURCE = "source"
_ELSEWHERE = 0.1  # of the evidence on the breasts, at most
_localizer = lru_cache(load_localizer)
_AGES = ((0, "below 18"), (18, "18 to 39"), (40, "40 to 59"), (60, "60 to 79"), (80, "80 and older"))


@dataclass(frozen=True)
class SubgroupParameters:
    """Options.

    Attributes
    ----------
    least : int
        Patients of a group; a smaller one is named and not compared.
    permutations : int
        Of groups over patients.
    anatomy : str
        Who tells where the breasts are: ``source`` (phantoms alone do) or a localizer, for images of which no source
        tells; empty: nobody is asked.
    """

    least: int = 50
    permutations: int = 10_000
    anatomy: str = ""

    def __post_init__(self) -> None:
        if self.least < 1 or self.permutations < 1:
            raise ValueError("least and permutations must be at least 1")
        if self.anatomy not in (known := ("", _SOURCE, *available_localizers())):
            raise ValueError(f"anatomy must be one of {', '.join(filter(None, known))}, or empty")


def age_group(age: int) -> str:
    """Age in the groups of a table."""
    return _AGES[int(np.searchsorted([edge for edge, _ in _AGES[1:]], age, side="right"))][1]


def groups_of(candidate: Candidate) -> dict[str, str]:
    """What a source says of the patient and the image; what it does not say is left out."""
    out = {"sex": candidate.sex, "age": None if candidate.age is None else age_group(candidate.age)}
    return {k: v for k, v in {**out, "view": candidate.view}.items() if v is not None}


def permuted_gap(
    scores: np.ndarray, groups: np.ndarray, clusters: np.ndarray, permutations: int, seed: int = 0
) -> float:
    """p-value of "no gap": how often the largest minus the smallest group mean is as large, groups dealt anew.

    Parameters
    ----------
    scores, groups, clusters : ndarray, shape (n,)
        Per record. A patient's records go together; one whose records are of several groups (views) keeps the group of
        the first.
    """
    codes, count = cluster_codes(clusters)
    names = np.unique(groups)
    first = np.unique(codes, return_index=True)[1]
    label = np.searchsorted(names, groups[first])
    sums, sizes = np.bincount(codes, scores, count), np.bincount(codes, minlength=count).astype(float)

    def gap(dealt: np.ndarray) -> float:
        means = np.bincount(dealt, sums, len(names)) / np.maximum(np.bincount(dealt, sizes, len(names)), 1)
        return float(np.ptp(means))

    observed = gap(label) - 1e-12
    rng = np.random.default_rng(seed)
    reached = sum(gap(rng.permutation(label)) >= observed for _ in range(permutations))
    return (reached + 1) / (permutations + 1)


def standardised(scores: np.ndarray, groups: np.ndarray, strata: Sequence[Any]) -> dict[str, float]:
    """Group means over one mix of strata: that of the strata that every group has (direct standardisation)."""
    cells: dict[Any, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score, group, where in zip(scores.tolist(), groups.tolist(), strata, strict=True):
        cells[where][group].append(score)
    names = sorted(set(groups.tolist()))
    shared = {where: found for where, found in cells.items() if set(found) == set(names)}
    weights = {where: sum(map(len, found.values())) for where, found in shared.items()}
    total = sum(weights.values())
    if not total:
        return {}
    return {n: sum(weights[w] * float(np.mean(found[n])) for w, found in shared.items()) / total for n in names}


def _tables(trial: Trial, values: Mapping[str, Mapping[str, float]], parameters: SubgroupParameters) -> Sequence[Table]:
    keys = list(values)
    known = {key: groups_of(trial.candidates[key]) for key in keys}
    patients = np.array(["\0".join(whose) for whose in trial.patients(keys)])
    mix = [(trial.records[k].attribute, stratum(values[k]["evidence"])) for k in keys]
    rows: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    for name in FIELDS:
        has = np.array([name in known[k] for k in keys])
        if not has.any():
            gaps.append({"field": name, "metric": "", "gap": None, "worst": "no record has it"})
            continue
        for metric in (*_SCORES, *([_BREASTS] if name == "sex" else [])):
            scores = np.array([values[k].get(metric, np.nan) for k in keys])
            there = has & np.isfinite(scores)
            if not there.any():
                continue
            labels = np.array([known[k].get(name, "") if t else "" for k, t in zip(keys, there, strict=True)])
            sizes = {group: len(set(patients[labels == group].tolist())) for group in np.unique(labels[there]).tolist()}
            large = [group for group, size in sizes.items() if size >= parameters.least]
            for group, size in sizes.items():
                inside = labels == group
                (interval,) = bootstrap_ratios(
                    scores[inside], np.ones(int(inside.sum())), patients[inside], bounds=[(0, 1)], resamples=2000
                )
                row = {"field": name, "group": group, "metric": metric, "records": int(inside.sum()), "patients": size}
                enough = group in large
                rows.append(
                    row
                    | {"mean": interval.value if enough else None, "low": interval.low if enough else None}
                    | {"high": interval.high if enough else None}
                    | {"note": "" if enough else f"fewer than {parameters.least} patients"}
                )
            if len(large) < 2:
                gaps.append({"field": name, "metric": metric, "gap": None, "worst": "fewer than two large groups"})
                continue
            inside = np.isin(labels, large)
            means = {group: float(scores[labels == group].mean()) for group in large}
            fair = standardised(scores[inside], labels[inside], [m for m, i in zip(mix, inside, strict=True) if i])
            gaps.append(
                {"field": name, "metric": metric, "gap": max(means.values()) - min(means.values())}
                | {"worst": (max if metric == _BREASTS else min)(means, key=lambda group: means[group])}
                | {"standardised_gap": max(fair.values()) - min(fair.values()) if fair else None}
                | {"p": permuted_gap(scores[inside], labels[inside], patients[inside], parameters.permutations)}
            )
    tested = [gap for gap in gaps if gap.get("p") is not None]
    for gap, p in zip(tested, holm([gap["p"] for gap in tested]), strict=True):
        gap["p_holm"] = p
    columns = ("field", "metric", "gap", "worst", "standardised_gap", "p", "p_holm")
    return [
        Table("means by subgroup", rows),
        Table(
            "gaps (permutation of groups over patients; Holm over the table)",
            [{column: gap.get(column) for column in columns} for gap in gaps],
        ),
    ]


@protocol(
    "subgroups",
    asks="Are the scores the same for women and men, for all ages and for both projections?",
    measures=[
        Measure("iou", "IoU of the boxes, records whose source knows the patient", bounds=(0, 1)),
        Measure("f1", "F1 of the boxes", bounds=(0, 1)),
        Measure("evidence", "share of the image that is evidence", "", (0, 1)),
        Measure(_BREASTS, "heat on the breasts' shadow where the evidence is elsewhere", "low", (0, 1), "area_breasts"),
        Measure("area_breasts", "share of the image that is the breasts' shadow", "", (0, 1)),
    ],
    needs=("sources",),
    parameters=SubgroupParameters,
    cost="0 F; with an anatomy a phantom or a localizer's run",
    reference="group gaps with permutation tests and direct standardisation over finding and size of the evidence",
    summarise=_tables,
)
def subgroups(case: Case, parameters: SubgroupParameters) -> Mapping[str, float]:
    """Scores of records whose sex, age or view the source tells."""
    candidate = case.trial.candidates.get(case.record.id)
    if candidate is None or not groups_of(candidate):
        raise Skip("its source tells neither sex nor age nor view")
    return case.overlap(case.prediction.boxes) | (_breasts(case, parameters.anatomy) if parameters.anatomy else {})


def _breasts(case: Case, anatomy: str) -> dict[str, float]:
    """The share of the heat, or where there is no map of the boxes, on the breasts' shadow; NaN if the evidence is."""
    candidate = case.trial.candidates[case.record.id]
    found = anatomy_of(case.record, candidate, None if anatomy == _SOURCE else _localizer(anatomy))
    breasts = None if found is None else found.breasts
    if breasts is None:
        return {}
    labels, size = breasts.astype(np.uint8), case.record.size
    if box_shares(labels, case.record.boxes, size)[1] > _ELSEWHERE:
        return {}
    try:
        share = heat_shares(labels, case.heatmap, case.letterbox, signed=case.trial.submission.signed)[1]
    except Skip:
        share = box_shares(labels, case.prediction.boxes, size)[1]
    return {_BREASTS: float(share), "area_breasts": float(breasts.mean())}
