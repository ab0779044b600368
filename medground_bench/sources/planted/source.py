"""Planted findings: real radiographs with synthetic findings and exact evidence, written by ``medground-bench plant``.

Files looked for below the root: ``planted.json``, which lists the images, their canvases and their findings, and the
files it names: images, canvases (the images without any finding), and per finding its mask and the pixels that were
there before. Candidates stand in its order: images by number, within an image the findings in the vocabulary's order;
the attribute is the finding's name, the patient is the canvas's, and the boxes are tight around the exact mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medground_bench.core.errors import SourceError
from medground_bench.imaging.read import read_image
from medground_bench.sources._manifest import SetManifest
from medground_bench.sources._tables import field_of, safe_path
from medground_bench.sources.base import Source, SourceInfo

__all__ = ["INFO", "MANIFEST", "PlantedFile", "load_planted", "read"]

MANIFEST = SetManifest("planted.json", "planted", "plant")

INFO = SourceInfo(
    key="planted",
    title="MedGround-Bench planted findings (on radiographs of your own)",
    licence="That of the canvases: a planted image is derived from a radiograph",
    url="(written by medground-bench; there is nothing to download)",
    citation="MedGround-Bench planted findings, drawn by medground_bench.sources.planted; cite the canvases too",
    credentialed=True,  # nothing here knows where the canvases came from: only ids may be published
    obtain="Run 'medground-bench plant --canvas DIR --out DIR --count 100' on a folder of normal frontal radiographs.",
    layout=(MANIFEST.file, "images/<image_id>.png", "canvases/<image_id>.png", "masks/", "without/"),
)


def read(root: Path) -> Source:
    """Enumerate the planted findings below ``root``."""
    return MANIFEST.source(INFO, root)


@dataclass(frozen=True, eq=False)
class PlantedFile:
    """One image of a planted set as its files say it, without drawing it again.

    Attributes
    ----------
    image, canvas : uint8 array, shape (H, W)
        With every finding, and with none (distractors are on both).
    masks : dict of str to bool array, shape (H, W)
        Per finding, in the manifest's order.
    """

    image: NDArray[np.uint8]
    canvas: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]
    _before: dict[str, tuple[tuple[int, int, int, int], NDArray[np.uint8]]]

    def without(self, attributes: Sequence[str] | None = None) -> NDArray[np.uint8]:
        """The image without some findings (all of them when None): the exact counterfactual.

        Raises
        ------
        SourceError
            If several, but not all, are taken away where they lie on each other: that image is in no file.
        """
        gone = list(self.masks) if attributes is None else [a for a in self.masks if a in attributes]
        if len(gone) == len(self.masks):
            return self.canvas
        out = self.image.copy()
        covered = np.zeros(out.shape, bool)
        for attribute in gone:
            mask = self.masks[attribute]
            if (covered & mask).any():
                raise SourceError(f"{', '.join(gone)} lie on each other", expected="one finding, or all of them")
            (x1, y1, x2, y2), before = self._before[attribute]
            part = mask[y1:y2, x1:x2]
            out[y1:y2, x1:x2][part] = before[part]
            covered |= mask
        return out


def load_planted(root: str | Path, image_id: str) -> PlantedFile:
    """Read one image of a planted set with its masks and counterfactuals.

    Raises
    ------
    SourceError
        If there is no such image, or its files do not belong together.
    ImageError
        If a file is missing or damaged.
    """
    root = Path(root)
    entry = MANIFEST.entry(root, image_id)
    where = f"{root / MANIFEST.file}: {image_id}"
    image, canvas = (_pixels(root, entry, key, where) for key in ("file", "canvas_file"))
    masks, before = {}, {}
    for finding in field_of(entry, "findings", list, where):
        attribute = field_of(finding, "attribute", str, where)
        masks[attribute] = _pixels(root, finding, "mask", where) > 127
        window = _window(field_of(finding, "window", list, where), image.shape, where)
        before[attribute] = window, _pixels(root, finding, "without", where)
        x1, y1, x2, y2 = window
        if before[attribute][1].shape != (y2 - y1, x2 - x1):
            raise SourceError(f"the pixels without {attribute} do not fill their window", where=where)
    if any(a.shape != image.shape for a in (canvas, *masks.values())):
        raise SourceError("image, canvas and masks differ in size", where=where, remedy="write the set again")
    if (image != canvas)[~np.any([*masks.values(), np.zeros(image.shape, bool)], axis=0)].any():
        raise SourceError("image and canvas differ outside the masks", where=where, remedy="write the set again")
    return PlantedFile(image, canvas, masks, before)


def _pixels(root: Path, item: Any, key: str, where: str) -> NDArray[np.uint8]:
    return np.asarray(read_image(safe_path(root, field_of(item, key, str, where), where)))


def _window(value: list[Any], shape: tuple[int, ...], where: str) -> tuple[int, int, int, int]:
    if len(value) == 4 and all(isinstance(v, int) for v in value):
        x1, y1, x2, y2 = value
        if 0 <= x1 < x2 <= shape[1] and 0 <= y1 < y2 <= shape[0]:
            return x1, y1, x2, y2
    raise SourceError(f"{value!r} is not a window of the image", where=where, expected="[x1, y1, x2, y2] inside it")
