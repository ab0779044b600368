"""Performance information curves: how sure the answer is for the information in the picture that a map picks out."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.scoring.protocols.maps import trapezoid
from medground_bench.scoring.protocols.protocol import Measure, Skip, protocol

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.case import Case

__all__ = ["InformationParameters", "information", "information_curve", "interpolated", "pic", "revealed"]

_POINTS = 1000


@dataclass(frozen=True)
class InformationParameters:
    """Options.

    Attributes
    ----------
    shares : tuple of float
        Shares of the pixels that are shown, hottest first, ascending.
    seeds : float
        Share of pixels, at random, that are shown from the start.
    least : float
        A record is left out if the answer to the whole image is less sure.
    """

    shares: tuple[float, ...] = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.13, 0.21, 0.34, 0.5, 0.75)
    seeds: float = 0.01
    least: float = 0.8

    def __post_init__(self) -> None:
        if not self.shares or not all(0 < share < 1 for share in self.shares) or not 0 <= self.seeds < 1:
            raise ValueError("shares must lie between 0 and 1, seeds from 0 to below 1")


def information(image: np.ndarray) -> int:
    """Bytes of a losslessly packed image, (H, W) or (H, W, 3) uint8.

    Differences of neighbours in a row, deflated, as PNG does. The authors take lossless WebP, whose size depends on the
    library's version.
    """
    return len(zlib.compress(np.diff(image, axis=1, prepend=np.uint8(0)).tobytes(), 9))


def interpolated(image: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """An image (H, W) or (H, W, 3) of which some pixels, (H, W) bool, and the corners are known, the rest linear."""
    from scipy.interpolate import griddata

    known = shown.copy()
    known[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    out = image.astype(np.float32)  # a half is a half, whatever the last digit of the triangle's arithmetic
    if not known.all():
        out[~known] = griddata(np.argwhere(known), out[known], np.argwhere(~known), method="linear")
    return np.rint(out).astype(np.uint8)


def revealed(image: np.ndarray, heat: np.ndarray, seeds: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """The image from its seeds alone, then with each share of its hottest pixels, all of equal heat together."""
    cuts = np.quantile(heat, [1 - share for share in shares])
    return [interpolated(image, shown) for shown in (seeds, *(seeds | (heat >= cut) for cut in cuts))]


def information_curve(x: np.ndarray, y: np.ndarray) -> float:
    """Area under the curve of ``y`` over information ``x``.

    Parameters
    ----------
    x, y : ndarray, (n + 2,)
        Of the seeds, of each share in order and of the whole image, which is scaled to 1 and the seeds to 0. Along the
        shares y never falls: it is the best so far.
    """
    x, y = (np.clip((v[1:-1] - v[0]) / (v[-1] - v[0]), 0, 1) for v in (x, y))
    x, y = np.append(x, [0.0, 1.0]), np.append(np.maximum.accumulate(y), [0.0, 1.0])
    order = np.argsort(x, kind="stable")
    grid = np.linspace(0, 1, _POINTS + 1)
    return trapezoid(np.interp(grid, x[order], y[order]), grid)


@protocol(
    "pic",
    asks="Is the answer sure already with the little information of the map's hottest pixels?",
    measures=[
        Measure("skill", "area under the curve of confidence, beyond a random map", bounds=(-1, 1), chance=0.0),
        Measure("sic", "area under the curve of confidence over information", bounds=(0, 1), chance="sic_random"),
        Measure("aic", "area under the curve of kept answers over information", bounds=(0, 1), chance="aic_random"),
        Measure("sic_random", "of a random map", "", (0, 1)),
        Measure("aic_random", "of a random map", "", (0, 1)),
    ],
    needs=("heatmaps", "lvlm"),
    parameters=InformationParameters,
    cost="2 x (1 + shares) F and answers, half of them shared by all methods",
    reference="performance information curves, SIC and AIC (Kapishnikov et al. 2019, XRAI)",
    note="information is what is left after lossless packing: of a noisy picture most of it is noise.",
)
def pic(case: Case, parameters: InformationParameters) -> Mapping[str, float]:
    """One pixel in a hundred and the map's hottest pixels are kept, and the rest interpolated between them.

    The random map is one of 8 x 8 values, enlarged as the submission's is. There is no accuracy curve where the seeds
    alone are answered as the image is.
    """
    probe = case.probe
    x1, y1, x2, y2 = probe.letterbox.content
    image = probe.frame[y1:y2, x1:x2]
    rng = case.rng("information")
    seeds = np.zeros(image.shape[:2], bool)
    seeds.flat[rng.permutation(seeds.size)[: int(parameters.seeds * seeds.size)]] = True
    heat, random = (case.over_frame(heat)[y1:y2, x1:x2] for heat in (case.heatmap, rng.random((8, 8))))
    full = probe.confidence(probe.frame[None])[0]
    if full < parameters.least:
        raise Skip(f"the answer's confidence is below {parameters.least}")

    def areas(pictures: Sequence[np.ndarray]) -> tuple[float, float]:
        size = np.array([information(picture) for picture in pictures], float)
        frames = np.repeat(probe.frame[None], len(pictures), axis=0)
        frames[:, y1:y2, x1:x2] = pictures
        if size[0] >= size[-1]:
            raise Skip("the image packs as small as one of its pixels in a hundred")
        ends = probe.confidence(frames[:1])[0]
        if ends >= full:
            raise Skip("the answer is as sure without the image's detail")

        def area(of: Callable[[np.ndarray], np.ndarray]) -> float:
            y = of(frames)
            return information_curve(size, y) if y[0] < y[-1] else np.nan

        return area(probe.confidence), area(probe.kept)

    # Interpolating takes longer than a small LVLM: those of the random map are made once for all methods.
    made, key = case.store.made, f"pic {image.shape} {parameters}"
    if key not in made:
        made[key] = [*revealed(image, random, seeds, parameters.shares), image]
    sic_random, aic_random = areas(made[key])
    sic, aic = areas([*revealed(image, heat, seeds, parameters.shares), image])
    return {
        "skill": sic - sic_random,
        "sic": sic,
        "aic": aic,
        "sic_random": sic_random,
        "aic_random": aic_random,
    }
