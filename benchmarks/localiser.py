"""The multi-atlas localiser on radiographs that it has not seen, as they are and spoilt; what its confidence is worth.

Each split draws 16 references with a fixed seed; the other radiographs are targets: as they are, turned by 10 degrees
either way, cropped, inverted, and with a fifth of the contrast; and harder ones, reported apart: turned by 20 degrees,
cut to two thirds of either side, with a sixteenth of the contrast, in noise, and without most of one lung. Per kind of
image: mean box IoU of both lungs in the 224-pixel frame, its lowest decile, how many fail (IoU below 0.7), the mean
confidence; then the AUROC with which the confidence tells failures from the others (also where failure is an IoU below
0.75 or 0.8, since few fail), and with which its part, the references' agreement, and the best reference's correlation
do, with 95 % intervals over radiographs; and how many of those with a confidence below 0.5 fail. With ``--grid`` other
settings run too; per split the best on the *other* splits is taken, and its score on this one is what is reported. With
``--hearts`` the heart's box, as it was voted and as it was then measured, is compared with the experts' boxes of
cardiomegaly, by the phantom pool: the whole box, its width alone, since annotators differ in where a heart begins, and
the box with top and bottom moved by what the other radiographs of the source are off in the median.

The folder holds ``images/*`` and ``masks/{stem}__left_lung.png``, ``masks/{stem}__right_lung.png``. Every localisation
is a line of a journal in ``--out``: the same command resumes.

    python -m benchmarks.localiser DATA/lungs --out localiser --splits 3 --hearts nih_cxr14=DIR --hearts chestx_det=DIR
    python -m benchmarks.localiser DATA/lungs --out localiser --splits 3 --kinds plain --grid '[{"level": 0.5}]'
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.lung_localisation import LUNGS, frame_boxes, ious, read, sheet, thumbnail
from medfocus.atlas import Reference, ReferencePool
from medfocus.localizer import AnatomyLocalizer
from medfocus.refine import refine
from medfocus.result import DOUBTFUL
from medground_bench.core.files import Journal, read_journals
from medground_bench.sources import open_source

FAILURE = 0.7
FAILURES = (FAILURE, 0.75, 0.8)


def turned(degrees: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.rotate(degrees, Image.Resampling.BILINEAR)


def cut(left: float, top: float, right: float, bottom: float) -> Callable[[Image.Image], Image.Image]:
    """To shares of the sides."""

    def crop(image: Image.Image) -> Image.Image:
        width, height = image.size
        return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))

    return crop


def same(image: Image.Image) -> Image.Image:
    return image


def inverted(image: Image.Image) -> Image.Image:
    return Image.fromarray(255 - np.asarray(image))


def faded(contrast: float, black: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: Image.fromarray((np.asarray(image) * contrast + black).astype(np.uint8))


def noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, 80, (image.height, image.width))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


Change = Callable[[Image.Image], Image.Image]
KINDS: dict[str, tuple[Change, Change]] = {
    # what happens to the image, and to the masks
    "plain": (same, same),
    "turned 10 left": (turned(10), turned(10)),
    "turned 10 right": (turned(-10), turned(-10)),
    "cropped": (cut(0.08, 0.08, 0.94, 0.94),) * 2,
    "inverted": (inverted, same),
    "faded": (faded(0.2, 90), same),
}
HARD: dict[str, tuple[Change, Change]] = {
    "turned 20 left": (turned(20), turned(20)),
    "turned 20 right": (turned(-20), turned(-20)),
    "cut": (cut(0.2, 0.2, 0.85, 0.85),) * 2,
    "nearly flat": (faded(0.06, 120), same),
    "noisy": (noisy, same),
    "one side": (cut(0, 0, 0.62, 1),) * 2,
}


def spoilt(target: Reference, kind: str) -> Reference:
    """The radiograph and its masks, changed."""
    on_image, on_masks = (KINDS | HARD)[kind]
    masks = {
        name: np.asarray(on_masks(Image.fromarray((mask * 255).astype(np.uint8)))) > 127
        for name, mask in target.masks.items()
    }
    return Reference(target.name, np.asarray(on_image(Image.fromarray(target.image))), masks)


def compute(args: argparse.Namespace, grid: list[dict[str, Any]]) -> None:
    """Localise what is missing."""
    radiographs = read(args.data)
    segmenter = None
    if args.refiner:
        from medground_bench.attribution.segmenters import load_segmenter

        segmenter = load_segmenter(args.refiner)
    done = {tuple(e["key"]) for e in read_journals(args.out, "localiser")}
    with Journal(args.out, "localiser") as journal:
        for split in range(args.splits):
            order = np.random.default_rng(split).permutation(len(radiographs))
            pool = ReferencePool([radiographs[i] for i in order[:16]])
            for settings in grid:
                localizer = AnatomyLocalizer(pool, settings=settings)
                for index in order[16 :: args.every]:
                    for kind in args.kinds:
                        key = (split, int(index), kind, json.dumps(settings, sort_keys=True), args.refiner or "")
                        if key in done:
                            continue
                        target = spoilt(radiographs[index], kind)
                        if not all(target.masks[lung].any() for lung in LUNGS):
                            continue
                        found = localizer.localise(target.image)
                        truth = frame_boxes(target, {lung: target.box(lung) for lung in LUNGS})
                        entry = {"key": key, "iou": ious(frame_boxes(target, found.boxes), truth).tolist()}
                        entry |= {"boxes": {n: list(b) for n, b in found.boxes.items()}, "confidence": found.confidence}
                        entry |= {k: found.details[k] for k in ("correlation", "inverted")}
                        entry["agreement"] = float(np.mean([found.details["agreement"][lung] for lung in LUNGS]))
                        if segmenter is not None:
                            s = localizer.settings
                            better = refine(target.image, found, segmenter, s.enlarge, s.agreement)
                            entry["refined"] = ious(frame_boxes(target, better.boxes), truth).tolist()
                        journal.append(entry)
                print(f"\rsplit {split}, {settings}", end="", flush=True)
    print()


def auroc(scores: np.ndarray, failed: np.ndarray) -> float:
    """Probability that a failure has the lower score."""
    if failed.all() or not failed.any():
        return float("nan")
    gap = scores[~failed][:, None] - scores[failed][None]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean())


def report(args: argparse.Namespace, grid: list[dict[str, Any]]) -> None:
    """Print the tables."""
    entries = [e for e in read_journals(args.out, "localiser") if e["key"][4] == (args.refiner or "")]
    default = json.dumps(grid[0], sort_keys=True)
    mine = [e for e in entries if e["key"][3] == default]
    print(f"{'images':18s} {'n':>4s} {'IoU':>6s} {'10 %':>6s} {'fail':>5s} {'conf.':>6s} {'refined':>8s}")
    for kind in [k for k in KINDS | HARD if any(e["key"][2] == k for e in mine)]:
        chosen = [e for e in mine if e["key"][2] == kind]
        values = np.array([np.mean(e["iou"]) for e in chosen])
        refined = f"{np.mean([np.mean(e['refined']) for e in chosen]):8.3f}" if "refined" in chosen[0] else ""
        confidence = np.mean([e["confidence"] for e in chosen])
        print(
            f"{kind:18s} {len(chosen):4d} {values.mean():6.3f} {np.quantile(values, 0.1):6.3f} "
            f"{(values < FAILURE).sum():5d} {confidence:6.2f} {refined}"
        )
    for name, kinds in (("the spoilt", KINDS), ("the harder", HARD)):
        if chosen := [e for e in mine if e["key"][2] in kinds]:
            foretold(name, chosen)
    flagged = [e["inverted"] == (e["key"][2] == "inverted") for e in mine]
    print(f"grey scale told right: {np.mean(flagged):.3f}")
    if len(grid) > 1:
        _cross_validated(entries)


def foretold(name: str, entries: list[dict[str, Any]]) -> None:
    """How well failures are foretold."""
    values = np.array([np.mean(e["iou"]) for e in entries])
    radiographs = np.array([e["key"][1] for e in entries])
    for failure in FAILURES:
        failed = values < failure
        if failed.all() or not failed.any():
            print(f"{name}, IoU below {failure}: {failed.sum()} of {len(entries)}")
            continue
        print(f"{name}, AUROC for IoU below {failure} ({failed.sum()} of {len(entries)}):", end="")
        for of in ("confidence", "agreement", "correlation"):
            scores = np.array([e[of] for e in entries])
            low, high = interval(scores, failed, radiographs)
            print(f"  {of} {auroc(scores, failed):.3f} [{low:.3f}, {high:.3f}]", end="")
        print()
    doubtful = np.array([e["confidence"] for e in entries]) < DOUBTFUL
    failed = values < FAILURE
    print(
        f"{name}, confidence below {DOUBTFUL}: {doubtful.sum()}, {(failed & doubtful).sum()} of them fail; "
        f"of the {(~doubtful).sum()} others {(failed & ~doubtful).sum()}"
    )


def interval(scores: np.ndarray, failed: np.ndarray, radiographs: np.ndarray, draws: int = 1000) -> np.ndarray:
    """95 % of the AUROC over draws of radiographs."""
    rng, each = np.random.default_rng(0), [np.flatnonzero(radiographs == r) for r in np.unique(radiographs)]
    drawn = (np.concatenate([each[k] for k in rng.integers(0, len(each), len(each))]) for _ in range(draws))
    return np.nanquantile([auroc(scores[which], failed[which]) for which in drawn], (0.025, 0.975))


def _cross_validated(entries: list[dict[str, Any]]) -> None:
    table: dict[str, dict[int, list[float]]] = {}
    for e in entries:
        if e["key"][2] == "plain":
            table.setdefault(e["key"][3], {}).setdefault(e["key"][0], []).append(float(np.mean(e["iou"])))
    print("\nsettings, plain images, mean over splits:")
    for settings, by_split in sorted(table.items(), key=lambda item: -np.mean([np.mean(v) for v in item[1].values()])):
        print(f"  {np.mean([np.mean(v) for v in by_split.values()]):.4f}  {settings}")
    splits = sorted(set.intersection(*(set(by_split) for by_split in table.values())))
    if len(splits) > 1:
        held = []
        for split in splits:
            best = max(table, key=lambda s: float(np.mean([np.mean(table[s][k]) for k in splits if k != split])))
            held.append(float(np.mean(table[best][split])))
        print(f"chosen on the other splits: {np.mean(held):.4f}")


def hearts(source: str, folder: str, pool: str, count: int | None) -> None:
    """The heart against the experts' boxes of cardiomegaly."""
    rules = {"voted": AnatomyLocalizer(pool, settings={"heart": False}), "measured": AnatomyLocalizer(pool)}
    enlarged = [c for c in open_source(source, folder) if c.attribute.lower() == "cardiomegaly" and c.boxes]
    enlarged = [c for c in enlarged if c.image_path.is_file()][:count]
    for name, rule in rules.items():
        localised = [rule.localise(c.image_path).boxes for c in enlarged]
        found = np.array([boxes["cardiac silhouette"] for boxes in localised])
        true = np.array([c.boxes[0] for c in enlarged])
        lungs = np.array([[boxes[lung][1::2] for lung in LUNGS] for boxes in localised])
        height = (lungs[..., 1].max(1) - lungs[..., 0].min(1))[:, None]
        off = (true - found)[:, 1::2] / height
        others = [np.median(np.delete(off, k, 0), 0) for k in range(len(off))]
        moved = found.copy()
        moved[:, 1::2] += others * height
        whole = ious(found, true)
        across = ious(found * (1, 0, 1, 0) + (0, 0, 0, 1), true * (1, 0, 1, 0) + (0, 0, 0, 1))
        print(
            f"hearts of {source}, {name}: {len(enlarged)}, mean IoU {whole.mean():.3f}, "
            f"10 % {np.quantile(whole, 0.1):.3f}, of the width {across.mean():.3f}, "
            f"top and bottom moved as the others' {ious(moved, true).mean():.3f}"
        )


def pictures(args: argparse.Namespace) -> None:
    """The worst of the first split."""
    radiographs = read(args.data)
    entries = [e for e in read_journals(args.out, "localiser") if e["key"][0] == 0 and e["key"][3] == "{}"]
    worst = sorted(entries, key=lambda e: float(np.mean(e["iou"])))[:40]
    shown = []
    for e in worst:
        target = spoilt(radiographs[e["key"][1]], e["key"][2])
        truth = frame_boxes(target, {lung: target.box(lung) for lung in LUNGS})
        shown.append(thumbnail(target, truth, frame_boxes(target, e["boxes"]), float(np.mean(e["iou"]))))
    sheet(shown, 8).save(args.sheet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="folder of the journal; the same command resumes")
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="use every n-th target")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, *HARD], default=[*KINDS, *HARD])
    parser.add_argument("--grid", type=json.loads, default=[], help="JSON list of settings beside the default ones")
    parser.add_argument("--refiner", help="litemedsam, a checkpoint or a SamModel folder")
    parser.add_argument(
        "--hearts", action="append", default=[], metavar="SOURCE=DIR", help="with boxes of cardiomegaly"
    )
    parser.add_argument("--pool", default="phantom", help="references for --hearts")
    parser.add_argument("--count", type=int, help="at most so many hearts")
    parser.add_argument("--sheet", type=Path, help="save the worst of the first split here")
    args = parser.parse_args()
    grid = [{}, *args.grid]
    compute(args, grid)
    report(args, grid)
    for hearts_of in args.hearts:
        source, folder = hearts_of.split("=", 1)
        hearts(source, folder, args.pool, args.count)
    if args.sheet:
        pictures(args)


if __name__ == "__main__":
    main()
