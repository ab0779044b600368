"""Phantoms: how well each concept is found, and whether MedFocus names the concept that holds the finding.

First table: mean IoU of every concept's box with the exact mask's box, for copying the references' mean box, ``paper``
and ``multi_atlas`` (with a refiner too where ``--refiner`` is given). Second table, with ``--lvlm``: on phantoms whose
finding the LVLM sees (it answers yes, and no once the finding is taken out), how often MedFocus names the concept that
holds the finding best (exact), or a group or part of it (same), how often its boxes hold at least half of the finding's
pixels without falling back to the whole image (holds), how often it falls back, and the mean share that is covered.

    python benchmarks/phantom_localisation.py --count 20 --lvlm toy_qwen
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from PIL import Image

from medfocus import AnatomyLocalizer, MedFocus, ReferencePool
from medfocus.refine import refine
from medground_bench.core.anatomy import COMPOSITES, CONCEPTS
from medground_bench.core.schema import question
from medground_bench.sources.phantom import FINDINGS, mask_box, sample_phantom

FIRST_SEED = 700_000


def iou(one: Any, two: Any) -> float:
    shared = max(min(one[2], two[2]) - max(one[0], two[0]), 0) * max(min(one[3], two[3]) - max(one[1], two[1]), 0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (one, two)]
    return float(shared / (sum(areas) - shared))


def concept_table(pool: ReferencePool, count: int, size: int, refiner: str | None) -> None:
    rules = {preset: AnatomyLocalizer(pool, preset) for preset in ("paper", "multi_atlas")}
    segmenter = None
    if refiner:
        from medground_bench.attribution.segmenters import load_segmenter

        segmenter = load_segmenter(refiner)
    side = pool[0].image.shape[0]
    mean = {c: np.mean([r.box(c) for r in pool], 0) * size / side for c in CONCEPTS}
    scores: dict[str, dict[str, list[float]]] = {}
    for number in range(count):
        phantom = sample_phantom(FIRST_SEED + number, size=size)
        truth = {c: mask_box(mask) for c, mask in phantom.masks.items()}
        found: dict[str, Any] = {"mean box": mean}
        for name, localizer in rules.items():
            transfer = localizer.localise(phantom.image)
            found[name] = transfer.boxes
            if segmenter is not None:
                refined = refine(
                    phantom.image, transfer, segmenter, localizer.settings.enlarge, localizer.settings.agreement
                )
                found[f"{name} + refiner"] = refined.boxes
        for name, boxes in found.items():
            for concept in CONCEPTS:
                value = iou(boxes[concept], truth[concept]) if concept in boxes else 0.0
                scores.setdefault(name, {}).setdefault(concept, []).append(value)
    print(f"{count} phantoms of {size}x{size}, mean IoU")
    print(" " * 26 + "".join(f"{name:>23s}" for name in scores))
    for concept in CONCEPTS:
        print(f"{concept:26s}" + "".join(f"{np.mean(rows[concept]):23.3f}" for rows in scores.values()))
    print(f"{'mean':26s}" + "".join(f"{np.mean(list(rows.values())):23.3f}" for rows in scores.values()))


def same_anatomy(named: str | None, holding: str) -> bool:
    """The concept itself, a group that has it, or a part of the group."""
    if named is None:
        return False
    return set(COMPOSITES.get(named, (named,))) & set(COMPOSITES.get(holding, (holding,))) != set()


def covered(mask: np.ndarray, boxes: list[Any]) -> float:
    """Share of the finding inside the boxes."""
    inside = np.zeros(mask.shape, bool)
    for x1, y1, x2, y2 in boxes:
        inside[round(y1) : round(y2), round(x1) : round(x2)] = True
    return float((mask & inside).sum() / mask.sum())


def causal_table(pool: ReferencePool, key: str, count: int, size: int, verbose: bool = False) -> None:
    import torch

    torch.set_num_threads(1)
    from medground_bench.causal.answers import read_answer
    from medground_bench.lvlm import load_lvlm

    lvlm = load_lvlm(key)
    rules = {preset: MedFocus(AnatomyLocalizer(pool, preset)) for preset in ("paper", "multi_atlas")}
    rows: dict[str, list[tuple[bool, bool, bool, bool, float]]] = {name: [] for name in rules}
    chance: list[float] = []
    asked = 0
    for number in range(count):
        attribute = FINDINGS[number % len(FINDINGS)]
        phantom = sample_phantom(FIRST_SEED + number, size=size, findings=[attribute])
        image = Image.fromarray(phantom.image)
        text = question(attribute, "direct")
        asked += 1
        with_it, without = lvlm.generate([image, Image.fromarray(phantom.without(attribute).image)], [text, text])
        if read_answer(with_it.text, attribute) != "yes" or read_answer(without.text, attribute) != "no":
            continue
        (finding,) = phantom.findings
        episode = lvlm.prepare(image, text, with_it.text)
        names = (*CONCEPTS, *COMPOSITES)
        chance.append(float(np.mean([same_anatomy(name, finding.concept) for name in names])))
        for name, method in rules.items():
            result = method.attribute(lvlm, episode)
            share = covered(finding.mask, result.boxes)
            exact = result.concept == finding.concept
            same = same_anatomy(result.concept, finding.concept)
            holds = share >= 0.5 and not result.fallback
            rows[name].append((exact, same, holds, result.fallback, share))
            if verbose:
                print(f"  {attribute:22s} in {finding.concept:26s} {name:12s} {result.concept!s:26s} {share:.2f}")
    print(f"{key}: {len(chance)} of {asked} phantoms are records (yes with the finding, no without)")
    if not chance:
        return
    heads = ("exact", "same", "holds", "fallback", "covered")
    print(f"{'':12s}" + "".join(f"{head:>9s}" for head in heads) + f"   (same by chance {np.mean(chance):.2f})")
    for name, values in rows.items():
        print(f"{name:12s}" + "".join(f"{value:9.2f}" for value in np.mean(values, 0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--refiner", default=None, help="litemedsam, a checkpoint or a SamModel folder")
    parser.add_argument("--lvlm", action="append", default=[], help="LVLM key or folder (repeatable)")
    parser.add_argument("--records", type=int, default=60, help="phantoms to ask each LVLM about")
    parser.add_argument("--verbose", action="store_true", help="print every record")
    options = parser.parse_args()
    pool = ReferencePool.phantom()
    if options.count:
        concept_table(pool, options.count, options.size, options.refiner)
    for key in options.lvlm:
        causal_table(pool, key, options.records, options.size, options.verbose)


if __name__ == "__main__":
    main()
