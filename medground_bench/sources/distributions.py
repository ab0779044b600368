"""How large real evidence is and where it lies, measured on boxes that radiologists drew.

What generators of evidence (phantoms, planted findings) draw sizes and places from, so that a guess that never looks
at the image does no better on them than on radiographs. All lengths are fractions of the image's width or height,
all areas fractions of the image.

Measured on 120 images with boxes of NIH ChestX-ray14 (Wang et al. 2017), 95 images of ChestX-Det (Lian et al. 2021)
and 383 images of the RSNA Pneumonia Detection Challenge (Shih et al. 2019). :func:`measure` makes the rows from any
copy of these sources; ``benchmarks/box_distributions.py`` prints them as they stand here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medground_bench.core.schema import Box
from medground_bench.imaging.boxes import as_boxes, union_area

__all__ = ["ANY", "DISTRIBUTIONS", "FEWEST_BOXES", "BoxDistribution", "distribution", "measure"]

ANY = "*"
"""Stands for all findings of a source together."""

FEWEST_BOXES = 5
"""Findings with fewer boxes get no row of their own; they still count under :data:`ANY`."""

_DECILES = np.arange(10, 100, 10)


@dataclass(frozen=True, slots=True)
class BoxDistribution:
    """Sizes and places of the boxes of one finding in one source.

    Attributes
    ----------
    source, finding : str
        Key of the source; its own name of the finding, or :data:`ANY`.
    boxes, candidates : int
        Boxes measured, and the (image, finding) pairs they belong to.
    area : tuple of 9 float
        Deciles (10 % ... 90 %) of the area of a box.
    evidence : tuple of 9 float
        Deciles of the area of the union of a candidate's boxes.
    aspect : tuple of 3 float
        Quartiles of width / height in pixels.
    x, y : tuple of 2 float
        Mean and standard deviation of a box's centre.
    offset : tuple of 2 float
        Mean and standard deviation of the centre's distance from the vertical midline, ``|x - 0.5|``: ``x`` alone
        mixes the two sides.
    right : float
        Share of the boxes in the image's left half, the patient's right side.
    """

    source: str
    finding: str
    boxes: int
    candidates: int
    area: tuple[float, ...]
    evidence: tuple[float, ...]
    aspect: tuple[float, ...]
    x: tuple[float, float]
    y: tuple[float, float]
    offset: tuple[float, float]
    right: float


def measure(source: str, samples: Iterable[tuple[str, Sequence[Box], tuple[int, int]]]) -> list[BoxDistribution]:
    """Distributions of a source, one row a finding (by name), then one of all together.

    Parameters
    ----------
    source : str
        Its key.
    samples : iterable of (finding, boxes, (width, height))
        One a candidate; boxes in native pixels, those without any are left out.
    """
    groups: dict[str, list[tuple[np.ndarray, float]]] = defaultdict(list)
    for finding, boxes, (width, height) in samples:
        if boxes:
            pixels = as_boxes(boxes)
            entry = (np.column_stack([pixels, np.tile((width, height), (len(pixels), 1))]), union_area(pixels))
            groups[finding].append((entry[0], entry[1] / (width * height)))
    rows = [_row(source, finding, groups[finding]) for finding in sorted(groups)]
    everything = [entry for group in groups.values() for entry in group]
    return [row for row in rows if row.boxes >= FEWEST_BOXES] + ([_row(source, ANY, everything)] if everything else [])


def _row(source: str, finding: str, entries: Sequence[tuple[np.ndarray, float]]) -> BoxDistribution:
    x1, y1, x2, y2, width, height = np.concatenate([boxes for boxes, _ in entries]).T
    x, y = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height
    offset = np.abs(x - 0.5)
    return BoxDistribution(
        source,
        finding,
        boxes=len(x1),
        candidates=len(entries),
        area=_rounded(np.percentile((x2 - x1) * (y2 - y1) / (width * height), _DECILES)),
        evidence=_rounded(np.percentile([share for _, share in entries], _DECILES)),
        aspect=_rounded(np.percentile((x2 - x1) / (y2 - y1), (25, 50, 75)), 3),
        x=_spread(x),
        y=_spread(y),
        offset=_spread(offset),
        right=round(float((x < 0.5).mean()), 3),
    )


def _rounded(values: np.ndarray, digits: int = 4) -> tuple[float, ...]:
    return tuple(round(float(v), digits) for v in values)


def _spread(values: np.ndarray) -> tuple[float, float]:
    return round(float(values.mean()), 3), round(float(values.std()), 3)


def distribution(finding: str, source: str = "nih_cxr14") -> BoxDistribution:
    """The row of a finding.

    Raises
    ------
    KeyError
        If it was not measured there.
    """
    for row in DISTRIBUTIONS:
        if (row.source, row.finding) == (source, finding):
            return row
    raise KeyError(f"no boxes of {finding!r} were measured in {source}")


# fmt: off
DISTRIBUTIONS: tuple[BoxDistribution, ...] = (
    BoxDistribution(
        "nih_cxr14", "Atelectasis", 19, 19,
        (0.0086, 0.0109, 0.0127, 0.0189, 0.0222, 0.0239, 0.0264, 0.033, 0.0496),
        (0.0086, 0.0109, 0.0127, 0.0189, 0.0222, 0.0239, 0.0264, 0.033, 0.0496),
        (1.039, 1.479, 2.109), (0.467, 0.225), (0.55, 0.115), (0.221, 0.054), 0.632,
    ),
    BoxDistribution(
        "nih_cxr14", "Cardiomegaly", 16, 16,
        (0.1474, 0.1634, 0.1665, 0.1683, 0.175, 0.1823, 0.1923, 0.2102, 0.2133),
        (0.1474, 0.1634, 0.1665, 0.1683, 0.175, 0.1823, 0.1923, 0.2102, 0.2133),
        (1.129, 1.26, 1.326), (0.593, 0.057), (0.544, 0.06), (0.096, 0.052), 0.062,
    ),
    BoxDistribution(
        "nih_cxr14", "Effusion", 23, 23,
        (0.0233, 0.0358, 0.0405, 0.0533, 0.0728, 0.0957, 0.1065, 0.1193, 0.1367),
        (0.0233, 0.0358, 0.0405, 0.0533, 0.0728, 0.0957, 0.1065, 0.1193, 0.1367),
        (0.382, 0.441, 0.548), (0.48, 0.299), (0.53, 0.107), (0.293, 0.065), 0.565,
    ),
    BoxDistribution(
        "nih_cxr14", "Infiltrate", 26, 26,
        (0.036, 0.0422, 0.0484, 0.0575, 0.0704, 0.0889, 0.0962, 0.1032, 0.1355),
        (0.036, 0.0422, 0.0484, 0.0575, 0.0704, 0.0889, 0.0962, 0.1032, 0.1355),
        (0.645, 0.905, 1.051), (0.514, 0.201), (0.534, 0.088), (0.192, 0.063), 0.462,
    ),
    BoxDistribution(
        "nih_cxr14", "Mass", 18, 18,
        (0.006, 0.0104, 0.0125, 0.0132, 0.0158, 0.0257, 0.0276, 0.0336, 0.0723),
        (0.006, 0.0104, 0.0125, 0.0132, 0.0158, 0.0257, 0.0276, 0.0336, 0.0723),
        (0.756, 0.92, 1.023), (0.585, 0.174), (0.399, 0.097), (0.172, 0.088), 0.278,
    ),
    BoxDistribution(
        "nih_cxr14", "Nodule", 16, 16,
        (0.0027, 0.0032, 0.0038, 0.0046, 0.0048, 0.0066, 0.007, 0.0071, 0.0074),
        (0.0027, 0.0032, 0.0038, 0.0046, 0.0048, 0.0066, 0.007, 0.0071, 0.0074),
        (0.991, 1.082, 1.191), (0.434, 0.262), (0.527, 0.135), (0.258, 0.081), 0.625,
    ),
    BoxDistribution(
        "nih_cxr14", "Pneumonia", 19, 19,
        (0.0269, 0.0323, 0.047, 0.0565, 0.059, 0.0796, 0.0895, 0.1028, 0.1626),
        (0.0269, 0.0323, 0.047, 0.0565, 0.059, 0.0796, 0.0895, 0.1028, 0.1626),
        (0.628, 0.844, 1.101), (0.498, 0.193), (0.561, 0.096), (0.183, 0.06), 0.474,
    ),
    BoxDistribution(
        "nih_cxr14", "Pneumothorax", 16, 16,
        (0.0051, 0.0112, 0.0185, 0.0256, 0.0381, 0.055, 0.0635, 0.0651, 0.0804),
        (0.0051, 0.0112, 0.0185, 0.0256, 0.0381, 0.055, 0.0635, 0.0651, 0.0804),
        (0.623, 1.088, 1.313), (0.36, 0.197), (0.374, 0.212), (0.228, 0.08), 0.812,
    ),
    BoxDistribution(
        "nih_cxr14", "*", 153, 153,
        (0.0051, 0.0107, 0.022, 0.0324, 0.0451, 0.0592, 0.0895, 0.1095, 0.1682),
        (0.0051, 0.0107, 0.022, 0.0324, 0.0451, 0.0592, 0.0895, 0.1095, 0.1682),
        (0.646, 1.0, 1.218), (0.493, 0.225), (0.506, 0.135), (0.208, 0.087), 0.49,
    ),
    BoxDistribution(
        "chestx_det", "Atelectasis", 19, 16,
        (0.0125, 0.0152, 0.0182, 0.0242, 0.0273, 0.0322, 0.0368, 0.041, 0.0455),
        (0.0119, 0.0149, 0.0195, 0.0273, 0.0349, 0.0434, 0.0465, 0.0523, 0.0588),
        (0.918, 1.173, 1.666), (0.526, 0.203), (0.574, 0.087), (0.195, 0.063), 0.526,
    ),
    BoxDistribution(
        "chestx_det", "Cardiomegaly", 16, 16,
        (0.0647, 0.0721, 0.0771, 0.0819, 0.0858, 0.0936, 0.1011, 0.1053, 0.1167),
        (0.0647, 0.0721, 0.0771, 0.0819, 0.0858, 0.0936, 0.1011, 0.1053, 0.1167),
        (1.612, 1.833, 1.984), (0.572, 0.035), (0.6, 0.03), (0.072, 0.035), 0.0,
    ),
    BoxDistribution(
        "chestx_det", "Consolidation", 96, 56,
        (0.0211, 0.0412, 0.0547, 0.0771, 0.0889, 0.1138, 0.125, 0.1453, 0.1633),
        (0.0394, 0.0626, 0.0877, 0.1117, 0.1493, 0.1841, 0.2218, 0.2568, 0.2971),
        (0.523, 0.666, 0.914), (0.493, 0.21), (0.516, 0.125), (0.203, 0.051), 0.531,
    ),
    BoxDistribution(
        "chestx_det", "Diffuse Nodule", 7, 4,
        (0.1131, 0.1291, 0.1293, 0.1316, 0.135, 0.1542, 0.1723, 0.1881, 0.211),
        (0.2026, 0.2118, 0.2211, 0.231, 0.2413, 0.2516, 0.273, 0.3169, 0.3607),
        (0.484, 0.567, 0.626), (0.556, 0.202), (0.496, 0.067), (0.204, 0.048), 0.429,
    ),
    BoxDistribution(
        "chestx_det", "Effusion", 78, 49,
        (0.0062, 0.0095, 0.0145, 0.0307, 0.0482, 0.0733, 0.1113, 0.1275, 0.1608),
        (0.0088, 0.0142, 0.0305, 0.0471, 0.0655, 0.1099, 0.1337, 0.2181, 0.2626),
        (0.611, 0.779, 1.173), (0.467, 0.258), (0.645, 0.103), (0.252, 0.065), 0.551,
    ),
    BoxDistribution(
        "chestx_det", "Emphysema", 11, 6,
        (0.1812, 0.199, 0.2045, 0.2236, 0.2356, 0.2365, 0.2487, 0.252, 0.2575),
        (0.3111, 0.4177, 0.426, 0.4343, 0.4454, 0.4565, 0.4644, 0.4723, 0.48),
        (0.431, 0.456, 0.556), (0.486, 0.205), (0.461, 0.067), (0.204, 0.027), 0.545,
    ),
    BoxDistribution(
        "chestx_det", "Fibrosis", 12, 9,
        (0.0114, 0.0161, 0.0211, 0.0278, 0.0343, 0.0405, 0.0412, 0.0678, 0.1478),
        (0.0104, 0.0137, 0.0167, 0.023, 0.041, 0.063, 0.0685, 0.0709, 0.123),
        (0.745, 1.156, 1.336), (0.562, 0.228), (0.475, 0.116), (0.232, 0.044), 0.417,
    ),
    BoxDistribution(
        "chestx_det", "Fracture", 22, 11,
        (0.0029, 0.0033, 0.0041, 0.0046, 0.0054, 0.0057, 0.0063, 0.0081, 0.0103),
        (0.0035, 0.004, 0.0047, 0.0055, 0.0065, 0.0117, 0.013, 0.0179, 0.0421),
        (0.609, 1.373, 1.659), (0.328, 0.194), (0.427, 0.22), (0.242, 0.091), 0.818,
    ),
    BoxDistribution(
        "chestx_det", "Nodule", 13, 7,
        (0.0005, 0.0006, 0.0013, 0.0022, 0.0033, 0.0044, 0.0066, 0.0075, 0.0077),
        (0.0005, 0.0006, 0.0006, 0.002, 0.0041, 0.0063, 0.0079, 0.0082, 0.0163),
        (0.856, 0.985, 1.034), (0.537, 0.235), (0.503, 0.125), (0.224, 0.079), 0.462,
    ),
    BoxDistribution(
        "chestx_det", "Pleural Thickening", 10, 8,
        (0.0028, 0.005, 0.006, 0.0069, 0.0084, 0.0118, 0.0156, 0.017, 0.0239),
        (0.0049, 0.0067, 0.0075, 0.0091, 0.0124, 0.016, 0.0189, 0.0221, 0.0356),
        (0.909, 1.439, 2.343), (0.581, 0.231), (0.441, 0.227), (0.228, 0.088), 0.4,
    ),
    BoxDistribution(
        "chestx_det", "Pneumothorax", 5, 5,
        (0.0245, 0.0256, 0.0263, 0.0265, 0.0267, 0.0277, 0.0287, 0.0331, 0.0408),
        (0.0245, 0.0256, 0.0263, 0.0265, 0.0267, 0.0277, 0.0287, 0.0331, 0.0408),
        (0.994, 1.081, 1.093), (0.639, 0.174), (0.204, 0.036), (0.221, 0.021), 0.2,
    ),
    BoxDistribution(
        "chestx_det", "*", 294, 191,
        (0.0053, 0.0091, 0.0186, 0.0331, 0.053, 0.0783, 0.1055, 0.1293, 0.1634),
        (0.0075, 0.0149, 0.0303, 0.0462, 0.0685, 0.0901, 0.1325, 0.2181, 0.2852),
        (0.59, 0.8, 1.255), (0.489, 0.226), (0.54, 0.152), (0.214, 0.073), 0.517,
    ),
    BoxDistribution(
        "rsna", "pneumonia", 187, 122,
        (0.0208, 0.0285, 0.0401, 0.049, 0.0587, 0.0647, 0.0766, 0.0909, 0.1192),
        (0.0229, 0.0348, 0.047, 0.0596, 0.0787, 0.1012, 0.1208, 0.1448, 0.1939),
        (0.584, 0.72, 0.973), (0.495, 0.203), (0.521, 0.114), (0.196, 0.054), 0.529,
    ),
)
"""The measured rows, source by source."""
