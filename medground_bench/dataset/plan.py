"""What a build will contain: which rows, from which images, and everything that is wrong, before any pixel is decoded.

:func:`make_plan` opens the sources, joins the records, looks at every image's header and checks every box against its
image. What stops a build is raised here, all of it at once; what may be left out is listed in the plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medground_bench.core.errors import BuildError, ImageError, RecordsError, SourceError, nearest
from medground_bench.core.files import sha256_of
from medground_bench.core.schema import MODES, Box, Candidate, KeptCandidate, Mode, question
from medground_bench.dataset.records import load_records
from medground_bench.imaging.read import SCALINGS, Scaling, image_size
from medground_bench.sources import Source, open_source, source_names
from medground_bench.sources.base import OVERHANG, resized

__all__ = ["CONFIGS", "BuildSettings", "Item", "Plan", "make_plan"]

CONFIGS: tuple[str, ...] = ("direct", "reason", "candidates")


@dataclass(frozen=True)
class BuildSettings:
    """What to build. See ``medground-bench build --help`` for the meaning of each."""

    config: str
    sources: Mapping[str, str]
    records: str | None = None
    lvlms: Sequence[str] = ()
    scaling: Scaling = "minmax"
    max_side: int | None = None
    allow_missing: bool = False
    allow_other_records: bool = False
    clip_boxes: bool = False

    def check(self) -> None:
        """Raise BuildError for a combination that cannot be meant."""
        if self.config not in CONFIGS:
            raise BuildError(
                f"unknown config {self.config!r}",
                expected="one of " + ", ".join(CONFIGS),
                remedy=nearest(self.config, CONFIGS),
            )
        if not self.sources:
            raise BuildError(
                "no source is given", expected="--source NAME=DIR, NAME one of " + ", ".join(source_names())
            )
        if self.config in MODES and not self.records:
            raise BuildError(
                f"config {self.config!r} needs records",
                expected="--records with the released file, a folder of own verdicts, or 'download'",
            )
        if self.config == "candidates" and (self.records or self.lvlms):
            raise BuildError("candidates have no records and no LVLM", expected="neither --records nor --lvlm")
        if self.scaling not in SCALINGS:
            raise BuildError(f"unknown scaling {self.scaling!r}", expected="one of " + ", ".join(SCALINGS))
        if self.max_side is not None and self.max_side < 1:
            raise BuildError(f"--max-side is {self.max_side}", expected="at least 1 pixel")


@dataclass(frozen=True, slots=True)
class Item:
    """One row to be: its columns without image, width and height, and where the image is."""

    columns: dict[str, Any]
    image_path: Path
    where: str


@dataclass
class Plan:
    """Rows of a build in their order, and what was left out of it.

    ``missing`` and ``broken`` hold messages with file and row; ``image_notes`` what the images' decoding showed, which
    is known once they are built; ``sources`` and ``records`` say what went in.
    """

    settings: BuildSettings
    items: list[Item]
    missing: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    clipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    image_notes: list[str] = field(default_factory=list)
    sources: dict[str, Any] = field(default_factory=dict)
    records: dict[str, Any] | None = None

    @property
    def images(self) -> int:
        """Number of different images."""
        return len({item.image_path for item in self.items})


def make_plan(settings: BuildSettings) -> Plan:
    """Decide what to build.

    Raises
    ------
    BuildError, SourceError, RecordsError, ImageError
        If the settings, sources, records, images or boxes stop the build; every missing image is listed.
    """
    settings.check()
    sources = {name: open_source(name, root) for name, root in settings.sources.items()}
    _stop_at_faults(sources)
    plan = Plan(settings, [])
    wanted = _wanted(settings, sources, plan)
    sizes = _sizes({c.image_path: _where(c, sources) for c, _ in wanted}, settings.allow_missing, plan)
    _stop_at_resized(wanted, sizes, sources)
    outside: list[str] = []
    for candidate, record in wanted:
        where = _where(candidate, sources)
        if candidate.image_path not in sizes:
            plan.missing.append(f"{(record or candidate).id}: {candidate.image_path} ({where})")
            continue
        if candidate.problems:
            kept = f"{len(candidate.boxes)} valid box(es) kept" if candidate.boxes else "left out"
            plan.broken += [f"{candidate.id} ({kept}): {p}" for p in candidate.problems]
        if not candidate.boxes:
            continue
        boxes, places = _inside(candidate, sizes[candidate.image_path], where, settings.clip_boxes, plan, outside)
        if boxes:
            regions = [candidate.regions[k] for k in places] if candidate.regions else []
            plan.items.append(Item(_columns(candidate, record, boxes, regions), candidate.image_path, where))
    _stop_at_outside(outside)
    if not plan.items:
        raise BuildError("nothing is left to build", expected="at least one row", remedy="see what was left out above")
    reports = [report for source in sources.values() for report in source.reports]
    plan.broken = list(dict.fromkeys([*reports, *plan.broken]))
    plan.sources = {name: _describe(source) for name, source in sources.items()}
    plan.notes += [note for source in sources.values() for note in source.notes]
    return plan


def _wanted(
    settings: BuildSettings, sources: Mapping[str, Source], plan: Plan
) -> list[tuple[Candidate, KeptCandidate | None]]:
    """Candidates (with their records) in row order."""
    if settings.config == "candidates":
        return [(c, None) for source in sources.values() for c in source]
    mode: Mode = "direct" if settings.config == "direct" else "reason"
    joined = load_records(
        settings.records or "",
        mode,
        sources,
        lvlms=settings.lvlms,
        allow_other=settings.allow_other_records,
        allow_missing=settings.allow_missing,
    )
    unused = sorted(set(sources) - {r.candidate.dataset for r in joined.records})
    if unused:
        raise RecordsError(
            f"no record belongs to source(s) {', '.join(unused)}",
            where=settings.records,
            remedy="leave the source(s) out, or give the records that were made from them",
        )
    plan.missing += joined.left_out
    plan.notes += joined.notes
    plan.records = joined.origin
    return [(r.candidate, r) for r in joined.records]


def _where(candidate: Candidate, sources: Mapping[str, Source]) -> str:
    return sources[candidate.dataset].where(candidate.index)


def _stop_at_faults(sources: Mapping[str, Source]) -> None:
    faults = [fault for source in sources.values() for fault in source.faults]
    if faults:
        raise SourceError(
            f"{len(faults)} row(s) have coordinates that are not finite:\n  " + "\n  ".join(faults),
            expected="finite numbers",
            remedy="the annotation file is damaged: fetch it again",
        )


def _sizes(images: Mapping[Path, str], allow_missing: bool, plan: Plan) -> dict[Path, tuple[int, int]]:
    """Sizes of the images that are there; unreadable ones always stop the build, missing ones unless allowed."""
    sizes, missing, unreadable = {}, [], []
    for path, where in images.items():
        if not path.is_file():
            missing.append(f"{path} ({where})")
            continue
        try:
            sizes[path] = image_size(path)
        except ImageError as error:
            unreadable.append(f"{path} ({where}): {error.message}")
    if missing and not allow_missing:
        raise BuildError(
            f"{len(missing)} image(s) are missing:\n  " + "\n  ".join(missing),
            expected="every image of the annotation files",
            remedy="fetch them, or leave them out with --allow-missing",
        )
    if unreadable:
        raise ImageError(
            f"{len(unreadable)} image(s) cannot be read:\n  " + "\n  ".join(unreadable),
            remedy="fetch them again (or remove them and build with --allow-missing)",
        )
    return sizes


def _stop_at_resized(
    wanted: list[tuple[Candidate, KeptCandidate | None]],
    sizes: Mapping[Path, tuple[int, int]],
    sources: Mapping[str, Source],
) -> None:
    """An image of another size than its boxes are stated on is never built: they would lie elsewhere, in silence."""
    copies: dict[Path, str] = {}
    for candidate, _ in wanted:
        if candidate.image_path in sizes and (found := resized(candidate, sizes[candidate.image_path])):
            copies.setdefault(candidate.image_path, f"{candidate.image_path} ({_where(candidate, sources)}): {found}")
    if copies:
        raise BuildError(
            f"{len(copies)} image(s) are resized copies:\n  " + "\n  ".join(copies.values()),
            expected="the images in the size in which the source gives them out",
            remedy="fetch the original images; 'medground-bench sources' says where",
        )


def _inside(
    candidate: Candidate, size: tuple[int, int], where: str, clip: bool, plan: Plan, outside: list[str]
) -> tuple[list[Box], list[int]]:
    """Boxes within the image, and which they are; those that reach out go to ``outside`` unless they are to be cut."""
    width, height = size
    out: list[Box] = []
    kept: list[int] = []
    for k, (x1, y1, x2, y2) in enumerate(candidate.boxes):
        cut = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        reach = max(-x1, -y1, x2 - width, y2 - height)
        gone = cut[2] <= cut[0] or cut[3] <= cut[1]
        message = f"{where}: box [{x1:g}, {y1:g}, {x2:g}, {y2:g}] of {candidate.id}, image {width}x{height}"
        if reach > OVERHANG or gone:
            (plan.clipped if clip else outside).append(message)
        if gone and clip:
            plan.broken.append(f"{message}: wholly outside the image, left out")
        elif not gone:
            out.append(cut)
            kept.append(k)
    return out, kept


def _stop_at_outside(outside: list[str]) -> None:
    if outside:
        outside = list(dict.fromkeys(outside))
        raise BuildError(
            f"{len(outside)} box(es) reach outside their image:\n  " + "\n  ".join(outside),
            expected="boxes inside the image, in its native pixels",
            remedy="check that images and annotations belong together and that the images are no resized copies; "
            "--clip-boxes cuts boxes that are drawn over the border",
        )


def _columns(
    candidate: Candidate, record: KeptCandidate | None, boxes: list[Box], regions: list[str]
) -> dict[str, Any]:
    return {
        "id": (record or candidate).id,
        "dataset": candidate.dataset,
        "model": record.model if record else None,
        "mode": record.mode if record else None,
        "image_id": candidate.image_id,
        "patient_id": candidate.patient_id,
        "attribute": candidate.attribute,
        "question": record.question if record else question(candidate.attribute),
        "answer": record.answer if record else "Yes",
        "response": record.response if record else None,
        "boxes": [list(box) for box in boxes],
        "regions": regions,
        "prediction": record.response if record else None,
        "prediction_edited": record.prediction_edited if record else None,
        "prediction_edited_kept": record.prediction_edited_kept if record else None,
        "prediction_edited_kept_normal": record.prediction_edited_kept_normal if record else None,
    }


def _describe(source: Source) -> dict[str, Any]:
    """What the build record says of a source; names and checksums, no paths of this machine."""
    return {
        "candidates": len(source),
        "licence": source.info.licence,
        "credentialed": source.info.credentialed,
        "annotations": {f.name: sha256_of(f) for f in source.files if f.is_file()},
    }
