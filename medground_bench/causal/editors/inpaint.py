"""The classical editor: smooth continuation of the surroundings into the mask, plus their grain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medground_bench.causal.editors.base import Editor, EditRequest
from medground_bench.core.errors import EditorError, MissingDependencyError
from medground_bench.core.versions import distribution_version

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["InpaintEditor"]


class InpaintEditor(Editor):
    """Biharmonic inpainting (scikit-image), solved on a small copy of the image.

    It removes whatever is inside the mask, so the prompt is ignored: an edit of the background blurs all anatomy
    away. It is for machines without weights and for testing the machinery, not for building a benchmark. Pixels
    outside the mask are not touched.

    Parameters
    ----------
    solve_side : int
        Longer side, in pixels, of the copy on which the biharmonic equation is solved: the direct solver's time
        grows steeply with it, and the solution is smooth anyway.
    grain : bool
        Adds the noise of the surroundings (seeded), so that the patch is not conspicuously smooth.

    Raises
    ------
    MissingDependencyError
        If scikit-image is not installed.
    EditorError
        If ``solve_side`` is out of range.
    """

    name = "inpaint"

    def __init__(self, solve_side: int = 96, grain: bool = True) -> None:
        try:
            from skimage.restoration import inpaint_biharmonic
        except ImportError as error:
            raise MissingDependencyError(
                "the editor 'inpaint' needs scikit-image",
                remedy="pip install 'medground-bench[radedit]'",
            ) from error
        if not 16 <= int(solve_side) <= 512:
            raise EditorError(f"solve_side is {solve_side}", expected="16 to 512 pixels")
        self._solve = inpaint_biharmonic
        self._side = int(solve_side)
        self._grain = bool(grain)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "name": self.name,
            "solve_side": self._side,
            "grain": self._grain,
            "scikit-image": distribution_version("scikit-image"),
        }

    def _edit(self, request: EditRequest) -> Image:
        from PIL import Image as pil

        pixels = np.asarray(request.image, np.float32) / 255.0
        channels = pixels[..., None] if pixels.ndim == 2 else pixels
        if request.mask.all():
            raise EditorError(
                "the mask covers the whole image: nothing is left to continue from",
                remedy="use another editor for edits without a kept region",
            )
        filled = channels.copy()
        filled[request.mask] = self._fill(channels, request.mask)[request.mask]
        if self._grain:
            noise = np.random.default_rng(request.seed).standard_normal(request.mask.shape).astype(np.float32)
            filled[request.mask] += (noise * _grain_level(channels.mean(axis=2), request.mask))[request.mask, None]
        out = np.asarray(request.image).copy().reshape(channels.shape)
        out[request.mask] = np.rint(np.clip(filled[request.mask], 0.0, 1.0) * 255.0).astype(np.uint8)
        return pil.fromarray(out.reshape(pixels.shape), request.image.mode)

    def _fill(self, channels: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """The solution over the whole image, (H, W, C): solved small, enlarged bilinearly."""
        from PIL import Image as pil

        height, width = mask.shape
        scale = min(1.0, self._side / max(height, width))
        size = (max(2, round(width * scale)), max(2, round(height * scale)))
        known = ~mask
        # Means over known pixels only, so that nothing of what is to be removed bleeds into its surroundings.
        share = _shrink(known.astype(np.float32), size)
        small = np.stack(
            [_shrink(channels[..., c] * known, size) / np.maximum(share, 1e-6) for c in range(channels.shape[2])], -1
        )
        unknown = share < 1e-3
        if unknown.any():
            low, high = small[~unknown].min(axis=0), small[~unknown].max(axis=0)
            small[unknown] = 0.0
            solved = self._solve(small, unknown, channel_axis=-1)
            small = np.clip(np.asarray(solved, np.float32), low, high)
        layers = [
            np.asarray(
                pil.fromarray(np.ascontiguousarray(small[..., c])).resize((width, height), pil.Resampling.BILINEAR)
            )
            for c in range(small.shape[2])
        ]
        return np.stack(layers, -1).astype(np.float32)


def _shrink(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Area means."""
    from PIL import Image as pil

    return np.asarray(pil.fromarray(np.ascontiguousarray(plane)).resize(size, pil.Resampling.BOX), np.float32)


def _grain_level(plane: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise outside the mask, from the median of diagonal second differences."""
    if min(plane.shape) < 3:
        return 0.0
    detail = plane[:-1, :-1] - plane[1:, :-1] - plane[:-1, 1:] + plane[1:, 1:]
    outside = ~(mask[:-1, :-1] | mask[1:, :-1] | mask[:-1, 1:] | mask[1:, 1:])
    if not outside.any():
        return 0.0
    # Median absolute deviation of a normal variable is 0.6745 sigma; the difference of four has twice the sigma.
    return float(np.median(np.abs(detail[outside])) / 0.6745 / 2.0)
