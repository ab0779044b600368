"""Concept transfer exactly as published: one reference, one transport of intensities (paper, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from medfocus.appearance import as_uint8
from medfocus.regions import mass_set, tight_box
from medfocus.result import FRAME, Found, Transfer
from medfocus.uot import image_weights, solve_grid_uot, solve_grid_uot_by_pot
from medground_bench.core.errors import MethodError
from medground_bench.imaging.letterbox import Letterbox

if TYPE_CHECKING:
    from medfocus.atlas import ReferencePool

__all__ = ["PaperSettings", "PublishedTransfer"]


@dataclass(frozen=True)
class PaperSettings:
    """The published numbers.

    Attributes
    ----------
    select_grid, transfer_grid : int
        Cells per side for choosing the reference and for transferring the concepts.
    epsilon, marginal : float
        Entropic and marginal weights of the transport.
    share : float
        Share of a concept's transferred mass that its region holds.
    enlarge : float
        Factor on a region's box before it becomes a segmenter's prompt.
    agreement : float
        Least IoU of the refined and the transferred box for the refined one to be taken.
    solver : {"grid", "pot"}
        This project's solver, which never forms the plan, or POT's dense one: the same regions, some 200 times slower.
    """

    select_grid: int = 14
    transfer_grid: int = 56
    epsilon: float = 0.05
    marginal: float = 0.1
    share: float = 0.75
    enlarge: float = 1.0
    agreement: float = 0.0
    solver: str = "grid"


class PublishedTransfer:
    """The reference of least transport cost carries its concepts to the target."""

    def __init__(self, pool: ReferencePool, settings: PaperSettings) -> None:
        self.pool = pool
        self.settings = settings
        for grid in (settings.select_grid, settings.transfer_grid):
            if grid < 1 or FRAME % grid:
                raise MethodError(f"a grid of {grid} cells does not divide the frame", expected=f"a divisor of {FRAME}")
        if settings.solver not in ("grid", "pot"):
            raise MethodError(f"unknown solver {settings.solver!r}", expected="grid or pot")
        self._frames = [_frame(reference.image) for reference in pool]
        self._coarse = np.stack([image_weights(frame, settings.select_grid) for frame in self._frames])
        self._fine: dict[int, tuple[np.ndarray, tuple[str, ...], np.ndarray]] = {}

    def run(self, image: np.ndarray) -> Transfer:
        """Regions of every concept of the chosen reference on a grey image."""
        s = self.settings
        frame, letterbox = _frame(image), Letterbox.fit(image.shape[1], image.shape[0], FRAME)
        costs = self._costs(image_weights(frame, s.select_grid))
        chosen = int(np.argmin(costs))
        weights, concepts, masks = self._reference(chosen)
        solve = solve_grid_uot if s.solver == "grid" else solve_grid_uot_by_pot
        plan = solve(weights, image_weights(frame, s.transfer_grid), s.epsilon, s.marginal)
        regions = mass_set(plan.push(masks), s.share)
        found, blank = {}, []
        for concept, region, mask in zip(concepts, regions, masks, strict=True):
            if not region.any():
                region = mask > 0  # nothing arrived (a blank image): the reference's own place is all that is known
                blank.append(concept)
            box = tight_box(region)
            assert box is not None  # a region is never empty
            step = FRAME / s.transfer_grid
            native = letterbox.to_native([(box[0] * step, box[1] * step, box[2] * step, box[3] * step)])
            if native:  # a region that lies wholly in the padding shows nothing of the image
                found[concept] = Found(native[0], np.kron(region, np.ones((int(step), int(step)))).astype(bool))
        return Transfer(
            found,
            reference=self.pool[chosen].name,
            details={"mass": plan.mass, "converged": bool(plan.converged), "untransported": blank},
        )

    def _costs(self, target: np.ndarray) -> np.ndarray:
        """Cost in squared cells from every reference: the published rule. A target without mass costs 0 everywhere."""
        s = self.settings
        if s.solver == "grid":
            plan = solve_grid_uot(self._coarse, target, s.epsilon, s.marginal)
            return np.asarray(plan.cost) * np.asarray(plan.scale)
        plans = [solve_grid_uot_by_pot(reference, target, s.epsilon, s.marginal) for reference in self._coarse]
        return np.array([plan.cost * plan.scale for plan in plans])

    def _reference(self, index: int) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
        if index not in self._fine:
            grid, reference = self.settings.transfer_grid, self.pool[index]
            masks = [_cells(reference.region(concept), grid) for concept in reference.concepts]
            weights = image_weights(self._frames[index], grid)
            self._fine[index] = (weights, reference.concepts, np.stack(masks).astype(float))
        return self._fine[index]


def _frame(image: np.ndarray) -> np.ndarray:
    """The 8-bit frame that the LVLM sees. In floating point, bicubic overshoot would give the padding weight."""
    height, width = image.shape
    return np.asarray(Letterbox.fit(width, height, FRAME).apply(Image.fromarray(as_uint8(image))))


def _cells(region: np.ndarray, grid: int) -> np.ndarray:
    """Grid cells of a native region: those that it covers by half, for a thin one all that it touches."""
    height, width = region.shape
    letterbox = Letterbox.fit(width, height, FRAME)
    x1, y1, x2, y2 = letterbox.content
    frame = np.zeros((FRAME, FRAME), np.float32)
    frame[y1:y2, x1:x2] = np.asarray(Image.fromarray(region).resize((x2 - x1, y2 - y1), Image.Resampling.BOX))
    step = FRAME // grid
    share = frame.reshape(grid, step, grid, step).mean((1, 3))
    return share >= 0.5 if (share >= 0.5).any() else share > 0
