"""The region of a relevance map that the answer needs: the map proposes, interventions weigh.

A search that follows interventions alone ends where the LVLM is most easily misled: on findings planted in radiographs
a box whose sides move to raise its effect drifts away from the evidence (mean IoU of 32 from 0.45 to 0.30). A
relevance map is right about where and vague about how far. So the map's connected parts above a few levels are the only
candidates, and each is removed, in two ways, since each leaves traces of its own. What comes out is noisy, too: of
candidates that differ by a row of tokens the best is often best by chance. So the one counts that all of them, each as
far as it does well, agree with most: the decision of least expected loss, where the loss is 1 - IoU. The agreement does
nearly all of it: on records that nothing was chosen on (docs/results.md) IoU is within 0.012 of this where all
candidates count the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medfocus.method import MultiAtlasParameters, make_medfocus
from medfocus.minimal import in_concepts, named_concept
from medground_bench.attribution.fills import AROUND, FILLS, remove
from medground_bench.attribution.method import Attribution, get_method, method
from medground_bench.attribution.regions import box_masks
from medground_bench.core.errors import MethodError
from medground_bench.core.settings import parse_settings
from medground_bench.imaging import resize_heatmap
from medground_bench.imaging.heatmap import is_degenerate
from medground_bench.imaging.levels import LEVELS, TOGETHER, agreed, level_regions

if TYPE_CHECKING:
    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["GuidedParameters", "medfocus_guided"]


@dataclass(frozen=True)
class GuidedParameters:
    """Parameters of ``medfocus_guided``.

    Levels and share were chosen with LVLMs that shipped before, what follows them on the first seed with these.

    Attributes
    ----------
    relevance : str
        The method whose heat map proposes regions, and after it any of its parameters, ``NAME=VALUE``, with blanks
        between: ``gim`` is that method with its own defaults.
    levels : tuple of float
        Shares of the map's maximum at which it is cut, each a candidate.
    together : float
        Connected parts of the map that hold at least this share of the largest part's heat belong to the region.
    fills : tuple of str
        What removed pixels become: the names of fills, or ``around``. A blur leaves the finding's shadow and makes no
        edge, a continuation of what is around leaves nothing of it and makes one. The first also stands for the image
        that is gone.
    price : float
        What a region gains by being smaller by the factor e, where an effect of 1 is all that the image does for the
        answer.
    temperature : float
        Two regions whose effects differ by this much count as e to 1; 0 takes the best region as it is.
    pool : str
        References that name the region, as in ``medfocus_multi_atlas``.
    cache : str
        Folder for localisations, as there.
    """

    relevance: str = "dave shifts=2"
    levels: tuple[float, ...] = LEVELS
    together: float = TOGETHER
    fills: tuple[str, ...] = ("blur", AROUND)
    price: float = 0.2
    temperature: float = 0.3
    pool: str = "phantom"
    cache: str = "user"

    def __post_init__(self) -> None:
        if not self.relevance.split():
            raise MethodError("relevance names no method", expected="a method with maps, e.g. dave, gim or lrp")
        if not self.levels or not all(0 < level < 1 for level in self.levels):
            raise MethodError(f"levels={self.levels} are no shares of a maximum", expected="numbers between 0 and 1")
        known = bool(self.fills) and self.fills[0] in FILLS and {*self.fills} <= {*FILLS, AROUND}
        if not 0 < self.together <= 1 or self.price < 0 or self.temperature < 0 or not known:
            raise MethodError(
                "a parameter of medfocus_guided is out of range",
                expected="together in (0, 1], price and temperature at least 0, "
                f"fills of {', '.join(FILLS)} and {AROUND}, the first not {AROUND}",
            )


@method(
    "medfocus_guided",
    family="concept",
    parameters=GuidedParameters,
    needs=("white_box", "geometry", "gradients", "references"),
    cost="25 (F + B) for the map, 18 F; 1 localisation",
    reference="MedFocus's interventions on a relevance map's regions; least expected loss: Kumar & Byrne, 2004",
    signed=True,
)
def medfocus_guided(lvlm: Lvlm, episode: Episode, parameters: GuidedParameters) -> Attribution:
    """``argmax_R sum_Q p(Q) IoU(R, Q)`` over the regions of a relevance map, p the softmax of what they are worth.

    Worth is ``(n(R) - price log(|R| / |frame|)) / temperature``. With s the response's log-probability a region is
    needed by n = (s(x) - s(x without R)) / (s(x) - s(fill)), cut to [0, 1], its mean over the fills. Question-aware.
    Beside the boxes: the relevance map, the concept that holds most of R, and every concept's part of its effect
    (nats), the drop of every token, both by the first fill. ``extras``: ``candidates`` (native boxes, n of every fill),
    ``passes`` of the interventions. Where the map is empty or the answer does not depend on the image (s(x) <=
    s(fill)), the whole image, marked ``degenerate`` or ``fallback``.
    """
    name, *settings = parameters.relevance.split()
    guide = get_method(name)
    overrides = parse_settings("set medfocus_guided.relevance", settings)
    mapped = guide.run(lvlm, episode, guide.make_parameters(overrides))
    if mapped.heatmap is None:
        raise MethodError(f"{guide.name} makes no heat map", expected="a method with maps, e.g. dave, gim or lrp")
    frame = episode.frame_array
    height, width = frame.shape[:2]
    heat = np.maximum(np.asarray(mapped.heatmap, np.float64), 0.0)
    whole = (0.0, 0.0, float(episode.letterbox.width), float(episode.letterbox.height))
    if is_degenerate(heat):
        return Attribution(boxes=[whole], heatmap=mapped.heatmap, degenerate=True)
    regions = level_regions(resize_heatmap(heat, (height, width)), parameters.levels, parameters.together)
    masks = np.stack([box_masks(list(region), height, width).any(0) for region in regions])
    gone = remove(parameters.fills[0], episode, np.ones((1, height, width), bool))
    variants = [frame[None], gone, *(remove(fill, episode, masks) for fill in parameters.fills)]
    scores = np.asarray(lvlm.log_probs(episode, np.concatenate(variants)), np.float64)
    original, rest = scores[0], scores[2:].sum(1).reshape(len(parameters.fills), len(regions))
    span = original.sum() - scores[1].sum()
    extras: dict[str, Any] = {"relevance": guide.name, "passes": len(scores), "pool": str(parameters.pool)}
    if span <= 0:
        return Attribution(boxes=[whole], heatmap=mapped.heatmap, fallback=True, extras=extras)
    needed = np.clip((original.sum() - rest) / span, 0, 1)
    worth = needed.mean(0) - parameters.price * np.log(masks.mean((1, 2)))
    best = agreed(masks, worth, parameters.temperature)
    drops = np.maximum(original - scores[2 + best], 0.0)
    procedure = make_medfocus(MultiAtlasParameters(pool=parameters.pool, cache=parameters.cache))
    shares = in_concepts(regions[best], procedure.localizer.localise(np.asarray(episode.image)), episode)
    native = episode.letterbox.to_native
    listed = [[list(box) for box in native(list(region))] for region in regions]
    extras["candidates"] = list(zip(listed, needed.T.tolist(), strict=True))
    return Attribution(
        boxes=native(list(regions[best])),
        heatmap=mapped.heatmap,
        concept=named_concept(shares, max(shares, key=shares.__getitem__)),
        concept_scores={name: share * float(drops.sum()) for name, share in shares.items()},
        token_scores=drops,
        extras=extras,
    )
