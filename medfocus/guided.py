"""The region of a relevance map that is needed and enough: the map proposes, interventions decide.

A search that follows interventions alone ends where the LVLM is most easily misled: on findings planted in radiographs
a box whose sides move to raise its effect drifts away from the evidence (mean IoU of 32 from 0.45 to 0.30). A
relevance map is right about where and vague about how far. So the map's connected parts above a few levels are the only
candidates, and each is removed and shown alone. What comes out is noisy, too: of candidates that differ by a row of
tokens the best is often best by chance. So the one counts that all of them, each as far as it does well, agree with
most: the decision of least expected loss, where the loss is 1 - IoU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medfocus.method import MultiAtlasParameters, make_medfocus
from medfocus.minimal import Region, in_concepts, named_concept
from medground_bench.attribution.fills import FILLS, compose, fill_frame
from medground_bench.attribution.method import Attribution, get_method, method
from medground_bench.attribution.regions import box_masks
from medground_bench.core.errors import MethodError
from medground_bench.imaging import resize_heatmap
from medground_bench.imaging.heatmap import is_degenerate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["GuidedParameters", "agreed", "medfocus_guided", "proposals"]


@dataclass(frozen=True)
class GuidedParameters:
    """Parameters of ``medfocus_guided``.

    Levels, share and price were chosen on 90 records of each toy, fill and temperature on 216 of both (123 planted).

    Attributes
    ----------
    relevance : str
        The method whose heat map proposes regions, with its own defaults.
    levels : tuple of float
        Shares of the map's maximum at which it is cut, each a candidate.
    together : float
        Connected parts of the map that hold at least this share of the largest part's heat belong to the region.
    fill : str
        What removed pixels become. A blur takes away less that has nothing to do with the answer than a flat grey.
    price : float
        What a region that covers the whole frame loses, where an effect of 1 is all that the image does for the answer.
    temperature : float
        Two regions whose effects differ by this much count as e to 1; 0 takes the best region as it is.
    pool : str
        References that name the region, as in ``medfocus_multi_atlas``.
    cache : str
        Folder for localisations, as there.
    """

    relevance: str = "dave"
    levels: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65)
    together: float = 0.3
    fill: str = "blur"
    price: float = 0.5
    temperature: float = 0.4
    pool: str = "phantom"
    cache: str = "user"

    def __post_init__(self) -> None:
        if not self.levels or not all(0 < level < 1 for level in self.levels):
            raise MethodError(f"levels={self.levels} are no shares of a maximum", expected="numbers between 0 and 1")
        if not 0 < self.together <= 1 or self.price < 0 or self.temperature < 0 or self.fill not in FILLS:
            raise MethodError(
                "a parameter of medfocus_guided is out of range",
                expected=f"together in (0, 1], price and temperature at least 0, fill one of {', '.join(FILLS)}",
            )


@method(
    "medfocus_guided",
    family="concept",
    parameters=GuidedParameters,
    needs=("white_box", "geometry", "gradients", "references"),
    cost="9 (F + B) for the map, 18 F; 1 localisation",
    reference="MedFocus's interventions on a relevance map's regions; necessity and sufficiency: DeYoung et al., 2020; "
    "least expected loss: Kumar & Byrne, 2004",
)
def medfocus_guided(lvlm: Lvlm, episode: Episode, parameters: GuidedParameters) -> Attribution:
    """``argmax_R sum_Q p(Q) IoU(R, Q)`` over the regions of a relevance map, p the softmax of what they are worth.

    Worth is ``(n(R) + e(R) - price |R| / |frame|) / temperature``. With s the response's log-probability and
    D = s(x) - s(fill), a region is needed by n = (s(x) - s(x without R)) / D and enough by e = (s(R alone) - s(fill)) /
    D, both cut to [0, 1]. Question-aware. Beside the boxes: the relevance map, the concept that holds most of R, and
    every concept's part of its effect (nats), the drop of every token. ``extras``: ``candidates`` (native boxes,
    n, e), ``passes`` of the interventions. Where the map is empty or the answer does not depend on the image (D <= 0),
    the whole image, marked ``degenerate`` or ``fallback``.
    """
    guide = get_method(parameters.relevance)
    mapped = guide.run(lvlm, episode, guide.make_parameters({}))
    if mapped.heatmap is None:
        raise MethodError(f"{guide.name} makes no heat map", expected="a method with maps, e.g. dave, gim or lrp")
    frame, fill = episode.frame_array, fill_frame(parameters.fill, episode)
    height, width = frame.shape[:2]
    heat = np.maximum(np.asarray(mapped.heatmap, np.float64), 0.0)
    whole = (0.0, 0.0, float(episode.letterbox.width), float(episode.letterbox.height))
    if is_degenerate(heat):
        return Attribution(boxes=[whole], heatmap=mapped.heatmap, degenerate=True)
    regions = proposals(resize_heatmap(heat, (height, width)), parameters.levels, parameters.together)
    masks = np.stack([box_masks(list(region), height, width).any(0) for region in regions])
    everything = np.ones((1, height, width), bool)
    variants = [frame[None], *(compose(frame, removed, fill) for removed in (everything, masks, ~masks))]
    scores = np.asarray(lvlm.log_probs(episode, np.concatenate(variants)), np.float64)
    original, rest = scores[0], scores[2:].sum(1)
    empty, count = scores[1].sum(), len(regions)
    span = original.sum() - empty
    extras: dict[str, Any] = {"relevance": guide.name, "passes": len(scores), "pool": str(parameters.pool)}
    if span <= 0:
        return Attribution(boxes=[whole], heatmap=mapped.heatmap, fallback=True, extras=extras)
    needed = np.clip((original.sum() - rest[:count]) / span, 0, 1)
    enough = np.clip((rest[count:] - empty) / span, 0, 1)
    worth = needed + enough - parameters.price * masks.mean((1, 2))
    best = agreed(masks, worth, parameters.temperature)
    drops = np.maximum(original - scores[2 + best], 0.0)
    procedure = make_medfocus(MultiAtlasParameters(pool=parameters.pool, cache=parameters.cache))
    shares = in_concepts(regions[best], procedure.localizer.localise(np.asarray(episode.image)), episode)
    native = episode.letterbox.to_native
    listed = [[list(box) for box in native(list(region))] for region in regions]
    extras["candidates"] = list(zip(listed, needed.tolist(), enough.tolist(), strict=True))
    return Attribution(
        boxes=native(list(regions[best])),
        heatmap=mapped.heatmap,
        concept=named_concept(shares, max(shares, key=shares.__getitem__)),
        concept_scores={name: share * float(drops.sum()) for name, share in shares.items()},
        token_scores=drops,
        extras=extras,
    )


def agreed(masks: NDArray[np.bool_], worth: NDArray[Any], temperature: float) -> int:
    """The region that has the highest mean IoU with all, weighted by the softmax of what they are worth.

    Parameters
    ----------
    masks : ndarray of bool, shape (n, H, W)
        The regions; none is empty.
    worth : ndarray, shape (n,)
    temperature : float
        What worth is divided by; at 0 the region that is worth most (the first of equals).

    References
    ----------
    .. [1] Kumar & Byrne, Minimum Bayes-Risk Decoding for Statistical Machine Translation, NAACL 2004, eq. 2.
    """
    if temperature == 0:
        return int(np.argmax(worth))
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    shared = flat @ flat.T
    sizes = np.diagonal(shared)
    weights = np.exp((worth - worth.max()) / temperature)
    return int(np.argmax(shared / (sizes[:, None] + sizes - shared) @ weights))


def proposals(heat: NDArray[Any], levels: Sequence[float], together: float) -> list[Region]:
    """Boxes of a map's connected parts (8 neighbours) above each level, as far as they hold enough heat; each once.

    Parameters
    ----------
    heat : ndarray, shape (H, W)
        Not negative, with a maximum above 0.
    levels : sequence of float
        Shares of the maximum.
    together : float
        Least share of the heat of the largest part that a part must hold.
    """
    from scipy.ndimage import find_objects, label

    found: dict[Region, None] = {}
    for level in levels:
        labels, _ = label(heat >= level * heat.max(), np.ones((3, 3)))
        mass = np.bincount(labels.ravel(), heat.ravel())[1:]
        parts = [part for part, heavy in zip(find_objects(labels), mass >= together * mass.max(), strict=True) if heavy]
        found[tuple((float(x.start), float(y.start), float(x.stop), float(y.stop)) for y, x in parts)] = None
    return list(found)
