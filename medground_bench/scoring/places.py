"""Where heat and boxes lie on a chest: the share of every place, the sentence that says it, and the table by finding.

Places do not overlap, so that shares add up to 1: a pixel belongs to the first of :data:`PLACES` that covers it, small
structures before the lungs' zones and the mediastinum behind them, and to :data:`ELSEWHERE` where none does. They
follow from the masks of the concepts by :func:`medground_bench.imaging.zones.zone_masks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.errors import GeometryError
from medground_bench.imaging import clip_boxes
from medground_bench.imaging.zones import zone_masks
from medground_bench.scoring.heatmaps import cell_coverage
from medground_bench.scoring.statistics import Interval, bootstrap_ratios

if TYPE_CHECKING:
    from medground_bench.imaging.letterbox import Letterbox
    from medground_bench.scoring.files import ScoreFile

__all__ = [
    "ELSEWHERE",
    "PLACES",
    "PlaceRow",
    "box_shares",
    "flat_place_rows",
    "heat_shares",
    "place_labels",
    "place_rows",
    "place_title",
    "tell",
    "tell_shares",
]

ELSEWHERE = "elsewhere"

PLACES: tuple[str, ...] = (
    "left clavicle",
    "right clavicle",
    "left costophrenic angle",
    "right costophrenic angle",
    "left hilar structures",
    "right hilar structures",
    "cardiac silhouette",
    "left upper lung zone",
    "left mid lung zone",
    "left lower lung zone",
    "right upper lung zone",
    "right mid lung zone",
    "right lower lung zone",
    "upper mediastinum",
    "mediastinum",
    ELSEWHERE,
)
"""Disjoint places, the first that covers a pixel has it; left and right are the patient's."""

_SAID = {
    "cardiac silhouette": "on the heart",
    "mediastinum": "in the rest of the mediastinum",
    ELSEWHERE: ELSEWHERE,
    **{f"{side} clavicle": f"on the {side} clavicle" for side in ("left", "right")},
    **{f"{side} hilar structures": f"on the {side} hilum" for side in ("left", "right")},
}

_LUNGS = {
    side: [k for k, name in enumerate(PLACES) if name.startswith(side) and "clavicle" not in name]
    for side in ("left", "right")
}
"""Places that count as a lung: its zones, its costophrenic angle and its hilum."""

_FINEST = 256  # longer side of the grid of labels, cells
_SAY, _MOST, _NOTHING = 0.05, 3, 0.005


def place_labels(masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """The place of every pixel, (rows, cols) uint8 of positions in :data:`PLACES`.

    Parameters
    ----------
    masks : mapping of str to (H, W) bool array
        Of the concepts on one image. Of images with more than 256 pixels a side every n-th pixel is looked at, so that
        the grid has at most so many.
    """
    if not masks:
        return np.full((1, 1), len(PLACES) - 1, np.uint8)
    height, width = next(iter(masks.values())).shape
    step = max(1.0, max(height, width) / _FINEST)
    rows, cols = (((np.arange(round(n / step)) + 0.5) * n / round(n / step)).astype(int) for n in (height, width))
    small = {name: np.asarray(mask, bool)[np.ix_(rows, cols)] for name, mask in masks.items()}
    found = {**zone_masks(small), **small}
    labels = np.full((len(rows), len(cols)), len(PLACES) - 1, np.uint8)
    for k in reversed(range(len(PLACES) - 1)):
        if PLACES[k] in found:
            labels[found[PLACES[k]]] = k
    return labels


def box_shares(labels: np.ndarray, boxes: Sequence[Sequence[float]] | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Share of the area of a union of boxes in every place, (places,); NaN where the boxes have no area.

    Parameters
    ----------
    labels : ndarray, (rows, cols)
        From :func:`place_labels`.
    boxes : sequence of [x1, y1, x2, y2]
        Native pixels of an image of ``size`` (width, height).
    """
    rows, cols = (np.linspace(0.0, n, k + 1) for n, k in zip(size[::-1], labels.shape, strict=True))
    return _shares(labels, cell_coverage(clip_boxes(boxes, *size), rows, cols))


def heat_shares(labels: np.ndarray, heatmap: np.ndarray, letterbox: Letterbox, *, signed: bool = False) -> np.ndarray:
    """Share of a map's heat on the image in every place, (places,); NaN for a map that says nothing.

    Heat is what is above the map's minimum, of a signed map its positive part; a cell's heat is spread evenly over the
    pixels that it covers. Heat in the padding is that of no place.

    Parameters
    ----------
    labels : ndarray, (rows, cols)
        From :func:`place_labels`.
    heatmap : ndarray, (h, w)
        Over the letterbox's frame, any resolution.
    """
    heat = np.asarray(heatmap, np.float64)
    if heat.ndim != 2:
        raise GeometryError(f"a heat map of shape {heat.shape}", expected="a 2-D array")
    heat = np.maximum(heat, 0) if signed else heat
    if not np.isfinite(heat).all() or not np.ptp(heat):
        return np.full(len(PLACES), np.nan)
    heat = (heat - heat.min()) / np.ptp(heat)
    x1, y1, x2, y2 = letterbox.content
    down = _overlaps(y1, y2, labels.shape[0], letterbox.frame_height, heat.shape[0])
    across = _overlaps(x1, x2, labels.shape[1], letterbox.frame_width, heat.shape[1])
    return _shares(labels, down @ heat @ across.T)


def _overlaps(start: float, end: float, cells: int, length: float, parts: int) -> np.ndarray:
    """Lengths that ``cells`` between start and end share with ``parts`` between 0 and length, (cells, parts)."""
    mine, theirs = np.linspace(start, end, cells + 1), np.linspace(0.0, length, parts + 1)
    high, low = np.minimum(mine[1:, None], theirs[1:]), np.maximum(mine[:-1, None], theirs[:-1])
    return np.maximum(high - low, 0.0)


def _shares(labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum()
    if not total > 0:
        return np.full(len(PLACES), np.nan)
    return np.bincount(labels.ravel(), weights.ravel(), minlength=len(PLACES)) / total


def tell(
    labels: np.ndarray | None,
    size: tuple[int, int],
    boxes: Sequence[Sequence[float]],
    heatmap: np.ndarray | None = None,
    letterbox: Letterbox | None = None,
    *,
    signed: bool = False,
    of: str = "boxes",
) -> str:
    """One sentence that says where a map, or where there is none boxes, lie (see :func:`tell_shares`).

    Parameters
    ----------
    labels : ndarray or None
        From :func:`place_labels`; None where the anatomy of the image is not known.
    of : {"boxes", "evidence"}
        Whose the boxes are.
    """
    if labels is None:
        return tell_shares(None)
    if heatmap is None or letterbox is None:
        return tell_shares(box_shares(labels, boxes, size), of)
    return tell_shares(heat_shares(labels, heatmap, letterbox, signed=signed))


def tell_shares(shares: np.ndarray | None, of: str = "map") -> str:
    """One sentence: the places with most of it, at most three of at least 5 %, and what lies in either lung.

    Parameters
    ----------
    shares : ndarray, (places,), or None
        From :func:`heat_shares` or :func:`box_shares`; None where the anatomy of the image is not known.
    of : {"map", "boxes", "evidence"}
        What the shares are of.

    >>> shares = np.zeros(len(PLACES))
    >>> shares[[PLACES.index("left lower lung zone"), PLACES.index("cardiac silhouette"), -1]] = 0.61, 0.12, 0.27
    >>> tell_shares(shares)
    '61 % of the map lies in the left lower lung zone, 27 % elsewhere and 12 % on the heart; left lung 61 %, \
nothing in the right lung.'
    """
    subject = {"map": "the map", "boxes": "the boxes' area", "evidence": "the evidence"}[of]
    if shares is None:
        return "Where it lies is not known: neither a source nor a localiser told this image's anatomy."
    if np.isnan(shares).any():
        return "No boxes." if of != "map" else "The map is the same everywhere, or not finite: it names no place."
    order = np.argsort(-shares, kind="stable")[:_MOST].tolist()
    first, *others = [order[0], *(k for k in order[1:] if shares[k] >= _SAY)]
    said = [f"{_percent(shares[first])} of {subject} lies {_where(first)}"]
    said += [f"{_percent(shares[k])} {_where(k)}" for k in others]
    listed = ", ".join(said[:-1]) + f" and {said[-1]}" if others else said[0]
    sides = {side: float(shares[places].sum()) for side, places in _LUNGS.items()}
    there = [f"{side} lung {_percent(share)}" for side, share in sides.items() if share >= _NOTHING]
    absent = [side for side, share in sides.items() if share < _NOTHING]
    if len(absent) == 2:
        return f"{listed}; nothing in either lung."
    return f"{listed}; {', '.join([*there, *(f'nothing in the {side} lung' for side in absent)])}."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _where(place: int) -> str:
    return _SAID.get(PLACES[place], f"in the {PLACES[place]}")


def place_title(place: str) -> str:
    """A short heading: ``left lower zone``, ``heart``."""
    short = {"cardiac silhouette": "heart", "mediastinum": "rest of mediastinum"}
    return short.get(place, place.replace(" lung zone", " zone").replace(" hilar structures", " hilum"))


@dataclass(frozen=True)
class PlaceRow:
    """Mean shares of the places over records of a finding.

    Attributes
    ----------
    finding : str
        Empty for all findings.
    kind : {"method", "control", "evidence", "chance"}
        Whose: a method's, the expert's evidence, or that of a map that is the same everywhere.
    name : str
        The method; ``evidence`` or ``whole image``.
    of : str
        ``map`` or ``boxes``.
    records, patients : int
        Over how many.
    unknown, silent : int
        Records that are left out since the anatomy of the image is not known, or nothing is named.
    shares : tuple of Interval
        In the order of :data:`PLACES`, over patients; without ends where none were asked for.
    """

    finding: str
    kind: str
    name: str
    of: str
    records: int
    patients: int
    unknown: int
    silent: int
    shares: tuple[Interval, ...]


def place_rows(files: Iterable[ScoreFile], *, resamples: int = 0) -> list[PlaceRow]:
    """The share of attribution per place and finding, for every method over all its LVLMs and modes.

    Rows of all findings come first; in each group the evidence, then a map that is the same everywhere, then methods.

    Parameters
    ----------
    resamples : int
        Of patients, for the intervals; 0 for none.
    """
    parts: dict[tuple[str, str, str], list[tuple[np.ndarray, ...]]] = {}
    prints: dict[str, int] = {}
    for file in files:
        if file.evidence_places is None or file.area_places is None:
            continue
        # Files of different configs number their patients apart.
        number = prints.setdefault(file.fingerprint, len(prints))
        known, everything = ~np.isnan(file.area_places).any(axis=1), np.arange(len(file.table))
        entries = [
            ("evidence", "evidence", "boxes", "", everything, file.evidence_places),
            ("chance", "whole image", "map", "", everything, file.area_places),
        ]
        for one in file.submissions:
            if one.places is not None:
                whose = f"\n{one.lvlm}\n{one.mode}"
                entries.append((one.kind, one.method, one.places_of, whose, one.positions, one.places))
        for kind, name, of, whose, rows, shares in entries:
            table = file.table.take(rows)
            ids = np.array([f"{key}{whose}" for key in table.id], object)
            column = (ids, shares, known[rows], table.attribute, table.cluster + 1j * number)
            parts.setdefault((kind, name, of), []).append(column)
    columns: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for key, found in parts.items():
        ids, *others = (np.concatenate(c) for c in zip(*found, strict=True))
        once = np.unique(ids, return_index=True)[1]  # evidence may be in several files
        columns[key] = [c[once] for c in others]
    out = []
    for finding in ["", *sorted({a for _, _, attributes, _ in columns.values() for a in attributes.tolist()})]:
        for (kind, name, of), (shares, known, attributes, patients) in columns.items():
            mine = attributes == finding if finding else np.ones(len(known), bool)
            if mine.any():
                out.append(_row((finding, kind, name, of), shares[mine], known[mine], patients[mine], resamples))
    kinds = ("evidence", "chance", "method", "control")
    return sorted(out, key=lambda row: (row.finding, kinds.index(row.kind), row.name))


def _row(
    key: tuple[str, str, str, str], shares: np.ndarray, known: np.ndarray, patients: np.ndarray, resamples: int
) -> PlaceRow:
    told = known & ~np.isnan(shares).any(axis=1)
    cells = tuple(Interval(v, np.nan, np.nan) for v in (shares[told].mean(axis=0).tolist() if told.any() else ()))
    if resamples and told.any():
        ones = np.ones((int(told.sum()), len(PLACES)))
        bounds = [(0.0, 1.0)] * len(PLACES)
        cells = tuple(bootstrap_ratios(shares[told], ones, patients[told], bounds=bounds, resamples=resamples))
    return PlaceRow(
        *key,
        records=int(told.sum()),
        patients=len(np.unique(patients[told])),
        unknown=int((~known).sum()),
        silent=int((known & ~told).sum()),
        shares=cells,
    )


def flat_place_rows(rows: Iterable[PlaceRow]) -> list[dict[str, Any]]:
    """Rows as plain values, a line for each place: for CSV and JSON."""
    return [
        {
            "finding": row.finding or "all findings",
            "kind": row.kind,
            "row": row.name,
            "of": row.of,
            "records": row.records,
            "patients": row.patients,
            "anatomy_unknown": row.unknown,
            "nothing_named": row.silent,
            "place": place,
            **{end: None if np.isnan(v) else round(v, 6) for end, v in cell._asdict().items()},
        }
        for row in rows
        for place, cell in zip(PLACES, row.shares, strict=False)
    ]
