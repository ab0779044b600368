"""Pictures of the documentation, drawn by the package from phantoms with a toy LVLM.

``python -m builder_scripts.docs.pictures`` draws them again (five minutes on one core); ``--methods sobel,lrp`` only
those. Beside the pictures of methods, ``methods.json`` says what each scored on the one record, or why there is none.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image as pil
from PIL import ImageDraw, ImageFont

import medground_bench as mgb
from medground_bench.attribution.method import available_methods
from medground_bench.attribution.picture import draw
from medground_bench.causal.editors import load_editor
from medground_bench.causal.editors.base import EditRequest
from medground_bench.causal.filter import NO_ABNORMALITY, filter_candidates
from medground_bench.causal.masks import box_mask
from medground_bench.core.files import atomic_write
from medground_bench.core.schema import question
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.write import build_folder
from medground_bench.imaging.read import read_image
from medground_bench.sources import open_source
from medground_bench.sources.phantom import write_source

if TYPE_CHECKING:
    from PIL.Image import Image

    from medground_bench.core.schema import Candidate
    from medground_bench.dataset.columns import Record
    from medground_bench.lvlm import Lvlm

__all__ = ["FOLDER", "Scene", "draw_concepts", "draw_methods", "make_scene"]

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"
LVLM = "toy_qwen"
SEED, COUNT, SIDE = 1, 6, 512
KEPT = "phantom-001-000001/consolidation"
"""Image and finding of the record that is shown."""
SHORTCUT = "toy_shortcut"
"""The LVLM that is asked about the same chest with a marker in the corner, and whose answer the filter rejects."""
_SHOWN, _QUALITY = 272, 55
"""Side of a picture in pixels, and WebP's quality."""


@dataclass(frozen=True)
class Scene:
    """What is drawn: an LVLM, the record and candidate of :data:`KEPT`, and the candidate beside a marker."""

    lvlm: Lvlm
    kept: Candidate
    rejected: Candidate
    record: Record


def make_scene(root: Path) -> Scene:
    """Draw phantoms below ``root``, let the LVLM be asked about them, and build the records that are kept."""
    lvlm = mgb.load_lvlm(LVLM)
    write_source("phantom", root / "source", COUNT, seed=SEED, size=SIDE)
    source = open_source("phantom", root / "source")
    filter_candidates(lvlm, "direct", {"phantom": source}, load_editor("phantom"), root / "verdicts")
    build_folder(
        BuildSettings("direct", {"phantom": str(root / "source")}, records=str(root / "verdicts")), root / "dataset"
    )
    records = mgb.open_dataset(root / "dataset", "direct")
    marked = write_source("phantom", root / "marked", COUNT, seed=SEED, size=SIDE, markers=True)
    kept, rejected = (
        next(c for c in found if f"{c.image_id}/{c.attribute}" == KEPT) for found in (source, marked.candidates)
    )
    return Scene(lvlm, kept, rejected, next(r for r in records if r.id.endswith(KEPT)))


def draw_concepts(scene: Scene, out: Path) -> None:
    """The filter's four questions for a kept and a rejected candidate, and the way from a map to boxes."""
    _save(_grid(_questions(scene.lvlm, scene.kept)), out / "kept.webp")
    _save(_grid(_questions(mgb.load_lvlm(SHORTCUT), scene.rejected)), out / "rejected.webp")
    result = mgb.attribute(scene.record, "attention", scene.lvlm)
    image, heat, evidence = result.image, result.heatmap, result.evidence or ()
    assert heat is not None
    steps = [
        (draw(image, [], evidence, None, []), "image and evidence"),
        (draw(image, [], (), heat, []), "heat map"),
        (draw(image, result.boxes, (), heat, []), "its hottest regions, as boxes"),
        (draw(image, result.boxes, evidence, None, []), f"IoU {result.score()['iou']:.2f}"),
    ]
    _save(_grid([(picture.crop((0, 0, *image.size)), text) for picture, text in steps]), out / "boxes.webp")


def _questions(lvlm: Lvlm, candidate: Candidate) -> list[tuple[Image, str]]:
    """The four images of the causal filter with the LVLM's answers."""
    editor, image = load_editor("phantom"), read_image(candidate.image_path)
    editor.bind(candidate, image)
    inside = box_mask(candidate.boxes, image.size)
    edits = [(inside, f"No {candidate.attribute}"), (~inside, f"No {candidate.attribute}"), (~inside, NO_ABNORMALITY)]
    images = [image, *(editor.edit_batch([EditRequest(image, mask, prompt)])[0] for mask, prompt in edits)]
    titles = ("original", "finding removed inside", "... removed outside", "all findings removed outside")
    out = []
    for picture, title in zip(images, titles, strict=True):
        assert not isinstance(picture, Exception)
        asked = question(candidate.attribute, "direct")
        (answer,) = lvlm.generate([picture], [asked])
        out.append(
            (draw(picture, [], candidate.boxes, None, []).crop((0, 0, *picture.size)), f"{title}: {answer.text}")
        )
    return out


def draw_methods(scene: Scene, out: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """A picture of every method that can run here; what each scored, or why it cannot."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            result = mgb.attribute(scene.record, name, scene.lvlm)
        except mgb.MedGroundError as error:
            found[name] = {"error": f"{error.where}: {error.message}" if error.where else error.message}
            continue
        _save(_small(result.plot().crop((0, 0, *result.image.size))), out / f"{name}.webp")
        found[name] = {"iou": round(result.score()["iou"], 3), "boxes": len(result.boxes)}
    return found


def _small(picture: Image) -> Image:
    return picture.resize((_SHOWN, round(_SHOWN * picture.height / picture.width)), pil.Resampling.LANCZOS)


def _grid(parts: Sequence[tuple[Image, str]]) -> Image:
    """Pictures two by two, which a telephone can show, each with a line below."""
    small = [_small(picture) for picture, _ in parts]
    gap, line, font = 8, 26, ImageFont.load_default(15)
    width, height = _SHOWN + gap, max(picture.height for picture in small) + line
    out = pil.new("RGB", (2 * width - gap, -(-len(parts) // 2) * height), "white")
    canvas = ImageDraw.Draw(out)
    for k, (picture, (_, text)) in enumerate(zip(small, parts, strict=True)):
        x, y = k % 2 * width, k // 2 * height
        out.paste(picture, (x, y))
        canvas.text((x + 4, y + picture.height + 3), text, fill="black", font=font)
    return out


def _save(picture: Image, path: Path) -> None:
    with atomic_write(path, "wb") as file:
        picture.save(file, "WEBP", quality=_QUALITY, method=6)


def main() -> None:
    """Draw all, or the methods that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", help="names with commas (default: all, and the pictures of the concepts)")
    parser.add_argument("--out", type=Path, default=FOLDER)
    given = parser.parse_args()
    table = given.out / "methods.json"
    known = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}
    with tempfile.TemporaryDirectory() as root:
        scene = make_scene(Path(root))
        if given.methods is None:
            known = {}
            draw_concepts(scene, given.out)
        names = given.methods.split(",") if given.methods else available_methods()
        known |= draw_methods(scene, given.out / "methods", names)
    with atomic_write(table, "w") as file:
        file.write(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
