"""Lung boxes on real radiographs: what each preset, the refiner and the transport are worth.

Claim: with 16 reference radiographs that carry lung masks, ``multi_atlas`` finds the lungs of other radiographs with a
mean box IoU (both lungs, 224-pixel frame) of at least 0.78 without refinement and 0.84 with LiteMedSAM. Each split
draws 16 references with a fixed seed; the others are targets. Rows: copying the references' mean box; ``paper``;
``multi_atlas`` without its transport (registration and vote alone); ``multi_atlas``; each with and without refinement.

The folder holds ``images/*`` and ``masks/{stem}__left_lung.png``, ``masks/{stem}__right_lung.png``.

    python benchmarks/lung_localisation.py DATA/lungs --splits 1 --refiner litemedsam --sheet lungs.png
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from medfocus.atlas import Reference, ReferencePool
from medfocus.localizer import AnatomyLocalizer
from medfocus.refine import refine
from medfocus.result import Found, Transfer
from medground_bench.imaging import Letterbox

LUNGS = ("left lung", "right lung")


def read(folder: Path) -> list[Reference]:
    """Every radiograph that has both masks."""
    out = []
    for path in sorted((folder / "images").iterdir()):
        masks = {}
        for lung in LUNGS:
            file = folder / "masks" / f"{path.stem}__{lung.replace(' ', '_')}.png"
            if file.is_file():
                masks[lung] = np.asarray(Image.open(file)) > 0
        if len(masks) == len(LUNGS):
            out.append(Reference(path.name, np.asarray(Image.open(path).convert("L")), masks))
    return out


def frame_boxes(reference: Reference, boxes: dict[str, Any]) -> np.ndarray:
    height, width = reference.image.shape
    return np.array(Letterbox.fit(width, height).to_frame([boxes[lung] for lung in LUNGS]))


def ious(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    low, high = np.maximum(one[:, :2], two[:, :2]), np.minimum(one[:, 2:], two[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), 1)
    return shared / (np.prod(one[:, 2:] - one[:, :2], 1) + np.prod(two[:, 2:] - two[:, :2], 1) - shared)


class MeanBox:
    """The references' mean box in the frame, mapped to the target."""

    class settings:
        enlarge = 1.05
        agreement = 0.0

    def __init__(self, pool: ReferencePool) -> None:
        self.mean = np.mean([frame_boxes(r, {lung: r.box(lung) for lung in LUNGS}) for r in pool], 0)

    def localise(self, image: np.ndarray) -> Transfer:
        boxes = Letterbox.fit(image.shape[1], image.shape[0]).to_native(self.mean)
        return Transfer({k: Found(b, np.zeros((224, 224), bool)) for k, b in zip(LUNGS, boxes, strict=True)}, "mean")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="use every n-th target")
    parser.add_argument("--refiner", default=None, help="litemedsam, a checkpoint or a SamModel folder")
    parser.add_argument("--sheet", type=Path, help="save a contact sheet of the first split here")
    options = parser.parse_args()

    radiographs = read(options.data)
    segmenter = None
    if options.refiner:
        from medground_bench.attribution.segmenters import load_segmenter

        segmenter = load_segmenter(options.refiner)
    scores: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    shown: list[Image.Image] = []
    for split in range(options.splits):
        order = np.random.default_rng(split).permutation(len(radiographs))
        pool = ReferencePool([radiographs[i] for i in order[:16]])
        rules: dict[str, Any] = {
            "mean box": MeanBox(pool),
            "paper": AnatomyLocalizer(pool, "paper"),
            "multi_atlas, no transport": AnatomyLocalizer(pool, settings={"transport": False}),
            "multi_atlas": AnatomyLocalizer(pool),
        }
        for index in order[16 :: options.every]:
            target = radiographs[index]
            truth = frame_boxes(target, {lung: target.box(lung) for lung in LUNGS})
            for name, rule in rules.items():
                start = time.perf_counter()
                found = rule.localise(target.image)
                seconds.setdefault(name, []).append(time.perf_counter() - start)
                scores.setdefault(name, []).append(float(ious(frame_boxes(target, found.boxes), truth).mean()))
                if segmenter is None:
                    continue
                start = time.perf_counter()
                refined = refine(target.image, found, segmenter, rule.settings.enlarge, rule.settings.agreement)
                seconds.setdefault(f"{name} + refiner", []).append(time.perf_counter() - start)
                value = ious(frame_boxes(target, refined.boxes), truth).mean()
                scores.setdefault(f"{name} + refiner", []).append(float(value))
            if split == 0 and options.sheet:
                last = scores["multi_atlas"][-1]
                shown.append(
                    thumbnail(
                        target, truth, frame_boxes(target, rules["multi_atlas"].localise(target.image).boxes), last
                    )
                )
    print(f"{len(radiographs)} radiographs, {options.splits} split(s), {len(scores['mean box'])} targets")
    print(f"{'rule':36s} {'IoU':>6s} {'10 %':>6s} {'s':>6s}")
    for name, values in scores.items():
        print(f"{name:36s} {np.mean(values):6.3f} {np.quantile(values, 0.1):6.3f} {np.median(seconds[name]):6.2f}")
    if options.sheet:
        sheet(shown).save(options.sheet)


def thumbnail(target: Reference, truth: np.ndarray, found: np.ndarray, score: float) -> Image.Image:
    height, width = target.image.shape
    picture = Letterbox.fit(width, height).apply(Image.fromarray(target.image)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    for boxes, colour in ((truth, (60, 220, 60)), (found, (255, 120, 0))):
        for box in boxes:
            draw.rectangle([float(v) for v in box], outline=colour)
    draw.text((4, 4), f"{score:.2f}", fill=(255, 255, 0))
    return picture


def sheet(pictures: list[Image.Image], columns: int = 10) -> Image.Image:
    rows = -(-len(pictures) // columns)
    out = Image.new("RGB", (columns * 224, rows * 224))
    for k, picture in enumerate(pictures):
        out.paste(picture, ((k % columns) * 224, (k // columns) * 224))
    return out


if __name__ == "__main__":
    main()
