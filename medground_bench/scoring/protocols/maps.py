"""What several protocols do with heat maps: units of the frame in order of heat, and how alike two maps are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from medground_bench.attribution.fills import FILLS
from medground_bench.attribution.regions import region_labels
from medground_bench.imaging import resize_heatmap

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = [
    "alike",
    "averaged",
    "check_fill",
    "coarser",
    "correlation",
    "free_place",
    "hottest",
    "image_tokens",
    "in_pixels",
    "order",
    "prefix_masks",
    "ranked_units",
    "ssim",
    "top_overlap",
    "trapezoid",
    "unit_sums",
    "units",
]

_CELLS = 8

TOP = 0.1
"""Share of the map that counts as its top in :func:`top_overlap`."""


def units(case: Case, regions: str) -> tuple[np.ndarray, np.ndarray]:
    """Regions of the frame that hold some of the image, and how much of it.

    Parameters
    ----------
    case : Case
        Whose frame.
    regions : str
        See :func:`medground_bench.attribution.regions.region_labels`.

    Returns
    -------
    masks : ndarray, (n, H, W) bool
        The letterbox's bars belong to none.
    areas : ndarray, (n,)
        Shares of the image, which sum to 1 where the regions cover it.
    """
    labels = region_labels(regions, case.probe.episode)
    x1, y1, x2, y2 = case.letterbox.content
    image = np.zeros(labels.shape, bool)
    image[y1:y2, x1:x2] = True
    found = np.unique(labels[image & (labels >= 0)])
    masks = (labels == found[:, None, None]) & image
    return masks, masks.sum(axis=(1, 2)) / image.sum()


def unit_sums(case: Case, masks: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A map's heat in every unit: cells are of one value all over, and divided by area between the units they meet."""
    frame = in_pixels(case, heat) * (heat.size / masks[0].size)
    return np.array([frame[mask].sum() for mask in masks])


def image_tokens(case: Case) -> tuple[int, int]:
    """Rows and columns of the LVLM's image tokens; 8 x 8 where its own grid is not known, or is no lattice."""
    grid = case.probe.episode.token_grid
    return (_CELLS, _CELLS) if grid is None or grid.lattice is None else grid.lattice


def in_pixels(case: Case, heat: np.ndarray) -> np.ndarray:
    """A map in pixels of the frame, not interpolated where it is coarser: what lies in a cell has its value."""
    height, width = case.letterbox.frame_height, case.letterbox.frame_width
    if heat.shape[0] > height or heat.shape[1] > width:
        return case.over_frame(heat)
    rows, cols = (((np.arange(n) + 0.5) * k / n).astype(int) for n, k in zip((height, width), heat.shape, strict=True))
    return np.asarray(heat[np.ix_(rows, cols)], np.float64)


def averaged(heat: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map's exact means over the cells of another grid, of any shape: nothing bleeds from a cell into the next."""

    def shares(cells: int, means: int) -> np.ndarray:
        fine, coarse = np.linspace(0, 1, cells + 1), np.linspace(0, 1, means + 1)[:, None]
        overlap = np.minimum(fine[1:], coarse[1:]) - np.maximum(fine[:-1], coarse[:-1])
        return np.asarray(np.maximum(overlap, 0) * means)

    return shares(heat.shape[0], shape[0]) @ np.asarray(heat, np.float64) @ shares(heat.shape[1], shape[1]).T


def order(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Positions by value, largest first; equal values in random order, so that a constant map is a random one."""
    shuffled = rng.permutation(len(values))
    return shuffled[np.argsort(-values[shuffled], kind="stable")]


def ranked_units(case: Case, masks: np.ndarray, areas: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Units by mean heat, hottest first; ties are the record's, so that methods share them."""
    return order(unit_sums(case, masks, heat) / areas, case.rng("ties"))


def check_fill(fill: str) -> None:
    """Refuse what is no fill."""
    if fill not in FILLS:
        raise ValueError(f"fill must be one of {', '.join(FILLS)}")


def free_place(
    case: Case, rng: np.random.Generator, height: int, width: int, taken: np.ndarray
) -> tuple[slice, slice] | None:
    """A random rectangle of the image that meets nothing that is taken, (H, W) bool; None where 50 tries find none."""
    x1, y1, x2, y2 = case.letterbox.content
    if x2 - x1 < width or y2 - y1 < height:
        return None
    for _ in range(50):
        x, y = int(rng.integers(x1, x2 - width + 1)), int(rng.integers(y1, y2 - height + 1))
        place = slice(y, y + height), slice(x, x + width)
        if not taken[place].any():
            return place
    return None


def prefix_masks(masks: np.ndarray, ranked: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The first 0 ... n units as masks, and how many units each has, in at most ``steps`` steps."""
    counts = np.unique(np.rint(np.linspace(0, len(ranked), min(steps, len(ranked)) + 1)).astype(int))
    place = np.empty(len(ranked), int)
    place[ranked] = np.arange(len(ranked))
    when = np.full(masks.shape[1:], len(ranked))
    for unit, mask in enumerate(masks):
        when[mask] = place[unit]
    when[~masks.any(axis=0)] = np.iinfo(int).max
    return when[None] < counts[:, None, None], counts


def hottest(case: Case, heat: np.ndarray) -> tuple[float, float]:
    """The hottest point in native pixels, (x, y); of several equally hot cells the mean."""
    box = case.letterbox
    rows, cols = np.nonzero(heat == heat.max())
    x = (cols.mean() + 0.5) * box.frame_width / heat.shape[1]
    y = (rows.mean() + 0.5) * box.frame_height / heat.shape[0]
    ((x1, y1, _, _),) = box.to_native([(x, y, x, y)], clip=False)
    return x1, y1


def trapezoid(y: np.ndarray, x: np.ndarray) -> float:
    """Area under a curve."""
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum())


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where one of them is constant."""
    from scipy.stats import spearmanr

    a, b = np.ravel(a), np.ravel(b)
    return float(spearmanr(a, b).statistic) if np.ptp(a) and np.ptp(b) else 0.0


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004) of two maps of one shape, each scaled to [0, 1].

    The mean over all cells, with Gaussian weights of 1.5 cells and mirrored borders; 0 where one of them is constant.
    """
    from scipy.ndimage import gaussian_filter

    if not (np.ptp(a) and np.ptp(b)):
        return 0.0
    a, b = ((np.asarray(v, np.float64) - v.min()) / np.ptp(v) for v in (a, b))

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(gaussian_filter(values, 1.5, truncate=3.5))

    one, other = mean(a), mean(b)
    together = (2 * one * other + 0.01**2) * (2 * (mean(a * b) - one * other) + 0.03**2)
    apart = (one**2 + other**2 + 0.01**2) * (mean(a * a) - one**2 + mean(b * b) - other**2 + 0.03**2)
    return float((together / apart).mean())


def top_overlap(a: np.ndarray, b: np.ndarray, share: float = TOP) -> float:
    """IoU of the hottest ``share`` of two maps of one shape; of equal values all or none are in."""

    def top(values: np.ndarray) -> np.ndarray:
        return values > np.quantile(values, 1 - share) if np.ptp(values) else np.zeros(values.shape, bool)

    one, other = top(a), top(b)
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 0.0


def coarser(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two maps at the coarser one's resolution."""
    if a.size > b.size:
        a = resize_heatmap(a, (b.shape[0], b.shape[1]))
    elif b.size > a.size or a.shape != b.shape:
        b = resize_heatmap(b, (a.shape[0], a.shape[1]))
    return np.asarray(a, np.float64), np.asarray(b, np.float64)


def alike(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """How alike two maps are, at the coarser one's resolution.

    Returns
    -------
    dict of str to float
        ``spearman``; ``kendall`` (tau-b) and ``cosine`` of the centred maps (Wang & Kong 2022 link the two); ``top``,
        the IoU of the hottest tenths.
    """
    from scipy.stats import kendalltau

    a, b = coarser(a, b)
    if not (np.ptp(a) and np.ptp(b)):
        return {"spearman": 0.0, "kendall": 0.0, "cosine": 0.0, "top": 0.0}
    # Kendall's tau of 50,000 pixels takes a second and says the same as of 784 cells.
    small = [resize_heatmap(m, (min(m.shape[0], 28), min(m.shape[1], 28))).ravel() for m in (a, b)]
    x, y = (a - a.mean()).ravel(), (b - b.mean()).ravel()
    # Scaled first: squares of small gradients vanish.
    x, y = x / np.abs(x).max(), y / np.abs(y).max()
    return {
        "spearman": correlation(a, b),
        "kendall": float(np.nan_to_num(kendalltau(*small).statistic)),
        "cosine": float(x @ y / np.sqrt((x @ x) * (y @ y))),
        "top": top_overlap(a, b),
    }
