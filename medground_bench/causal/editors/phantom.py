"""The exact counterfactual: a phantom drawn again without the finding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medground_bench.causal.editors.base import Editor, EditRequest, image_digest
from medground_bench.core.errors import EditorError, SourceError
from medground_bench.core.files import within
from medground_bench.core.schema import Candidate
from medground_bench.core.versions import distribution_version
from medground_bench.imaging.read import read_image
from medground_bench.sources.phantom.source import findings_of, phantom_for, phantom_root

if TYPE_CHECKING:
    from PIL.Image import Image

    from medground_bench.sources.phantom import Phantom

__all__ = ["PhantomEditor"]

_MANIFEST = "phantom.json"
_NO = "no "
_EVERYTHING = "abnormality"


class PhantomEditor(Editor):
    """Replaces pixels inside the mask by those of the same phantom without the finding.

    ``"No {attribute}"`` takes away that attribute's finding, ``"No abnormality"`` all of them, each as far as the mask
    covers it; nothing else changes, and a prompt about a finding the phantom does not have changes nothing. The seed
    does not matter. Which phantom an image is, the editor knows by the image's content: the filter tells it
    (:meth:`bind`), or it looks through the sets it was given.

    Parameters
    ----------
    source : path or sequence of paths, optional
        Phantom sets (folders with ``phantom.json``, any layout) to look through.
    phantoms : iterable of Phantom, optional
        Phantoms in memory.

    Raises
    ------
    EditorError
        If a folder holds no phantom set.
    """

    name = "phantom"
    exact = True

    def __init__(
        self, source: str | Path | Sequence[str | Path] | None = None, phantoms: Iterable[Phantom] = ()
    ) -> None:
        from PIL import Image as pil

        roots = [source] if isinstance(source, str | Path) else list(source or ())
        self._unread: list[Candidate] = [c for root in roots for c in _images(Path(root))]
        self._bound: dict[str, Candidate] = {}
        self._loose = {image_digest(pil.fromarray(np.asarray(p.image), "L")): p for p in phantoms}

    @property
    def settings(self) -> Mapping[str, Any]:
        # Another version of the generator may draw the counterfactual differently.
        return {"name": self.name, "generator": distribution_version("medground-bench") or "unknown"}

    def bind(self, candidate: Candidate, image: Image) -> None:
        if phantom_root(candidate.image_path) is not None:
            self._bound[image_digest(image)] = candidate

    def _edit(self, request: EditRequest) -> Image:
        from PIL import Image as pil

        phantom, origin = self._find(request)
        pixels = np.asarray(request.image)
        drawn, normal = _like(pixels, phantom, _without(phantom, request.prompt, origin))
        changed = request.mask & (drawn != normal)
        out = pixels.copy()
        out[changed] = normal[changed] if pixels.ndim == 2 else normal[changed, None]
        return pil.fromarray(out, request.image.mode)

    def _find(self, request: EditRequest) -> tuple[Phantom, Candidate | None]:
        digest = request.image_digest
        if digest in self._loose:
            return self._loose[digest], None
        while digest not in self._bound and self._unread:
            self._read(self._unread.pop(0))
        if digest not in self._bound:
            raise EditorError(
                "this image is not a phantom this editor knows",
                expected="the unchanged image of a set written by 'medground-bench phantom'",
                remedy="use the phantom editor with phantom sources only, or give the set with --editor-set source=DIR",
            )
        return phantom_for(self._bound[digest]), self._bound[digest]

    def _read(self, candidate: Candidate) -> None:
        self.bind(candidate, read_image(candidate.image_path))


def _without(phantom: Phantom, prompt: str, origin: Candidate | None) -> Phantom:
    """The phantom as the prompt wants it."""
    text = prompt.strip().rstrip(".")
    if not text.lower().startswith(_NO):
        raise EditorError(
            f"prompt {prompt!r} is not one the phantom editor understands",
            expected='"No {attribute}" or "No abnormality"',
        )
    attribute = text[len(_NO) :].strip()
    if attribute.lower() == _EVERYTHING:
        return phantom.without()
    wanted = {name.lower() for name in _findings(attribute, origin)}
    for finding in phantom.attributes:
        if finding.lower() in wanted:
            phantom = phantom.without(finding)
    return phantom


def _findings(attribute: str, origin: Candidate | None) -> tuple[str, ...]:
    """What the phantom calls an attribute of its source's vocabulary."""
    if origin is None:
        return (attribute,)
    try:
        return findings_of(replace(origin, attribute=attribute))
    except SourceError:  # a finding this phantom does not have: there is nothing to take away
        return ()


def _like(pixels: NDArray[np.uint8], phantom: Phantom, other: Phantom) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both phantoms on the grey scale of the image as it was read (files above 8 bits are stretched on reading)."""
    grey = pixels if pixels.ndim == 2 else pixels[..., 0]
    drawn, normal = np.asarray(phantom.image), np.asarray(other.image)
    if grey.shape != drawn.shape:
        raise EditorError(f"the image is {grey.shape[::-1]}, its phantom {drawn.shape[::-1]}", expected="equal sizes")
    low, high = float(drawn.min()), float(drawn.max())

    def stretch(a: NDArray[np.uint8]) -> NDArray[np.uint8]:
        scaled = (a.astype(np.float32) - low) * (255.0 / max(1.0, high - low))
        return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)

    def distance(a: NDArray[np.uint8]) -> float:
        return float(np.abs(grey.astype(np.float32) - a).mean())

    stretched = stretch(drawn)
    return (stretched, stretch(normal)) if distance(stretched) < distance(drawn) else (drawn, normal)


def _images(root: Path) -> list[Candidate]:
    """One stand-in candidate per image of a phantom set."""
    path = root / _MANIFEST
    if not path.is_file():
        raise EditorError(
            f"there is no {_MANIFEST}", where=root, expected="a folder written by 'medground-bench phantom'"
        )
    entries = json.loads(path.read_bytes())["images"]
    return [
        Candidate(i, "phantom", e["image_id"], e["image_id"], "", (), within(root, e["file"]))
        for i, e in enumerate(entries)
    ]
