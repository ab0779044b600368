"""ROAD: removal by imputation from what is left, so that the shape of a mask gives nothing away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.protocol import Measure, Table, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case, Trial

__all__ = ["RoadParameters", "impute", "road"]

_SHARE = (0.0, 1.0)
_NEIGHBOURS = ((0, 1, 1 / 6), (1, 0, 1 / 6), (1, 1, 1 / 12), (1, -1, 1 / 12))
"""Half of the eight neighbours with their weights: the other half are the same pairs, seen from the other pixel."""


@dataclass(frozen=True)
class RoadParameters:
    """Options.

    Attributes
    ----------
    shares : tuple of float
        How much of the image is removed.
    noise : float
        Standard deviation of the noise of imputed pixels, of the range of grey levels.
    """

    shares: tuple[float, ...] = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    noise: float = 0.01

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < share < 1 for share in self.shares) or self.noise < 0:
            raise ValueError("shares must lie between 0 and 1, noise must not be negative")


def impute(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Removed pixels become the weighted mean of their neighbours, all at once (Rong et al. 2022, equation 5).

    Parameters
    ----------
    image : ndarray, (H, W) or (H, W, 3)
        Grey levels.
    removed : ndarray, (H, W) bool
        Pixels to impute: weight 1/6 for direct neighbours, 1/12 for diagonal ones, as far as they lie in the image.

    Returns
    -------
    ndarray, the image's shape, float
        Where no pixel is left, the image's mean.
    """
    from scipy.sparse import coo_matrix, diags
    from scipy.sparse.linalg import splu

    out = np.array(image, np.float64)
    count = int(removed.sum())
    if count == 0:
        return out
    if removed.all():
        out[:] = out.mean(axis=(0, 1))
        return out
    number = np.full(removed.shape, -1)
    number[removed] = np.arange(count)
    channels = out.reshape(*removed.shape, -1)
    rhs, total = np.zeros((count, channels.shape[2])), np.zeros(count)
    rows, cols, weights = [], [], []
    height, width = removed.shape
    for dy, dx, weight in _NEIGHBOURS:
        here = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        there = (slice(dy, height), slice(max(0, dx), width - max(0, -dx)))
        for a, b in ((here, there), (there, here)):
            mine = removed[a]
            i, j = number[a][mine], number[b][mine]
            np.add.at(total, i, weight)
            known = j < 0
            np.add.at(rhs, i[known], weight * channels[b][mine][known])
            rows.append(i[~known])
            cols.append(j[~known])
            weights.append(np.full(int((~known).sum()), -weight))
    matrix = coo_matrix((np.concatenate(weights), (np.concatenate(rows), np.concatenate(cols))), (count, count))
    system = (matrix + diags(total)).tocsc()
    solved = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}).solve(rhs)
    channels[removed] = solved
    return channels.reshape(out.shape)


_CURVES = ("kept_morf", "kept_lerf", "confidence_morf", "confidence_lerf")


def _tables(trial: Trial, values: Mapping[str, Mapping[str, float]], parameters: RoadParameters) -> Sequence[Table]:
    rows = []
    for share in parameters.shares:
        found = [row for row in values.values() if f"_{_CURVES[0]}_{share}" in row]
        if found:
            means = {curve: float(np.mean([row[f"_{curve}_{share}"] for row in found])) for curve in _CURVES}
            rows.append({"removed": share, "records": len(found), **means})
    return [Table("by how much is removed, hottest (morf) or coldest (lerf) first", rows)]


@protocol(
    "road",
    asks="Does the answer go with the hottest pixels, and stay without the coldest, when removal leaves no trace?",
    measures=[
        Measure("gap", "answers kept without the coldest minus without the hottest", bounds=(-1, 1), chance=0.0),
        Measure("morf", "answers kept, hottest removed first", "low", _SHARE),
        Measure("lerf", "answers kept, coldest removed first", "high", _SHARE),
        Measure("confidence_gap", "the same of the answer's confidence", bounds=(-1, 1), chance=0.0),
    ],
    needs=("heatmaps", "lvlm"),
    parameters=RoadParameters,
    cost="2 x shares F and answers",
    reference="ROAD (Rong et al. 2022): noisy linear imputation",
    summarise=_tables,
)
def road(case: Case, parameters: RoadParameters) -> Mapping[str, float]:
    """Shares of the pixels of the image, removed by heat from both ends; means over the shares."""
    heat = case.over_frame(case.heatmap)
    probe = case.probe
    x1, y1, x2, y2 = probe.letterbox.content
    image = probe.content
    values = heat[y1:y2, x1:x2].ravel()
    rng = case.rng("road")
    shuffled = rng.permutation(len(values))
    ranked = shuffled[np.argsort(-values[shuffled], kind="stable")]
    noise = rng.normal(0, 255 * parameters.noise, image.shape)
    frames = []
    for first in (ranked, ranked[::-1]):
        for share in parameters.shares:
            removed = np.zeros(len(values), bool)
            removed[first[: round(share * len(values))]] = True
            mask = removed.reshape(image.shape[:2])
            filled = impute(image, mask)
            filled[mask] += noise[mask]
            frames.append(probe.with_content(filled))
    stack = np.stack(frames)
    kept, confidence = probe.kept(stack).reshape(2, -1), probe.confidence(stack).reshape(2, -1)
    return {
        "gap": float(kept[1].mean() - kept[0].mean()),
        "morf": float(kept[0].mean()),
        "lerf": float(kept[1].mean()),
        "confidence_gap": float(confidence[1].mean() - confidence[0].mean()),
        **{
            f"_{curve}_{share}": float(one)
            for curve, column in zip(_CURVES, (*kept, *confidence), strict=True)
            for share, one in zip(parameters.shares, column, strict=True)
        },
    }
