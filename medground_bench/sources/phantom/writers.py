"""Writing phantoms to disk in the layouts of the real sources.

What is written opens with ``sources.open_source(layout, folder)`` and looks to every later step like the real thing:
the same folder tree, file formats, headers and harmless irregularities. Beside the source's own files lies
``phantom.json``, which says from which seed each image was drawn, so that its exact masks and counterfactuals can be
had back (:mod:`medground_bench.sources.phantom.source`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from medground_bench.core.errors import MedGroundError, nearest
from medground_bench.core.files import atomic_folder, atomic_write
from medground_bench.core.processes import end_with_parent
from medground_bench.core.schema import Candidate
from medground_bench.core.versions import VERSION
from medground_bench.sources.phantom.findings import FINDINGS
from medground_bench.sources.phantom.layouts.common import MANIFEST, Drawn, Planted, Written
from medground_bench.sources.phantom.marker import CORNERS
from medground_bench.sources.phantom.sample import SIZES, sample_phantom

__all__ = ["LAYOUTS", "WrittenSource", "image_seed", "write_source"]

LAYOUTS: tuple[str, ...] = ("phantom", "imagenome", "vindr_cxr", "padchest_gr", "nih_cxr14")
"""The layouts that can be written: keys of the sources."""

_FIRST_SEED = 5_000_000_000
_SEEDS = 1_000_000
_FAINT = (0.35, 0.65)
"""Of the usual contrast: of such findings the toys overlook some, some fall at the later gates, and some pass."""


@dataclass(frozen=True)
class WrittenSource:
    """What was written, and what must be read back.

    Attributes
    ----------
    layout : str
        Key of the source.
    root : Path
        The source's folder.
    candidates : tuple of Candidate
        Exactly what ``open_source(layout, root)`` has to enumerate.
    images : dict of str to Path
        Every image written (those without findings too), by image id.
    seeds : dict of str to int
        The seed each image was drawn from.
    """

    layout: str
    root: Path
    candidates: tuple[Candidate, ...]
    images: dict[str, Path]
    seeds: dict[str, int]


def image_seed(seed: int, number: int) -> int:
    """Seed of the ``number``-th image of a set; apart from small seeds, which training data uses."""
    return _FIRST_SEED + seed * _SEEDS + number


def write_source(
    layout: str,
    out: str | Path,
    count: int,
    *,
    seed: int = 0,
    size: int | tuple[int, int] | None = 512,
    findings: Sequence[str] | None = None,
    markers: bool = False,
    faint: float = 0.0,
    num_proc: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> WrittenSource:
    """Draw ``count`` phantoms and write them in the layout of a source.

    Parameters
    ----------
    layout : str
        One of :data:`LAYOUTS`.
    out : path
        The folder to make. A folder that was written by this function before is replaced; anything else that is not
        empty is refused.
    count : int
        Number of images, findings or not.
    seed : int
        Chooses the set; two sets of different seeds share no image.
    size : int, (width, height) or None
        Pixels. None draws another size and shape for every image (224 to 640 pixels, 4:5 to 5:4).
    findings : sequence of str, optional
        Plants exactly these in every image; by default they are drawn at random, and every eighth image is normal.
    markers : bool
        Stamp a marker that no question asks about into a corner of every image: what a model that answers by a
        shortcut may have learnt to look at.
    faint : float
        Share of the images whose findings have a contrast from 0.35 to 0.65 of the usual: what a model may overlook,
        or see for another reason. The other images are the same without it.
    num_proc : int
        Number of processes that draw.
    progress : callable, optional
        Called with (done, total, image id).

    Raises
    ------
    MedGroundError
        If the layout, count, size or share is not one, or ``out`` holds other files.
    """
    if layout not in LAYOUTS:
        raise MedGroundError(
            f"unknown layout {layout!r}", expected="one of " + ", ".join(LAYOUTS), remedy=nearest(layout, LAYOUTS)
        )
    if not 1 <= count <= _SEEDS:
        raise MedGroundError(f"a set of {count} images", expected=f"from 1 to {_SEEDS:,}")
    if seed < 0:
        raise MedGroundError(f"seed {seed} is negative", expected="an integer from 0")
    if not 0 <= faint <= 1:
        raise MedGroundError(f"{faint} of the images with faint findings", expected="a share from 0 to 1")
    out = Path(out).absolute()
    _refuse_foreign(out)
    with atomic_folder(out) as folder:
        draw = partial(_draw, layout, folder, seed, size, None if findings is None else tuple(findings), markers, faint)
        drawn = []
        for done, one in enumerate(_map(draw, count, num_proc), 1):
            drawn.append(one)
            if progress is not None:
                progress(done, count, one.image_id)
        written: Written = import_module(f"medground_bench.sources.phantom.layouts.{layout}").write_tables(
            folder, drawn
        )
        _write_manifest(folder, layout, seed, drawn, written)
    candidates = tuple(
        replace(c, image_path=(out / c.image_path.relative_to(folder)).resolve()) for c in written.candidates
    )
    images = {d.image_id: out / d.file for d in drawn}
    return WrittenSource(layout, out, candidates, images, {d.image_id: d.seed for d in drawn})


def _map(draw: Callable[[int], Drawn], count: int, num_proc: int) -> Any:
    """``map(draw, range(count))`` in this process or several."""
    context: AbstractContextManager[Any] = (
        ProcessPoolExecutor(num_proc, initializer=end_with_parent) if num_proc > 1 else nullcontext()
    )
    with context as pool:
        if pool is None:
            yield from map(draw, range(count))
            return
        try:
            yield from pool.map(draw, range(count), chunksize=4)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _draw(
    layout: str,
    folder: Path,
    seed: int,
    size: int | tuple[int, int] | None,
    findings: tuple[str, ...] | None,
    markers: bool,
    faint: float,
    number: int,
) -> Drawn:
    """Draw one phantom, write its image, return what the annotations need."""
    module = import_module(f"medground_bench.sources.phantom.layouts.{layout}")
    own = image_seed(seed, number)
    if findings is None and number % 8 == 5:
        findings = ()
    marker = CORNERS[int(np.random.default_rng([own, 2]).integers(len(CORNERS)))] if markers else None
    r = np.random.default_rng([own, 3])
    contrast = float(r.uniform(*_FAINT)) if r.random() < faint else 1.0
    phantom = sample_phantom(
        own, size=_size(own) if size is None else size, findings=findings, marker=marker, contrast=contrast
    )
    image_id, patient, file = module.names(seed, number)
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    module.write_image(phantom, path, number)
    planted = tuple(Planted(f.attribute, f.side, f.location, f.concept, f.boxes) for f in phantom.findings)
    width, height = phantom.size
    anatomy = module.anatomy(phantom) if hasattr(module, "anatomy") else {}
    return Drawn(number, own, image_id, patient, file, width, height, planted, anatomy, marker, contrast)


def _size(seed: int) -> tuple[int, int]:
    r = np.random.default_rng([seed, 1])
    width = int(r.integers(224, 641))
    return width, int(np.clip(round(width * r.uniform(0.8, 1.25)), max(224, SIZES[0]), SIZES[1]))


def _refuse_foreign(out: Path) -> None:
    """A folder of the user's own data is never replaced."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() and not (out / MANIFEST).is_file():
        raise MedGroundError(
            "this folder holds files that are not phantoms",
            where=out,
            expected="a new or empty folder, or one written by 'medground-bench phantom'",
            remedy="choose another folder",
        )


def _write_manifest(folder: Path, layout: str, seed: int, drawn: Sequence[Drawn], written: Written) -> None:

    names: dict[str, dict[str, list[str]]] = {}
    for (image_id, attribute), planted in written.planted.items():
        names.setdefault(image_id, {})[attribute] = sorted(set(planted), key=FINDINGS.index)
    manifest = {
        "format": 1,
        "version": VERSION,
        "layout": layout,
        "seed": seed,
        "images": [
            {
                "image_id": d.image_id,
                "patient_id": d.patient,
                "seed": d.seed,
                "width": d.width,
                "height": d.height,
                "file": d.file,
                **({"marker": d.marker} if d.marker else {}),
                **({"contrast": d.contrast} if d.contrast < 1 else {}),
                "findings": [
                    {
                        "attribute": f.attribute,
                        "side": f.side,
                        "location": f.location,
                        "concept": f.concept,
                        "boxes": [list(box) for box in f.boxes],
                    }
                    for f in d.findings
                ],
                # How the source names the findings, and which of ours are behind each name.
                "names": names.get(d.image_id, {}),
            }
            for d in sorted(drawn, key=lambda d: d.image_id)
        ],
    }
    with atomic_write(folder / MANIFEST) as file:
        json.dump(manifest, file, indent=1)
        file.write("\n")
