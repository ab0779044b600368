"""How two-tower models recognise findings, how they localise them, and whether the two go together (XBench's question).

For every finding of a source: does the model tell images that have it from images that have not (AUROC of
``log p(finding)``), and does a map of it point at the expert's boxes (pointing game, IoU of the map's boxes)? Images
without an annotation of the finding count as without it, which in a source that annotates some findings only is a lower
bound on recognition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata, spearmanr

from medground_bench.core.errors import MedGroundError, ScoringError
from medground_bench.imaging.overlap import score_boxes
from medground_bench.imaging.read import read_image
from medground_bench.scoring.heatmaps import score_heatmap
from medground_bench.scoring.table import SIZES, size_tertiles

if TYPE_CHECKING:
    from medground_bench.attribution.method import Method
    from medground_bench.sources.base import Source

__all__ = ["XbenchRow", "auroc", "xbench"]

_LEAST = 4
"""Findings below which a correlation says nothing."""


@dataclass(frozen=True)
class XbenchRow:
    """One line of the table.

    Attributes
    ----------
    model, method : str
        Key of the model; name of the method that made the maps.
    group : str
        A finding; ``small``, ``medium``, ``large`` evidence; or ``all``.
    candidates : int
        Findings in images that were localised.
    pointing, iou : float
        Means over them, fractions.
    auroc : float
        Recognition; of a finding, or the mean over findings; NaN where every image has it, or of a size.
    correlation : float
        Spearman's, of AUROC and IoU over findings; of ``all`` only, NaN below four findings.
    """

    model: str
    method: str
    group: str
    candidates: int
    pointing: float
    iou: float
    auroc: float
    correlation: float = float("nan")


def auroc(positive: Sequence[float] | np.ndarray, negative: Sequence[float] | np.ndarray) -> float:
    """Probability that a positive scores higher than a negative, ties half; NaN where one of them is empty."""
    p, n = len(positive), len(negative)
    if not p or not n:
        return float("nan")
    ranks = rankdata(np.concatenate([positive, negative]))
    return float((ranks[:p].sum() - p * (p + 1) / 2) / (p * n))


def xbench(
    models: Mapping[str, Callable[[], object]],
    source: Source,
    methods: Sequence[Method],
    *,
    side: int = 224,
    limit: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[XbenchRow]:
    """Recognition and localisation of findings by two-tower models.

    Parameters
    ----------
    models : mapping of str to callable
        Key -> what loads a :class:`~medground_bench.lvlm.two_tower.TwoTower`; one is in memory at a time.
    source : Source
        Candidates with boxes.
    methods : sequence of Method
        What makes the maps.
    side : int
        Side of the frame.
    limit : int, optional
        Only the first so many images.
    progress : callable, optional
        Called with (done, total, what is under way).

    Returns
    -------
    list of XbenchRow
        Per model and method: all, sizes, findings.

    Raises
    ------
    ScoringError
        If a model has no two towers, or no image has a box.
    MedGroundError
        If an image cannot be read.
    """
    from medground_bench.lvlm.two_tower import TwoTower

    images = list(dict.fromkeys(c.image_path for c in source if c.boxes))[:limit]
    chosen = set(images)
    cases = [c for c in source if c.boxes and c.image_path in chosen]
    if not cases:
        raise ScoringError("no image of the source has a box", where=getattr(source, "name", None))
    findings = sorted({c.attribute for c in cases})
    places = {path: k for k, path in enumerate(images)}
    has = np.zeros((len(images), len(findings)), bool)
    for c in source:
        if c.image_path in places and c.attribute in findings:
            has[places[c.image_path], findings.index(c.attribute)] = True
    rows: list[XbenchRow] = []
    done, total = 0, len(images) * len(models)
    for key, load in models.items():
        model = load()
        if not isinstance(model, TwoTower):
            raise ScoringError(f"{key} has no two towers", expected="a CLIP- or SigLIP-class model")
        scores = np.zeros(has.shape)
        found: dict[str, list[tuple[float, float]]] = {m.name: [] for m in methods}
        fraction: list[float] = []
        order: list[str] = []
        for k, path in enumerate(images):
            if progress is not None:
                progress(done, total, f"{key} {path.name}")
            image = read_image(path)
            for f, finding in enumerate(findings):
                episode = model.prepare(image, finding, side=side)
                scores[k, f] = model.log_probs(episode, [episode.frame])[0, 0]
                for c in (c for c in cases if c.image_path == path and c.attribute == finding):
                    order.append(finding)
                    fraction.append(sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in c.boxes) / np.prod(image.size))
                    for method in methods:
                        found[method.name].append(_localised(model, episode, method, list(c.boxes)))
            done += 1
        recognised = np.array([auroc(scores[has[:, f], f], scores[~has[:, f], f]) for f in range(len(findings))])
        for method in methods:
            rows += _rows(key, method.name, np.array(found[method.name]), order, fraction, findings, recognised)
    if progress is not None:
        progress(total, total, "done")
    return rows


def _localised(
    model: object, episode: object, method: Method, boxes: list[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Pointing and IoU of one map; of a map that fails, what it is."""
    said = method.run(model, episode)  # type: ignore[arg-type]
    if said.heatmap is None:
        raise MedGroundError(f"method {method.name!r} makes no heat map", expected="similarity_map, occlusion, ...")
    pointing = score_heatmap(said.heatmap, episode.letterbox, boxes).pointing  # type: ignore[attr-defined]
    return pointing, float(score_boxes([said.boxes], [boxes]).iou[0])


def _rows(
    key: str,
    method: str,
    values: np.ndarray,
    order: list[str],
    fraction: list[float],
    findings: list[str],
    recognised: np.ndarray,
) -> list[XbenchRow]:
    names, sizes = np.array(order), size_tertiles(np.array(fraction))

    def row(group: str, chosen: np.ndarray, area: float, together: float = float("nan")) -> XbenchRow:
        pointing, iou = values[chosen].mean(0).tolist()
        return XbenchRow(key, method, group, int(chosen.sum()), pointing, iou, area, together)

    per_finding = [row(f, names == f, float(area)) for f, area in zip(findings, recognised, strict=True)]
    known = [one for one in per_finding if np.isfinite(one.auroc)]
    together = float("nan")
    # Equals have no ranks, and so no correlation.
    areas, overlaps = [one.auroc for one in known], [one.iou for one in known]
    if len(known) >= _LEAST and len(set(areas)) > 1 and len(set(overlaps)) > 1:
        together = float(spearmanr(areas, overlaps).statistic)
    mean = float(np.mean([one.auroc for one in known])) if known else float("nan")
    by_size = [row(f"{size} evidence", sizes == size, float("nan")) for size in SIZES if (sizes == size).any()]
    return [row("all", np.ones(len(names), bool), mean, together), *by_size, *per_finding]
