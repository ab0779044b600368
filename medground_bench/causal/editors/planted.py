"""The exact counterfactual of planted findings: the canvas's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.causal.editors.base import Editor, EditRequest, image_digest
from medground_bench.core.errors import EditorError, MedGroundError
from medground_bench.core.schema import Candidate
from medground_bench.imaging.read import read_image
from medground_bench.sources import open_source
from medground_bench.sources.planted.source import MANIFEST, PlantedFile, load_planted

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["PlantedEditor"]

_NO = "no "
_EVERYTHING = "abnormality"


class PlantedEditor(Editor):
    """Replaces pixels inside the mask by those of the canvas without the finding.

    ``"No {attribute}"`` takes away that finding, ``"No abnormality"`` all of them, each as far as the mask covers it;
    what else is on the image stays, and a prompt about a finding that is not planted changes nothing. The seed does
    not matter. Which planted image an image is, the editor knows by its content: the filter tells it (:meth:`bind`),
    or it looks through the sets it was given.

    Parameters
    ----------
    source : path or sequence of paths, optional
        Planted sets (folders with ``planted.json``) to look through.

    Raises
    ------
    SourceError
        If a folder holds no planted set.
    """

    name = "planted"
    exact = True

    def __init__(self, source: str | Path | Sequence[str | Path] | None = None) -> None:
        roots = [source] if isinstance(source, str | Path) else list(source or ())
        images = {c.image_path: c for root in roots for c in open_source("planted", root)}
        self._unread: list[Candidate] = list(images.values())
        self._bound: dict[str, Candidate] = {}

    def bind(self, candidate: Candidate, image: Image) -> None:
        if MANIFEST.root_of(candidate.image_path) is not None:
            self._bound[image_digest(image)] = candidate

    def _edit(self, request: EditRequest) -> Image:
        from PIL import Image as pil

        planted = self._find(request)
        text = request.prompt.strip().rstrip(".").lower()
        if not text.startswith(_NO):
            raise EditorError(
                f"prompt {request.prompt!r} is not one the planted editor understands",
                expected='"No {attribute}" or "No abnormality"',
            )
        asked = text[len(_NO) :].strip()
        pixels = np.asarray(request.image)
        grey = pixels if pixels.ndim == 2 else pixels[..., 0]
        if not np.array_equal(grey, planted.image):
            raise EditorError("this image is not the planted one on disk", expected="its unchanged pixels")
        normal = planted.without(None if asked == _EVERYTHING else [a for a in planted.masks if a.lower() == asked])
        changed = request.mask & (grey != normal)
        out = pixels.copy()
        out[changed] = normal[changed] if pixels.ndim == 2 else normal[changed, None]
        return pil.fromarray(out, request.image.mode)

    def _find(self, request: EditRequest) -> PlantedFile:
        digest = request.image_digest
        while digest not in self._bound and self._unread:
            candidate = self._unread.pop(0)
            self.bind(candidate, read_image(candidate.image_path))
        if digest not in self._bound:
            raise EditorError(
                "this image is not a planted one this editor knows",
                expected="the unchanged image of a set written by 'medground-bench plant'",
                remedy="use the planted editor with planted sources only, or give the set with --editor-set source=DIR",
            )
        candidate = self._bound[digest]
        root = MANIFEST.root_of(candidate.image_path)
        assert root is not None  # bind() asked
        try:
            return _load(root, candidate.image_id, MANIFEST.find(root).stat().st_mtime_ns)
        except MedGroundError as error:  # one damaged image does not stop the others
            raise EditorError(error.message, where=error.where, expected=error.expected, remedy=error.remedy) from error


@lru_cache(maxsize=8)
def _load(root: Path, image_id: str, stamp: int) -> PlantedFile:
    """Cached: a causal filter asks for the same image once per finding and edit; ``stamp`` tells a rewritten set."""
    return load_planted(root, image_id)
