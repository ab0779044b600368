"""Writing a planted set: a folder of canvases -> images, masks and counterfactuals that the source reads."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medground_bench.core.errors import MedGroundError, SourceError, nearest
from medground_bench.core.files import atomic_folder, atomic_write
from medground_bench.core.versions import VERSION
from medground_bench.imaging.read import image_size, read_image
from medground_bench.sources.planted.anatomy import CanvasAnatomy, Localizer
from medground_bench.sources.planted.canvas import Canvas
from medground_bench.sources.planted.canvases import CanvasFile, list_canvases, size_refusal
from medground_bench.sources.planted.findings import FINDINGS
from medground_bench.sources.planted.pose import Pose, draw_pose, posed
from medground_bench.sources.planted.sample import Planted, plant
from medground_bench.sources.planted.source import MANIFEST

__all__ = ["Refused", "WrittenPlanted", "write_planted"]


@dataclass(frozen=True)
class Refused:
    """A file that was not planted on, and why."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass
class WrittenPlanted:
    """What was written.

    Attributes
    ----------
    root : Path
        The set's folder.
    images, findings : int
        How many.
    refused : list of Refused
        Canvases that were looked at and left out.
    omitted : dict of str to list of str
        Findings that were drawn and had no room, by image id.
    """

    root: Path
    images: int = 0
    findings: int = 0
    refused: list[Refused] = field(default_factory=list)
    omitted: dict[str, list[str]] = field(default_factory=dict)


def write_planted(
    canvases: str | Path,
    out: str | Path,
    count: int,
    *,
    localizer: Localizer,
    at_most: bool = False,
    seed: int = 0,
    manifest: str | Path | None = None,
    findings: Sequence[str] | None = None,
    distractors: bool = False,
    pose: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> WrittenPlanted:
    """Plant findings on ``count`` radiographs of a folder, one image a canvas.

    Canvases are taken in an order that the seed gives, until there are enough images; one on which nothing can be
    planted is refused with its reason. The same folder, seed and localiser give the same set.

    Parameters
    ----------
    canvases : path
        Folder of normal frontal radiographs (see :func:`~medground_bench.sources.planted.canvases.list_canvases`).
    out : path
        The folder to make. One that was written by this function before is replaced; anything else that is not empty
        is refused.
    count : int
        Number of images.
    localizer : Localizer
        Finds the anatomy.
    at_most : bool
        With fewer usable canvases, as many images as there are (at least one) in place of an error.
    seed : int
        Chooses the canvases, the findings and how they look.
    manifest : path, optional
        What is known of the canvases: patient, age, view.
    findings : sequence of str, optional
        Draws from these; by default from all.
    distractors : bool
        Also plant up to three things that no question asks about.
    pose : bool
        Turn and crop every canvas before it is planted on (:mod:`~medground_bench.sources.planted.pose`): the same
        radiographs, other images of them.
    progress : callable, optional
        Called with (done, total, image id).

    Raises
    ------
    SourceError
        If the folder, manifest, seed or a finding is not one, ``out`` holds other files, or there are fewer canvases
        than images; then nothing is written and the message says why canvases were refused.
    """
    if count < 1:
        raise SourceError(f"a set of {count} images", expected="at least 1")
    if seed < 0:
        raise SourceError(f"seed {seed} is negative", expected="an integer from 0")
    among = list(FINDINGS) if findings is None else list(findings)
    if unknown := [f for f in among if f not in FINDINGS]:
        raise SourceError(
            f"unknown finding {unknown[0]!r}",
            expected=f"some of {', '.join(FINDINGS)}",
            remedy=nearest(unknown[0], FINDINGS),
        )
    out = Path(out)
    _refuse_foreign(out)
    files = list_canvases(canvases, manifest)
    written = WrittenPlanted(out, refused=[Refused(f.path.name, f.refusal) for f in files if f.refusal])
    usable = [f for f in files if not f.refusal]
    if count > len(usable) and not (at_most and usable):
        raise _too_few(count, len(usable), Path(canvases), written.refused)
    order = np.random.default_rng([seed, 0]).permutation(len(usable))
    try:
        with atomic_folder(out) as staging:
            for name in ("images", "canvases", "masks", "without"):
                (staging / name).mkdir()
            entries: list[dict[str, Any]] = []
            for index in order:
                if len(entries) == count:
                    break
                file = usable[index]
                if progress is not None:
                    progress(len(entries), count, file.image_id)
                made = _planted(file, localizer, seed, among, distractors, pose)
                if isinstance(made, str):
                    written.refused.append(Refused(file.path.name, made))
                    continue
                planted, digest, window = made
                entries.append(_write_image(staging, len(entries), seed, file, planted, digest, window))
                written.findings += len(planted.findings)
                if planted.omitted:
                    written.omitted[entries[-1]["image_id"]] = list(planted.omitted)
            if len(entries) < count and not (at_most and entries):
                raise _too_few(count, len(entries), Path(canvases), written.refused)
            written.images = len(entries)
            _write_manifest(staging, seed, entries, written.refused)
    except OSError as error:
        raise MedGroundError(
            f"the planted set cannot be written: {error.strerror or error}",
            where=out,
            remedy="check the folder's permissions and the space on the disk; nothing was left half written",
        ) from error
    if progress is not None:
        progress(written.images, written.images, "done")
    return written


def _planted(
    file: CanvasFile, localizer: Localizer, seed: int, among: list[str], distractors: bool, pose: bool
) -> tuple[Planted, str, Pose | None] | str:
    """A canvas with findings, the digest of the radiograph and what of it the canvas shows, or why there is none."""
    try:
        width, height = image_size(file.path)
        if refusal := size_refusal(width, height):
            return refusal
        pixels = np.asarray(read_image(file.path))
        digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
        window = None
        if pose:
            window = draw_pose(np.random.default_rng([seed, zlib.crc32(pixels.tobytes()), 1]), *pixels.shape[::-1])
            pixels = posed(pixels, window)
        anatomy = CanvasAnatomy(localizer(pixels))
    except MedGroundError as error:  # unreadable, colour, no lungs: this canvas, not the others
        return error.message
    if refusal := Canvas(pixels, anatomy).refusal():
        return refusal
    planted = plant(pixels, anatomy, seed, distractors=distractors, among=among)
    if not planted.findings:
        return f"no room for {' or '.join(planted.omitted)} in this chest: it would fall outside the lungs"
    return planted, digest, window


def _write_image(
    staging: Path, number: int, seed: int, file: CanvasFile, planted: Planted, digest: str, window: Pose | None
) -> dict[str, Any]:
    image_id = f"planted-{seed:03d}-{number:06d}"
    height, width = planted.canvas.shape
    entry: dict[str, Any] = {
        "image_id": image_id,
        "patient_id": file.patient_id,
        "canvas": file.path.name,
        "canvas_sha256": digest,
        **({} if window is None else {"pose": asdict(window)}),
        "width": width,
        "height": height,
        "file": f"images/{image_id}.png",
        "canvas_file": f"canvases/{image_id}.png",
        "findings": [],
        "distractors": [{"kind": d.kind, "box": list(d.box)} for d in planted.distractors],
        "omitted": list(planted.omitted),
    }
    _save(planted.image, staging / entry["file"])
    _save(planted.without().image, staging / entry["canvas_file"])
    for k, finding in enumerate(planted.findings):
        x1, y1 = (int(min(box[i] for box in finding.boxes)) for i in (0, 1))
        x2, y2 = (int(max(box[i] for box in finding.boxes)) for i in (2, 3))
        name = f"{image_id}-{k}.png"
        _save(finding.mask.astype(np.uint8) * np.uint8(255), staging / "masks" / name)
        _save(planted.without(finding.attribute).image[y1:y2, x1:x2], staging / "without" / name)
        entry["findings"].append(
            {
                "attribute": finding.attribute,
                "side": finding.side,
                "zone": finding.zone,
                "location": finding.location,
                "concept": finding.concept,
                "boxes": [list(box) for box in finding.boxes],
                "mask": f"masks/{name}",
                "without": f"without/{name}",
                "window": [x1, y1, x2, y2],
            }
        )
    return entry


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, compress_level=3)


def _write_manifest(folder: Path, seed: int, entries: list[dict[str, Any]], refused: list[Refused]) -> None:

    manifest = {
        "format": 1,
        "version": VERSION,
        "seed": seed,
        "images": entries,
        "refused": [{"file": r.file, "reason": r.reason} for r in refused],
    }
    with atomic_write(folder / MANIFEST.file) as file:
        json.dump(manifest, file, indent=1)
        file.write("\n")


def _refuse_foreign(out: Path) -> None:
    """A folder of the user's own data is never replaced."""
    if out.exists() and not (out / MANIFEST.file).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise SourceError(
            "this folder holds files that are not a planted set",
            where=out,
            expected="a new or empty folder, or one written by 'medground-bench plant'",
            remedy="choose another folder",
        )


_SHOWN = 20


def _too_few(count: int, carried: int, folder: Path, refused: Sequence[Refused]) -> SourceError:
    reasons = "; ".join(str(r) for r in refused[:_SHOWN])
    more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
    return SourceError(
        f"{count} images were asked for, the canvases carry {carried}"
        + (f" ({len(refused)} refused: {reasons}{more})" if refused else ""),
        where=folder,
        expected="one canvas an image",
        remedy=f"ask for at most {carried} (--count, or --at-most for whatever there is), or add radiographs",
    )
