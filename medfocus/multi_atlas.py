"""Concept transfer from many references: register, transport position and appearance, vote.

1. Every reference is registered to the target by an affine map (:mod:`medfocus.register`).
2. Unbalanced transport between the registered reference and the target, over position and local contrast together
   (:mod:`medfocus.lifted`), corrects what an affine map cannot: labels follow tissue that looks alike nearby.
3. A concept known by its pixels is carried as a label; one known by a box only is moved by the affine motion that
   best fits the transport's displacements around it.
4. The references vote, weighted by how well they correlate; the vote's half-way contour is the region.
5. The heart's borders are taken from the radiograph itself (:mod:`medfocus.heart`).

The confidence is how far the voters agree on the lungs, times how much of their lungs finds its like there: on half a
chest, or one upside down, they may well agree.

Nothing is trained. The settings were chosen on the plateau of a small search over lung boxes of open radiographs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from medfocus.appearance import SIDE, View, shrink, view_of
from medfocus.heart import measure_heart
from medfocus.lifted import LiftedPlan, lift, solve_lifted_uot
from medfocus.regions import covered, crossing_box
from medfocus.register import Alignment, ReferenceStack, sample
from medfocus.result import FRAME, Found, Transfer
from medground_bench.core.anatomy import CONCEPTS
from medground_bench.core.schema import Box
from medground_bench.imaging.letterbox import Letterbox

if TYPE_CHECKING:
    from medfocus.atlas import Reference, ReferencePool

__all__ = ["MultiAtlasSettings", "MultiAtlasTransfer"]

_GRID = 56
_STEP = SIDE // _GRID
_MARGIN = 3.0  # cells around a box whose displacements move it


@dataclass(frozen=True)
class MultiAtlasSettings:
    """Settings of the preset.

    Attributes
    ----------
    references : int
        The best-correlated references that vote, at most.
    sharpness : float
        A vote weighs correlation to this power.
    reach, tone : float
        Distance in 1/56 of the view, and difference of local contrast, at which transport costs 1.
    marginal : float
        Weight of the transport's marginal penalties.
    bins : int
        Bins of the contrast axis.
    level, box_level : float
        Share of the vote at which a region ends, for concepts known by pixels and by boxes.
    enlarge : float
        Factor on a region's box before it becomes a segmenter's prompt.
    agreement : float
        Least IoU of the refined and the transferred box for the refined one to be taken: a segmenter that finds
        another object (a hilum's vessel, a rib for a clavicle) is not believed.
    transport : bool
        False votes with the registered references alone (ablation).
    heart : bool
        False leaves the heart as it was voted (ablation).
    """

    references: int = 8
    sharpness: float = 4.0
    reach: float = 1.5
    tone: float = 0.6
    marginal: float = 1.0
    bins: int = 8
    level: float = 0.45
    box_level: float = 0.5
    enlarge: float = 1.05
    agreement: float = 0.75
    transport: bool = True
    heart: bool = True


class MultiAtlasTransfer:
    """All references are registered to the target; the best carry their concepts and vote."""

    def __init__(self, pool: ReferencePool, settings: MultiAtlasSettings) -> None:
        self.pool = pool
        self.settings = settings
        self._views = [view_of(reference.image) for reference in pool]
        self._stack = ReferenceStack(self._views)
        self._contrast = shrink(self._stack.contrast, _GRID)
        self._valid = shrink(self._stack.valid, _GRID)
        self._regions = [_grid_regions(r, v) for r, v in zip(pool, self._views, strict=True)]
        self._own = [self._own_match(index) for index in range(len(pool))]

    def run(self, image: np.ndarray) -> Transfer:
        """Regions of every concept of the pool on a grey image."""
        target = view_of(image)
        alignment = self._stack.align(target)
        order = np.argsort(-alignment.scores, kind="stable")
        voters = {concept: self._voters(concept, order) for concept in self.pool.concepts}
        used = sorted({index for chosen in voters.values() for index in chosen})
        votes, arrived = self._votes(target, alignment, used)
        weights = _frame_weights(target, image.shape)
        valid = shrink(target.valid, _GRID)
        found: dict[str, Found] = {}
        agreement: dict[str, float] = {}
        for concept in self.pool.concepts:
            vote, level = self._tally(concept, voters[concept], votes, alignment)
            vote = vote * valid
            region = self._outline(vote, level, target, weights)
            if region is not None:
                found[concept] = region
                agreement[concept] = self._agreement(concept, vote, level, voters[concept], votes, alignment)
        voted = Transfer(
            {concept: found[concept] for concept in CONCEPTS if concept in found},
            reference=self.pool[int(order[0])].name,
            details={
                "correlation": float(alignment.scores[order[0]]),
                "voters": [self.pool[int(index)].name for index in order[: self.settings.references]],
                "inverted": alignment.inverted,
                "agreement": agreement,
                "confidence": self._confidence(agreement, voters, votes, arrived, alignment),
            },
        )
        return measure_heart(image, voted, inverted=alignment.inverted) if self.settings.heart else voted

    def _voters(self, concept: str, order: np.ndarray) -> list[int]:
        covering = [int(index) for index in order if concept in self.pool[int(index)].concepts]
        return covering[: self.settings.references]

    def _weights(self, voters: list[int], alignment: Alignment) -> np.ndarray:
        weights: np.ndarray = np.maximum(alignment.scores[voters], 0.0) ** self.settings.sharpness
        if not weights.sum() > 0:  # nothing correlates (a blank image): all references count the same
            weights = np.ones(len(voters))
        return weights / weights.sum()

    def _agreement(
        self,
        concept: str,
        vote: np.ndarray,
        level: float,
        voters: list[int],
        votes: dict[tuple[int, str], np.ndarray],
        alignment: Alignment,
    ) -> float:
        """Mean IoU of every voter's own box with the one that was voted, weighted as the votes."""
        whole = crossing_box(vote, min(level, 0.5 * float(vote.max())))
        each = [crossing_box(votes[i, concept], 0.5 * float(votes[i, concept].max())) for i in voters]
        overlaps = [0.0 if box is None or whole is None else _iou(box, whole) for box in each]
        return float(np.dot(self._weights(voters, alignment), overlaps))

    def _confidence(
        self,
        agreement: dict[str, float],
        voters: dict[str, list[int]],
        votes: dict[tuple[int, str], np.ndarray],
        arrived: dict[int, np.ndarray],
        alignment: Alignment,
    ) -> float:
        """How far the references agree on the lungs, times the share of their lungs that finds its like there.

        The share is the mass that transport carries from a reference's lung, of what it carries onto the reference
        itself, at the same size. Lungs' outlines say most; all concepts count where no lung is known.
        """
        said: list[str] = [name for name in ("left lung", "right lung") if name in agreement] or list(agreement)
        if not said:
            return 0.0
        stretch = np.abs(np.linalg.det(alignment.maps[:, :, :2]))  # of the target's areas on every reference
        matched = [
            np.dot(
                self._weights(voters[name], alignment),
                [float((votes[i, name] * arrived[i]).sum()) * stretch[i] / self._own[i][name] for i in voters[name]],
            )
            for name in said
        ]
        return float(np.mean([agreement[name] for name in said]) * min(np.mean(matched), 1.0))

    def _tally(
        self, concept: str, voters: list[int], votes: dict[tuple[int, str], np.ndarray], alignment: Alignment
    ) -> tuple[np.ndarray, float]:
        """Weighted mean of the votes, and the level at which the region ends."""
        weights = self._weights(voters, alignment)
        vote = sum(weight * votes[index, concept] for weight, index in zip(weights, voters, strict=True))
        by_pixels = sum(w for w, i in zip(weights, voters, strict=True) if concept in self.pool[i].masks)
        s = self.settings
        return np.asarray(vote), float(s.level * by_pixels + s.box_level * (1 - by_pixels))

    def _votes(
        self, target: View, alignment: Alignment, used: list[int]
    ) -> tuple[dict[tuple[int, str], np.ndarray], dict[int, np.ndarray]]:
        """(reference, concept) -> where the concept lies on the target, (56, 56) in [0, 1].

        And for every reference the mass that reaches each of the target's cells; 1 without transport.
        """
        maps = alignment.maps[used].copy()
        maps[:, :, 2] /= _STEP
        names = [list(self._regions[index]) for index in used]
        depth = max(map(len, names))
        layers = np.zeros((len(used), _GRID, _GRID, 2 + depth), np.float32)
        for row, index in enumerate(used):
            layers[row, ..., 0], layers[row, ..., 1] = self._contrast[index], self._valid[index]
            for k, concept in enumerate(names[row]):
                layers[row, ..., 2 + k] = self._regions[index][concept]
        warped = sample(layers, maps, _GRID)
        regions = np.moveaxis(warped[..., 2:], -1, 1)
        sign = -1.0 if alignment.inverted else 1.0
        plan = self._plan(
            warped[..., 0], warped[..., 1], sign * shrink(target.contrast, _GRID), shrink(target.valid, _GRID)
        )
        if plan is not None:
            regions = plan.labels(regions)
        votes = {(index, c): regions[row, k] for row, index in enumerate(used) for k, c in enumerate(names[row])}
        arrived = np.ones((len(used), _GRID, _GRID)) if plan is None else plan.arrived
        return votes | self._box_votes(used, alignment, plan), dict(zip(used, arrived, strict=True))

    def _plan(
        self, contrast: np.ndarray, valid: np.ndarray, target: np.ndarray, target_valid: np.ndarray
    ) -> LiftedPlan | None:
        s = self.settings
        if not s.transport:
            return None
        return solve_lifted_uot(
            lift(contrast, valid, s.bins),
            lift(target, target_valid, s.bins),
            reach=s.reach,
            tone=s.tone,
            marginal=s.marginal,
        )

    def _own_match(self, index: int) -> dict[str, float]:
        """Mass that every concept of a reference is reached by from the reference itself."""
        reference, contrast, valid = self.pool[index], self._contrast[index], self._valid[index]
        plan = self._plan(contrast[None], valid[None], contrast, valid)
        arrived = 1.0 if plan is None else plan.arrived[0]
        known = self._regions[index]
        by_box = {
            c: shrink(self._views[index].region(reference.region(c)), _GRID) for c in set(reference.boxes) - set(known)
        }
        return {c: max(float((region * arrived).sum()), 1e-9) for c, region in (known | by_box).items()}

    def _box_votes(
        self, used: list[int], alignment: Alignment, plan: LiftedPlan | None
    ) -> dict[tuple[int, str], np.ndarray]:
        by_box = any(set(self.pool[index].boxes) - set(self.pool[index].masks) for index in used)
        moves = plan.moves() if plan is not None and by_box else None
        votes = {}
        for row, index in enumerate(used):
            for concept, box in self.pool[index].boxes.items():
                if concept in self.pool[index].masks:
                    continue
                placed = alignment.box(index, self._views[index].from_native(box))
                cells = (placed[0] / _STEP, placed[1] / _STEP, placed[2] / _STEP, placed[3] / _STEP)
                if moves is not None:
                    cells = _moved(cells, moves[0][row], moves[1][row])
                votes[index, concept] = covered(cells, _GRID)
        return votes

    def _outline(
        self, vote: np.ndarray, level: float, target: View, weights: tuple[np.ndarray, np.ndarray]
    ) -> Found | None:
        """The region where the vote passes the level; a small concept that never does ends half-way up its peak."""
        peak = float(vote.max())
        if peak <= 0:  # registered wholly off the image: it is not shown
            return None
        level = min(level, 0.5 * peak)
        box = crossing_box(vote, level)
        assert box is not None  # the peak is above the level
        native = target.to_native((box[0] * _STEP, box[1] * _STEP, box[2] * _STEP, box[3] * _STEP))
        return Found(native, weights[0] @ vote.astype(np.float32) @ weights[1] >= level)


def _iou(one: Box, two: Box) -> float:
    width, height = min(one[2], two[2]) - max(one[0], two[0]), min(one[3], two[3]) - max(one[1], two[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one, two)]
    return shared / max(sum(areas) - shared, 1e-9)


def _grid_regions(reference: Reference, view: View) -> dict[str, np.ndarray]:
    """The concepts known by pixels on the working grid."""
    return {c: shrink(view.region(reference.region(c)), _GRID) for c in reference.masks}


def _moved(box: Box, moves: np.ndarray, mass: np.ndarray) -> Box:
    """A box under the scale and shift per axis that best fit the displacements in and around it."""
    x1, y1, x2, y2 = box
    height, width = mass.shape
    y, x = np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij")
    near = (x > x1 - _MARGIN) & (x < x2 + _MARGIN) & (y > y1 - _MARGIN) & (y < y2 + _MARGIN)
    weight = mass * near
    total = float(weight.sum())
    if not total > 0:
        return box
    edges = []
    for axis, move, low, high in ((x, moves[1], x1, x2), (y, moves[0], y1, y2)):
        centre = float((weight * axis).sum() / total)
        shift = float((weight * move).sum() / total)
        slope = float((weight * (axis - centre) * (move - shift)).sum())
        slope /= float((weight * (axis - centre) ** 2).sum()) + 1e-9
        edges.append([edge + shift + slope * (edge - centre) for edge in (low, high)])
    (a, c), (b, d) = edges
    return (a, b, c, d) if a < c and b < d else box


def _frame_weights(target: View, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What takes a vote to the letterboxed 224-pixel frame of the native image: (224, 56) down and (56, 224) across."""
    view, letterbox = target.letterbox, Letterbox.fit(shape[1], shape[0], FRAME)
    edge = np.arange(FRAME) + 0.5
    weights = []
    for axis in (1, 0):
        at = (edge - letterbox.content[axis]) / letterbox.scale[axis]
        at = (at - target.offset[axis]) * view.scale[axis] + view.content[axis]
        pick = np.clip((at * FRAME / SIDE).astype(int), 0, FRAME - 1)
        weights.append(_enlarging()[pick] * ((at >= 0) & (at < SIDE))[:, None])
    return weights[0], weights[1].T


@cache
def _enlarging() -> np.ndarray:
    """Bilinear interpolation from the grid to the frame as a matrix, (224, 56)."""
    from PIL import Image

    cells = Image.fromarray(np.eye(_GRID, dtype=np.float32))
    return np.asarray(cells.resize((_GRID, FRAME), Image.Resampling.BILINEAR))
