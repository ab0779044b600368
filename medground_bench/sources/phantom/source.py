"""Phantoms: procedural chest radiographs with exact evidence, written by ``medground-bench phantom``.

File looked for below the root: ``phantom.json``, which lists the images, their seeds and their findings. Candidates
stand in its order: images sorted by id, within an image the findings in the generator's order; the attribute is the
finding's name, the boxes are tight around its exact mask.

:func:`phantom_for` draws a candidate's phantom again, with every mask and the same image without a finding. It works
for phantoms written in the layout of any source.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.errors import SourceError
from medground_bench.core.schema import Candidate
from medground_bench.sources._tables import BoxResult, check_box, find, safe_path
from medground_bench.sources.base import Source, SourceInfo

if TYPE_CHECKING:
    from medground_bench.sources.phantom import Phantom

__all__ = ["INFO", "findings_of", "load_phantom", "phantom_for", "phantom_root", "read"]

_MANIFEST = "phantom.json"

INFO = SourceInfo(
    key="phantom",
    title="MedGround-Bench phantoms (procedural chest radiographs)",
    licence="Apache-2.0, as this project",
    url="(comes with medground-bench; there is nothing to download)",
    citation="MedGround-Bench phantoms, drawn by medground_bench.sources.phantom",
    credentialed=False,
    obtain="Run 'medground-bench phantom --out DIR --count 100'.",
    layout=(_MANIFEST, "images/<image_id>.png"),
)


def read(root: Path) -> Source:
    """Enumerate the findings of the phantoms below ``root``."""
    path = find(root, (_MANIFEST,), f"the manifest {_MANIFEST}")
    candidates: list[Candidate] = []
    rows, faults = [], []
    for number, entry in enumerate(_manifest(path)["images"]):
        where = f"{path}: image {number}"
        image_id, file = _field(entry, "image_id", str, where), _field(entry, "file", str, where)
        image_path = safe_path(root, file, where)
        for place, finding in enumerate(_field(entry, "findings", list, where)):
            at = f"{where}, finding {place}"
            results = [_box(box) for box in _field(finding, "boxes", list, at)]
            problems = tuple(f"{at}: {r.problem}" for r in results if r.box is None)
            faults += [f"{at}: {r.problem}" for r in results if r.fault]
            rows.append(f"image {number}, finding {place}")
            candidates.append(
                Candidate(
                    index=len(candidates),
                    dataset=INFO.key,
                    image_id=image_id,
                    patient_id=str(entry.get("patient_id") or image_id),
                    attribute=_field(finding, "attribute", str, at),
                    boxes=tuple(r.box for r in results if r.box is not None),
                    image_path=image_path,
                    problems=problems,
                )
            )
    return Source(INFO, root, candidates, rows=rows, files=[path], faults=faults)


def phantom_root(path: str | Path) -> Path | None:
    """The folder of the phantom set that an image file belongs to, None if it is no phantom's."""
    path = Path(path).absolute()
    return next((p for p in path.parents if (p / _MANIFEST).is_file()), None)


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
    root = Path(root)
    return _load(root.resolve(), image_id, (root / _MANIFEST).stat().st_mtime_ns if (root / _MANIFEST).exists() else 0)


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
    entry = _entry(root, candidate.image_id)
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
            expected=f"an image of a set with a {_MANIFEST}",
            remedy="write a set with 'medground-bench phantom'",
        )
    return root


@lru_cache(maxsize=8)
def _load(root: Path, image_id: str, stamp: int) -> Phantom:
    """Cached: a causal filter asks for the same phantom once per finding and edit."""
    from medground_bench.imaging.read import read_image
    from medground_bench.sources.phantom import sample_phantom

    entry = _entry(root, image_id)
    where = f"{root / _MANIFEST}: {image_id}"
    phantom = sample_phantom(
        _field(entry, "seed", int, where),
        size=(_field(entry, "width", int, where), _field(entry, "height", int, where)),
        findings=[_field(f, "attribute", str, where) for f in _field(entry, "findings", list, where)],
    )
    stored = np.asarray(read_image(safe_path(root, _field(entry, "file", str, where), where)), np.float32)
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


def _entry(root: Path, image_id: str) -> dict[str, Any]:
    path = find(root, (_MANIFEST,), f"the manifest {_MANIFEST}")
    entry = _index(path, path.stat().st_mtime_ns).get(image_id)
    if entry is None:
        raise SourceError(f"there is no image {image_id!r}", where=path)
    return entry


@lru_cache(maxsize=4)
def _index(path: Path, stamp: int) -> dict[str, dict[str, Any]]:
    """Manifest entries by image id; ``stamp`` makes a rewritten file a new one."""
    return {_field(e, "image_id", str, str(path)): e for e in _manifest(path)["images"]}


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise SourceError(
            f"this file is not complete JSON: {error}", where=path, remedy="write the set again"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != 1 or not isinstance(manifest.get("images"), list):
        raise SourceError(
            "this is not a phantom manifest of format 1",
            where=path,
            expected='an object with "format": 1 and "images"',
            remedy="write the set again with 'medground-bench phantom'",
        )
    return manifest


def _field(item: Any, key: str, kind: type, where: str) -> Any:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise SourceError(f"{key!r} is {value!r}", where=where, expected=f"an object with {key!r} as {kind.__name__}")
    return value


def _box(value: Any) -> BoxResult:
    numbers = isinstance(value, list) and len(value) == 4
    if not numbers or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return BoxResult(None, f"{value!r} is not a box of four numbers")
    return check_box(value)
