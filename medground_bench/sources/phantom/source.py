"""Phantoms: procedural chest radiographs with exact evidence, written by ``medground-bench phantom``.

File looked for below the root: ``phantom.json``, which lists the images, their seeds and their findings. Candidates
stand in its order: images sorted by id, within an image the findings in the generator's order; the attribute is the
finding's name, the boxes are tight around its exact mask.

:func:`phantom_for` draws a candidate's phantom again, with every mask and the same image without a finding. It works
for phantoms written in the layout of any source.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.errors import SourceError
from medground_bench.core.schema import Candidate
from medground_bench.imaging.read import read_image
from medground_bench.sources._manifest import SetManifest
from medground_bench.sources._tables import field_of, safe_path
from medground_bench.sources.base import Source, SourceInfo
from medground_bench.sources.phantom.sample import sample_phantom

if TYPE_CHECKING:
    from medground_bench.sources.phantom import Phantom

__all__ = ["INFO", "findings_of", "load_phantom", "phantom_for", "phantom_root", "read"]

_MANIFEST = SetManifest("phantom.json", "phantom", "phantom")

INFO = SourceInfo(
    key="phantom",
    title="MedGround-Bench phantoms (procedural chest radiographs)",
    licence="Apache-2.0, as this project",
    url="(comes with medground-bench; there is nothing to download)",
    citation="MedGround-Bench phantoms, drawn by medground_bench.sources.phantom",
    credentialed=False,
    obtain="Run 'medground-bench phantom --out DIR --count 100'.",
    layout=(_MANIFEST.file, "images/<image_id>.png"),
)


def read(root: Path) -> Source:
    """Enumerate the findings of the phantoms below ``root``."""
    return _MANIFEST.source(INFO, root)


def phantom_root(path: str | Path) -> Path | None:
    """The folder of the phantom set that an image file belongs to, None if it is no phantom's."""
    return _MANIFEST.root_of(path)


def load_phantom(root: str | Path, image_id: str) -> Phantom:
    """Draw the phantom of an image again.

    Parameters
    ----------
    root : path
        Folder that holds ``phantom.json`` (any layout).
    image_id : str
        The image, as its source names it.

    Raises
    ------
    SourceError
        If the set has no such image, or this version of the generator draws another image than the one on disk.
    """
    manifest = Path(root) / _MANIFEST.file
    return _load(Path(root).resolve(), image_id, manifest.stat().st_mtime_ns if manifest.exists() else 0)


def phantom_for(candidate: Candidate) -> Phantom:
    """Draw the phantom of a candidate again; see :func:`load_phantom`.

    Raises
    ------
    SourceError
        If the candidate's image is not a phantom.
    """
    return load_phantom(_root_of(candidate), candidate.image_id)


def findings_of(candidate: Candidate) -> tuple[str, ...]:
    """The phantom's findings behind a candidate's attribute, whatever its source's vocabulary calls them.

    Raises
    ------
    SourceError
        If the candidate's image is not a phantom or its attribute is not among its findings.
    """
    root = _root_of(candidate)
    entry = _MANIFEST.entry(root, candidate.image_id)
    own = {f["attribute"] for f in entry["findings"]}
    names: dict[str, list[str]] = entry.get("names", {})
    if candidate.attribute in names:
        return tuple(names[candidate.attribute])
    if candidate.attribute in own:
        return (candidate.attribute,)
    raise SourceError(
        f"this phantom has no {candidate.attribute!r}",
        where=candidate.id,
        expected="one of " + ", ".join(sorted(own | set(names))),
    )


def _root_of(candidate: Candidate) -> Path:
    root = phantom_root(candidate.image_path)
    if root is None:
        raise SourceError(
            "this image is not a phantom",
            where=candidate.image_path,
            expected=f"an image of a set with a {_MANIFEST.file}",
            remedy="write a set with 'medground-bench phantom'",
        )
    return root


@lru_cache(maxsize=8)
def _load(root: Path, image_id: str, stamp: int) -> Phantom:
    """Cached: a causal filter asks for the same phantom once per finding and edit."""
    entry = _MANIFEST.entry(root, image_id)
    where = f"{root / _MANIFEST.file}: {image_id}"
    phantom = sample_phantom(
        field_of(entry, "seed", int, where),
        size=(field_of(entry, "width", int, where), field_of(entry, "height", int, where)),
        findings=[field_of(f, "attribute", str, where) for f in field_of(entry, "findings", list, where)],
        marker=field_of(entry, "marker", str, where) if entry.get("marker") else None,
        contrast=field_of(entry, "contrast", float, where, default=1.0),
    )
    stored = np.asarray(read_image(safe_path(root, field_of(entry, "file", str, where), where)), np.float32)
    drawn = phantom.image.astype(np.float32)
    # Files deeper than 8 bits come back stretched to the full range; JPEG adds a little noise.
    low, high = drawn.min(), drawn.max()
    stretched = (drawn - low) * (255.0 / max(1.0, high - low))
    if stored.shape != drawn.shape or min(np.abs(stored - d).mean() for d in (drawn, stretched)) > 3.0:
        raise SourceError(
            "the image on disk is not the one this version of the generator draws",
            where=where,
            remedy="write the set again with 'medground-bench phantom'",
        )
    return phantom
