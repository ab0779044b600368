"""Where the anatomical concepts are on a radiograph: the public face of both presets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medfocus.atlas import ReferencePool
from medfocus.cache import LocalisationCache
from medfocus.multi_atlas import MultiAtlasSettings, MultiAtlasTransfer
from medfocus.paper import PaperSettings, PublishedTransfer
from medfocus.refine import refine
from medground_bench.attribution.segmenters import Segmenter, load_segmenter
from medground_bench.core.errors import ImageError, MethodError, nearest
from medground_bench.imaging.read import read_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from medfocus.result import Transfer

__all__ = ["PRESETS", "AnatomyLocalizer", "Preset"]

Preset = Literal["paper", "multi_atlas"]
PRESETS: dict[str, type] = {"paper": PaperSettings, "multi_atlas": MultiAtlasSettings}
_VERSION = 9  # of the algorithm: raise it when cached localisations become wrong


class AnatomyLocalizer:
    """Locates the concepts that a pool covers on any frontal radiograph.

    Parameters
    ----------
    pool : ReferencePool, path or "phantom"
        The references.
    preset : {"multi_atlas", "paper"}
        This project's transfer from many references, or the published one.
    refiner : None, "litemedsam", path, hub id or Segmenter
        Segments every region from its box (see :func:`medground_bench.attribution.segmenters.load_segmenter`);
        None leaves the transferred region.
    settings : mapping, optional
        Settings of the preset to replace, by name.
    cache : path, optional
        Folder in which localisations are kept (:class:`medfocus.cache.LocalisationCache`); None keeps nothing.

    Raises
    ------
    MethodError
        If the preset, a setting or the refiner is unknown.
    AtlasError
        If the pool cannot be read.
    """

    def __init__(
        self,
        pool: ReferencePool | str | Path,
        preset: Preset = "multi_atlas",
        refiner: str | Path | Segmenter | None = None,
        settings: Mapping[str, Any] | None = None,
        cache: str | Path | None = None,
    ) -> None:
        if preset not in PRESETS:
            raise MethodError(f"unknown preset {preset!r}", expected=" or ".join(PRESETS))
        self.pool = ReferencePool.open(pool)
        self.preset = preset
        self.settings = _settings(preset, settings or {})
        self._refiner_spec = refiner
        self._refiner: Segmenter | None = None
        if refiner is not None and not isinstance(refiner, (str, Path)):
            self._refiner = load_segmenter(refiner)
        self._cache = None if cache is None else LocalisationCache(cache)
        self._strategy: PublishedTransfer | MultiAtlasTransfer | None = None

    def locate(self, image: Image | np.ndarray | str | Path) -> dict[str, list[float]]:
        """Boxes of the concepts that the pool covers.

        Parameters
        ----------
        image : PIL image, ndarray or path
            A frontal radiograph of any size: (h, w) or (h, w, 3) of any type, or a file that
            :func:`medground_bench.imaging.read.read_image` reads.

        Returns
        -------
        dict of str to [x1, y1, x2, y2]
            Native pixels, half-open. A concept that lies wholly outside the image is left out.

        Raises
        ------
        ImageError
            If it is not a grey radiograph.
        """
        return {concept: list(box) for concept, box in self.localise(image).boxes.items()}

    def localise(self, image: Image | np.ndarray | str | Path) -> Transfer:
        """As :meth:`locate`, with masks, the reference and diagnostics; from the cache when it is there."""
        grey = _grey(image)
        if self._cache is None:
            return self._compute(grey)
        key = self.key(grey)
        known = self._cache.get(key)
        if known is None:
            known = self._compute(grey)
            self._cache.put(key, known)
        return known

    def key(self, grey: np.ndarray) -> str:
        """What the result depends on: the pixels, the pool, the preset with its settings, and the refiner."""
        refiner = self._segmenter()
        parts = {
            "version": _VERSION,
            "pool": self.pool.fingerprint,
            "preset": self.preset,
            "settings": dataclasses.asdict(self.settings),
            "refiner": None if refiner is None else refiner.name,
            "image": [list(grey.shape), str(grey.dtype), hashlib.sha256(grey.tobytes()).hexdigest()],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _segmenter(self) -> Segmenter | None:
        if self._refiner is None and self._refiner_spec is not None:
            self._refiner = load_segmenter(self._refiner_spec)
        return self._refiner

    def _compute(self, grey: np.ndarray) -> Transfer:
        if self._strategy is None:
            kind: Any = PublishedTransfer if self.preset == "paper" else MultiAtlasTransfer
            self._strategy = kind(self.pool, self.settings)
        transfer = self._strategy.run(grey)
        segmenter = self._segmenter()
        return (
            transfer
            if segmenter is None
            else refine(grey, transfer, segmenter, self.settings.enlarge, self.settings.agreement)
        )


def _settings(preset: str, overrides: Mapping[str, Any]) -> Any:
    kind = PRESETS[preset]
    names = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(set(overrides) - set(names))
    if unknown:
        raise MethodError(
            f"preset {preset!r} has no setting {', '.join(unknown)}",
            expected=", ".join(names),
            remedy=nearest(unknown[0], names),
        )
    return kind(**overrides)


def _grey(image: Any) -> np.ndarray:
    """Any radiograph -> (h, w) grey array."""
    if isinstance(image, (str, Path)):
        return np.asarray(read_image(image))
    if not isinstance(image, np.ndarray):
        try:
            from PIL import Image

            if isinstance(image, Image.Image):
                wide = image.mode in ("RGB", "RGBA", "P", "LA", "CMYK", "YCbCr", "1")
                image = image.convert("L") if wide else image
            image = np.asarray(image)
        except (TypeError, ValueError) as error:
            raise ImageError(f"{type(image).__name__} is not an image") from error
    if image.ndim == 3 and image.shape[2] in (3, 4):
        image = image[..., :3].mean(-1)
    if image.ndim != 2 or 0 in image.shape or image.dtype.kind not in "buif" or not np.isfinite(image).all():
        raise ImageError(
            f"an array of shape {image.shape} and type {image.dtype} is not a grey radiograph",
            expected="finite numbers, (height, width) or (height, width, 3)",
        )
    return image.astype(np.uint8) if image.dtype == bool else image
