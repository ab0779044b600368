"""Training images on the 224-pixel frame: phantoms, planted canvases and their counterfactuals, rendered once.

The pool is made of groups of four images of one chest: with several findings, without one of them, with a random half
of them, and without one of that half. Groups of both kinds are mixed; the files grow group by group, rendering goes on
where it stopped, and training may begin on what is there.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medground_bench.core.errors import LvlmError, SourceError
from medground_bench.core.files import atomic_write
from medground_bench.imaging import Letterbox
from medground_bench.sources.phantom import FINDINGS as DRAWN
from medground_bench.sources.phantom import sample_phantom
from medground_bench.sources.planted import DISTRACTORS, FINDINGS, CanvasAnatomy, load_localizer, plant

from .text import place_case

__all__ = [
    "CELLS",
    "FINDINGS",
    "GROUP",
    "SIDE",
    "Chest",
    "Pool",
    "canvases",
    "draw_size",
    "frame",
    "is_held_out",
    "load_canvas",
    "open_pool",
    "render_pool",
    "zone_of",
]

SIDE = 224
"""Side of the frame, pixels."""
CELLS = 32
"""Side of the stored masks: a cell is 7 x 7 pixels of the frame."""
GROUP = 4
"""Images of one chest in the pool."""

_PLANTED = 0.7  # share of the groups that are planted canvases, the others are phantoms
_CHANCE = 0.38  # of each finding to be in a chest


class Chest(Protocol):
    """What phantoms and planted canvases have in common."""

    @property
    def image(self) -> NDArray[np.uint8]: ...
    @property
    def findings(self) -> Sequence[Any]: ...
    @property
    def attributes(self) -> tuple[str, ...]: ...
    def without(self, attribute: str | None = None) -> Chest: ...


@dataclass(frozen=True)
class Pool:
    """Rendered training images, group after group.

    Attributes
    ----------
    frames : uint8 array (N, 224, 224)
    shares : uint8 array (N, findings, CELLS, CELLS)
        How much of each cell a finding covers, of 255.
    cases : int8 array (N, findings)
        Index into ``responses(attribute, "reason")``; 0 where the finding is absent.
    """

    frames: NDArray[np.uint8]
    shares: NDArray[np.uint8]
    cases: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.frames)


# Canvases ----------------------------------------------------------------------------------------------------------


def is_held_out(name: str) -> bool:
    """Whether a canvas of NIH ChestX-ray14 is never trained on: its patient's number is divisible by four.

    >>> is_held_out("00000004_000.jpg"), is_held_out("00000006_011.jpg")
    (True, False)
    """
    return int(name.split("_")[0]) % 4 == 0


def canvases(folder: str | Path, held_out: bool) -> list[Path]:
    """The canvases of a folder, by name: those for training, or the held-out ones.

    Raises
    ------
    LvlmError
        If there is none.
    """
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix in (".jpg", ".png"))
    chosen = [p for p in paths if is_held_out(p.name) is held_out]
    if not chosen:
        raise LvlmError("no canvas", where=folder, expected="NIH ChestX-ray14 images such as 00000006_011.jpg")
    return chosen


def load_canvas(path: Path, cache: str | Path) -> tuple[NDArray[np.uint8], CanvasAnatomy]:
    """Pixels and anatomy of a canvas; localisations are kept in ``cache``."""
    from medground_bench.imaging.read import read_image

    pixels = np.asarray(read_image(path).convert("L"))
    return pixels, CanvasAnatomy(_localizer(str(cache))(pixels))


@lru_cache(maxsize=2)
def _canvas(path: Path, cache: Path) -> tuple[NDArray[np.uint8], CanvasAnatomy]:
    return load_canvas(path, cache)


@lru_cache(maxsize=1)
def _localizer(cache: str) -> Any:
    return load_localizer("multi_atlas", cache=cache)


# Frames ------------------------------------------------------------------------------------------------------------


def frame(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Native grey image (H, W) -> letterboxed frame (224, 224), as the LVLM layer does it."""
    from PIL import Image

    height, width = image.shape
    return np.asarray(Letterbox.fit(width, height, SIDE).apply(Image.fromarray(image)))


def draw_size(rng: np.random.Generator) -> tuple[int, int]:
    """Native size of a phantom: from 224 to 512 pixels, half of them square, the others 3:4 to 4:3."""
    longer = int(rng.integers(224, 513))
    shorter = longer if rng.random() < 0.5 else round(longer * rng.uniform(0.75, 1.0))
    return (longer, shorter) if rng.random() < 0.5 else (shorter, longer)


def zone_of(finding: Any) -> str | None:
    """Third of the lung that a finding's location names, None where it names none."""
    words = str(finding.location).split()
    return next((zone for zone in ("upper", "mid", "lower") if zone in words), None)


def _labelled(chest: Chest) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int8]]:
    shares = np.zeros((len(FINDINGS), CELLS, CELLS), np.uint8)
    cases = np.zeros(len(FINDINGS), np.int8)
    for finding in chest.findings:
        index = FINDINGS.index(finding.attribute)
        cases[index] = place_case(finding.attribute, finding.side, zone_of(finding))
        coverage = frame(finding.mask.astype(np.uint8) * np.uint8(255))
        cell = SIDE // CELLS
        shares[index] = np.rint(coverage.reshape(CELLS, cell, CELLS, cell).mean((1, 3)))
        if not shares[index].any():
            raise SourceError(f"a {finding.attribute} covers nothing of the frame")
    return frame(chest.image), shares, cases


# Rendering ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    number: int
    seed: int
    canvas: Path | None
    cache: Path


def _render_group(job: _Job) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int8]]]:
    try:
        return _drawn(job)
    except SourceError:  # a finding that the image's border cuts off: another draw
        return _render_group(replace(job, number=job.number + 1_000_000))


def _drawn(job: _Job) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int8]]]:
    rng = np.random.default_rng([job.seed, job.number])
    chest = _phantom(job, rng) if job.canvas is None else _planted(job, rng)
    present = [finding.attribute for finding in chest.findings]
    order = [str(name) for name in rng.permutation(present)]
    half = order[: len(order) // 2]
    subsets = (order, order[1:], half, half[1:])
    return [_labelled(_only(chest, subset)) for subset in subsets]


def _only(chest: Chest, kept: Sequence[str]) -> Chest:
    for finding in chest.findings:
        if finding.attribute not in kept:
            chest = chest.without(finding.attribute)
    return chest


def _phantom(job: _Job, rng: np.random.Generator) -> Chest:
    wanted = [name for name in DRAWN if rng.random() < _CHANCE]
    return sample_phantom(job.seed * 10_000_000 + job.number, size=draw_size(rng), findings=wanted)


def _planted(job: _Job, rng: np.random.Generator) -> Chest:
    """A canvas with about five findings, fewer where there is no room for them."""
    from PIL import Image

    assert job.canvas is not None
    pixels, anatomy = _canvas(job.canvas, job.cache)
    side = int(rng.choice([SIDE, SIDE, 320]))
    if side < max(pixels.shape):
        height, width = (round(n * side / max(pixels.shape)) for n in pixels.shape)
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    wanted = [str(name) for name in rng.permutation([name for name in FINDINGS if rng.random() < _CHANCE])]
    things = [str(kind) for kind in DISTRACTORS if rng.random() < 0.15]
    while True:
        try:
            return plant(pixels, anatomy, job.number, findings=wanted, distractors=things)
        except SourceError:
            if not wanted:
                raise
            wanted.pop()


def render_pool(
    folder: str | Path,
    groups: int,
    canvas_folder: str | Path | None,
    localisations: str | Path,
    seed: int = 0,
    processes: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> None:
    """Render the training images, or go on where rendering stopped.

    Parameters
    ----------
    folder : path
        Where the arrays are kept (250 KB per group).
    groups : int
        How many chests, each in four images.
    canvas_folder : path, optional
        NIH radiographs without findings; the held-out ones among them are left alone. Without it all are phantoms.
    localisations : path
        Where the anatomy of the canvases is kept.
    seed : int
        Phantoms have the seeds from ``seed * 10,000,000``.
    processes : int
        Workers that render.
    report : callable, optional
        Called with (groups done, total).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    about = {"groups": groups, "seed": seed, "findings": list(FINDINGS), "planted": _PLANTED if canvas_folder else 0}
    arrays = _arrays(folder, groups, about)
    done = _done(folder)
    paths = canvases(canvas_folder, held_out=False) if canvas_folder else []
    order = np.random.default_rng([seed, 2]).permutation(len(paths))
    jobs = []
    for number in range(done, groups):
        # A canvas is used twice in a row: its anatomy is read once.
        rng = np.random.default_rng([seed, number // 2, 1])
        planted = bool(paths) and rng.random() < _PLANTED
        canvas = paths[order[(number // 2) % len(paths)]] if planted else None
        jobs.append(_Job(number, seed, canvas, Path(localisations)))
    with multiprocessing.get_context("spawn").Pool(processes) as workers:
        for number, images in enumerate(workers.imap(_render_group, jobs, chunksize=4), start=done):
            for place, parts in enumerate(images, start=GROUP * number):
                for array, part in zip(arrays, parts, strict=True):
                    array[place] = part
            if (number + 1) % 50 == 0 or number + 1 == groups:
                for array in arrays:
                    array.flush()
                _write(folder / "done.json", number + 1)
                if report:
                    report(number + 1, groups)


def _write(path: Path, value: Any) -> None:
    with atomic_write(path) as file:
        json.dump(value, file)


def _done(folder: Path) -> int:
    path = folder / "done.json"
    return int(json.loads(path.read_text())) if path.exists() else 0


def _arrays(folder: Path, groups: int, about: dict[str, Any]) -> list[Any]:
    path = folder / "about.json"
    if path.exists() and json.loads(path.read_text()) != about:
        raise LvlmError("the pool in this folder is another one", where=folder, remedy="give another --pool")
    count, kinds = groups * GROUP, len(FINDINGS)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "frames": ((count, SIDE, SIDE), np.uint8),
        "shares": ((count, kinds, CELLS, CELLS), np.uint8),
        "cases": ((count, kinds), np.int8),
    }
    arrays = [
        np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="r+" if path.exists() else "w+", dtype=dtype, shape=shape
        )
        for name, (shape, dtype) in shapes.items()
    ]
    _write(path, about)
    return arrays


def open_pool(folder: str | Path) -> Pool:
    """What has been rendered so far.

    Raises
    ------
    LvlmError
        If there is no pool in the folder.
    """
    folder = Path(folder)
    count = _done(folder) * GROUP
    if not count:
        raise LvlmError("no rendered images", where=folder, remedy="python -m builder_scripts.toy_lvlm render")
    frames, shares, cases = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("frames", "shares", "cases"))
    return Pool(frames[:count], shares[:count], np.asarray(cases[:count]))
