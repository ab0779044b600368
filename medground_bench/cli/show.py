"""``medground-bench show``: one record, in the terminal and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image
    from rich.text import Text

    from medground_bench.dataset.columns import Record

__all__ = ["command"]


def command(
    record: str = typer.Argument(..., help="Id of a record, or a part of it that no other id has."),
    dataset: Path = typer.Option(..., help="Dataset folder."),
    config: str | None = typer.Option(None, help="Config of the folder (default: whichever has the record)."),
    submission: list[Path] = typer.Option([], help="Submissions (or folders of some) whose boxes are shown, too."),
    source: list[str] = typer.Option(
        [], help="NAME=DIR, repeatable: phantoms tell in which place of the chest boxes and maps lie."
    ),
    localizer: str = typer.Option("", help="Finds the places of the chest on other images, e.g. multi_atlas."),
    pool: str = typer.Option("", help="Reference pool of the localizer (default: its own)."),
    out: Path | None = typer.Option(None, help="PNG to write; with several submissions one each: NAME.METHOD.png."),
) -> None:
    """Show a record: question, answers, evidence, and what submissions say of it, also in a sentence.

    A terminal with colours also gets a small picture.

    Example: medground-bench show phantom-000-000000 --dataset demo/medground-bench --out record.png
    """
    from medground_bench.attribution.picture import draw
    from medground_bench.core.console import stderr, stdout
    from medground_bench.core.errors import printable
    from medground_bench.core.files import atomic_write
    from medground_bench.imaging.overlap import score_boxes
    from medground_bench.scoring.places import tell
    from medground_bench.submission import find_submissions, open_submission

    shown = _find(dataset, config, record)
    for name, value in _facts(shown):
        stdout.print(f"{name:<12} {printable(value)}", markup=False, highlight=False, soft_wrap=True)
    labels = _labels(shown, source, localizer, pool)
    stdout.print(f"{'':<12} {tell(labels, shown.size, shown.boxes, of='evidence')}", markup=False, soft_wrap=True)
    pictures: dict[str, Image] = {}
    title = [shown.id, shown.question] + ([f"answer: {shown.response}"] if shown.response else [])
    for folder in find_submissions(submission):
        opened = open_submission(folder)
        found = opened.predictions().get(shown.id)
        method = str(opened.header["method"])
        if found is None:
            stdout.print(f"{method:<12} does not answer this record", markup=False, highlight=False)
            continue
        scores = score_boxes([found.boxes], [shown.boxes])
        said = f"{len(found.boxes)} boxes, IoU {scores.iou[0]:.3f}, precision {scores.precision[0]:.3f}, "
        said += f"recall {scores.recall[0]:.3f}" + (f", concept {found.concept}" if found.concept else "")
        stdout.print(f"{printable(method):<12} {printable(said)}", markup=False, highlight=False, soft_wrap=True)
        heat, box = opened.heatmap(found), opened.letterbox(shown.size)
        where = tell(labels, shown.size, found.boxes, heat, box, signed=opened.signed)
        stdout.print(f"{'':<12} {where}", markup=False, highlight=False, soft_wrap=True)
        heat = None if heat is None else box.heatmap_to_native(heat)
        pictures[method] = draw(shown.image, found.boxes, shown.boxes, heat, [*title, method])
    if not pictures:
        pictures[""] = draw(shown.image, [], shown.boxes, None, title)
    if stdout.is_terminal and stdout.color_system in ("truecolor", "256"):
        for picture in pictures.values():
            stdout.print(_blocks(picture, min(72, stdout.width)))
    if out is None:
        return
    for method, picture in pictures.items():
        target = out if len(pictures) == 1 else out.with_name(f"{out.stem}.{method}{out.suffix}")
        with atomic_write(target, "wb") as file:
            picture.save(file, "PNG")
        stderr.print(f"written: {target}", markup=False, highlight=False, soft_wrap=True)


def _labels(record: Record, sources: list[str], localizer: str, pool: str) -> np.ndarray | None:
    """The place of every pixel of a record's image; None where no source and no localiser tells."""
    from medground_bench.cli._sources import parse_sources
    from medground_bench.scoring import concept_reference
    from medground_bench.sources import open_source
    from medground_bench.sources.planted import load_localizer

    known = [open_source(name, root) for name, root in parse_sources(sources).items()]
    find = load_localizer(localizer, **({"pool": pool} if pool else {})) if localizer else None
    reference = concept_reference([record], known, find)
    anatomy = None if reference is None else reference.anatomy[0]
    return None if anatomy is None else anatomy.labels


def _find(dataset: Path, config: str | None, text: str) -> Record:
    """The record of an id, or of a part that one id has."""
    from medground_bench.core.errors import BuildError, nearest
    from medground_bench.dataset.folder import open_folder, read_build_record

    names = [config] if config is not None else list(read_build_record(dataset)["configs"])
    near: dict[str, str] = {}
    for name in names:
        folder = open_folder(dataset, name)
        if text in folder:
            return folder[text]
        near.update((key, name) for (key,) in folder.values("id"))
    found = [key for key in near if text in key]
    if len(found) == 1:
        return open_folder(dataset, near[found[0]])[found[0]]
    raise BuildError(
        f"{len(found)} records have {text!r} in their id" if found else f"no record has {text!r} in its id",
        where=dataset,
        expected="the id of a record, or a part that no other has" if found else None,
        remedy="one of " + ", ".join(found[:6]) + (" ..." if len(found) > 6 else "") if found else nearest(text, near),
    )


def _facts(record: Record) -> list[tuple[str, str]]:
    edited = (record.prediction_edited, record.prediction_edited_kept, record.prediction_edited_kept_normal)
    boxes = "; ".join("[" + ", ".join(f"{v:g}" for v in box) + "]" for box in record.boxes)
    facts = [
        ("id", record.id),
        (
            "image",
            f"{record.image_id} of {record.dataset}, {record.width} x {record.height}, patient {record.patient_id}",
        ),
        ("LVLM", f"{record.model}, {record.mode}" if record.model else ""),
        ("question", record.question),
        ("answer", record.response or ""),
        ("evidence", boxes),
        ("regions", ", ".join(record.regions)),
    ]
    titles = ("finding gone", "rest edited", "rest normal")
    facts += [(title, text) for title, text in zip(titles, edited, strict=True) if text]
    return [(name, text) for name, text in facts if text]


def _blocks(picture: Image, columns: int) -> Text:
    """A picture of half blocks, two pixels a character."""
    import numpy as np
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    rows = max(1, round(columns * picture.height / picture.width / 2))
    pixels = np.asarray(picture.convert("RGB").resize((columns, 2 * rows)))
    text = Text(no_wrap=True)
    for y in range(0, 2 * rows, 2):
        for x in range(columns):
            upper, lower = (Color.from_rgb(*pixels[y + k, x].tolist()) for k in (0, 1))
            text.append("▀", Style(color=upper, bgcolor=lower))
        text.append("\n")
    return text
