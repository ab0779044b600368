"""Training images: phantoms and their counterfactuals on the 224-pixel frame, rendered once and kept on disk."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medground_bench.core.errors import LvlmError
from medground_bench.imaging import Letterbox
from medground_bench.sources.phantom import FINDINGS, sample_phantom
from medground_bench.sources.phantom.sample import Phantom

from .text import response, responses

__all__ = ["CELLS", "SIDE", "Pool", "draw_size", "frame", "render_pool"]

SIDE = 224
"""Side of the frame, pixels."""
CELLS = 56
"""Side of the stored masks: a cell is 4 x 4 pixels of the frame."""
PLANTED = 0.4
"""Share of the training phantoms that carry a given finding."""

_Image = tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int8]]


@dataclass(frozen=True)
class Pool:
    """Rendered training images.

    Attributes
    ----------
    frames : uint8 array (N, 224, 224)
    masks : bool array, packed (N, findings, CELLS * CELLS / 8)
        Where each finding is, on the frame.
    cases : int8 array (N, findings)
        Index into ``responses(attribute, "reason")``; 0 where the finding is absent.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    cases: NDArray[np.int8]

    def unpacked(self, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Masks (n, findings, CELLS, CELLS) of some images."""
        bits = np.unpackbits(self.masks[index], axis=-1).astype(bool)
        return bits.reshape(len(index), len(FINDINGS), CELLS, CELLS)


def frame(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Native grey image (H, W) -> letterboxed frame (224, 224), as the LVLM layer does it."""
    from PIL import Image

    height, width = image.shape
    return np.asarray(Letterbox.fit(width, height, SIDE).apply(Image.fromarray(image)))


def draw_size(rng: np.random.Generator) -> tuple[int, int]:
    """Native size of a phantom: mostly the default, else any from 224 to 640 pixels and 3:4 to 4:3."""
    if rng.random() < 0.4:
        return 512, 512
    longer = int(rng.integers(224, 641))
    shorter = round(longer * rng.uniform(0.75, 1.0))
    return (longer, shorter) if rng.random() < 0.5 else (shorter, longer)


def render_pool(
    folder: str | Path,
    images: int,
    seed: int = 0,
    processes: int = 2,
    report: Callable[[int, int], None] | None = None,
) -> Pool:
    """Render the training images, or open them if the same ones are there already.

    Two thirds are phantoms of their own; each second one is followed by its counterfactual, the same chest without
    one of its findings (every eighth: without any).

    Parameters
    ----------
    folder : path
        Where the arrays are kept (50 KB per image).
    images : int
        How many.
    seed : int
        The first phantom's seed is ``seed * 10,000,000``.
    processes : int
        Workers that render.
    report : callable, optional
        Called with (done, total).
    """
    if images < 3:
        raise LvlmError(f"cannot train on {images} images", expected="at least 3")
    folder = Path(folder)
    stem = folder / f"pool-{images}-{seed}"
    paths = [stem.with_name(f"{stem.name}-{part}.npy") for part in ("frames", "masks", "cases")]
    if not all(path.exists() for path in paths):
        _render(paths, images, seed, processes, report)
    frames, masks, cases = (np.load(path, mmap_mode="r") for path in paths)
    return Pool(frames, masks, np.asarray(cases))


def _render(
    paths: list[Path], images: int, seed: int, processes: int, report: Callable[[int, int], None] | None
) -> None:
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    parts = [path.with_suffix(f".{os.getpid()}.part") for path in paths]
    shapes = [(images, SIDE, SIDE), (images, len(FINDINGS), CELLS * CELLS // 8), (images, len(FINDINGS))]
    kinds = [np.uint8, np.uint8, np.int8]
    arrays = [
        np.lib.format.open_memmap(part, mode="w+", dtype=kind, shape=shape)
        for part, kind, shape in zip(parts, kinds, shapes, strict=True)
    ]
    done, base = 0, seed * 10_000_000
    try:
        with multiprocessing.get_context("spawn").Pool(processes) as workers:
            # Every phantom gives at least one image, so that this many seeds are always enough.
            for rendered in workers.imap(_render_seed, range(base, base + images), chunksize=16):
                for pixels, masks, cases in rendered[: images - done]:
                    arrays[0][done], arrays[1][done] = pixels, np.packbits(masks.reshape(len(masks), -1), axis=-1)
                    arrays[2][done] = cases
                    done += 1
                if report:
                    report(done, images)
                if done == images:
                    workers.terminate()
                    break
        for array in arrays:
            array.flush()
        for part, path in zip(parts, paths, strict=True):
            os.replace(part, path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _render_seed(seed: int) -> list[_Image]:
    rng = np.random.default_rng([seed, 1])
    size = draw_size(rng)
    # A quarter is drawn as the phantom itself draws; the rest carry more findings, so that answers are balanced.
    planted = None if rng.random() < 0.25 else [name for name in FINDINGS if rng.random() < PLANTED]
    phantom = sample_phantom(seed, size=size, findings=planted)
    out = [_labelled(phantom)]
    present = [finding.attribute for finding in phantom.findings]
    if present and rng.random() < 0.55:
        removed = None if rng.random() < 0.125 else present[int(rng.integers(len(present)))]
        out.append(_labelled(phantom.without(removed)))
    return out


def _labelled(phantom: Phantom) -> _Image:
    masks = np.zeros((len(FINDINGS), CELLS, CELLS), bool)
    cases = np.zeros(len(FINDINGS), np.int8)
    for finding in phantom.findings:
        index = FINDINGS.index(finding.attribute)
        text = response(finding.attribute, "reason", True, finding.side, finding.location)
        cases[index] = responses(finding.attribute, "reason").index(text)
        coverage = frame(finding.mask.astype(np.uint8) * np.uint8(255)).reshape(CELLS, 4, CELLS, 4).mean((1, 3))
        masks[index] = coverage > 96
    return frame(phantom.image), masks, cases
