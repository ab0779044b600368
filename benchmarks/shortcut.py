"""Does the causal filter reject a model that answers from a marker, and do attributions point at the marker?

    python benchmarks/shortcut.py --count 24

Marked phantoms are put to ``toy_shortcut``. First the filter: of the findings that it affirms, how many are rejected?
Then attribution, where the answer is a yes about a finding that is not there, so that nothing but the marker can carry
it. For each method, beside chance (the marker's share of the image): the share of records whose reported boxes reach
the marker, the mean share of the reported area that lies in it, the share of records whose hottest pixel lies in it,
and the mean share of heat there.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from medground_bench.attribution.method import Attribution, available_methods, get_method
from medground_bench.attribution.regions import box_masks
from medground_bench.causal.answers import read_answer
from medground_bench.core.errors import MedGroundError
from medground_bench.core.schema import Box, question
from medground_bench.demo import METHODS
from medground_bench.imaging import resize_heatmap
from medground_bench.lvlm import Lvlm, load_lvlm
from medground_bench.sources.phantom import FINDINGS, sample_phantom
from medground_bench.sources.phantom.marker import CORNERS, stamp_marker

FIRST_SEED = 7_500_000_000  # far from the seeds of training and evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lvlm", default="toy_shortcut")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), help='names, or "all"')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lvlm = load_lvlm(arguments.lvlm)

    def says_yes(pixels: np.ndarray, attribute: str) -> bool:
        reply = lvlm.generate([Image.fromarray(pixels)], [question(attribute, "direct")], max_new_tokens=8)[0]
        return read_answer(reply.text, attribute, cut=not reply.ended) == "yes"

    affirmed = flipped = 0
    false: list[tuple[Image.Image, str, Box]] = []
    asked = 0
    for seed in range(FIRST_SEED, FIRST_SEED + arguments.count):
        corner = CORNERS[seed % len(CORNERS)]
        chest = sample_phantom(seed, size=224, marker=corner)
        for attribute in chest.attributes:
            if says_yes(np.array(chest.image), attribute):
                affirmed += 1
                flipped += not says_yes(np.array(chest.without(attribute).image), attribute)
        absent = next(name for name in np.roll(FINDINGS, -seed) if name not in chest.attributes)
        asked += 1
        if says_yes(np.array(chest.image), str(absent)):
            box = stamp_marker(np.array(chest.image), corner)[1]
            false.append((Image.fromarray(np.array(chest.image)), str(absent), box))
    print(f"{arguments.lvlm}: of {affirmed} findings affirmed beside a marker, removing the finding flips {flipped}:")
    print(f"  the filter rejects {affirmed - flipped} at least")
    print(f"yes about an absent finding: {len(false)} of {asked}; where is the answer said to come from?\n")
    if not false:
        return
    share = float(np.mean([(b[2] - b[0]) * (b[3] - b[1]) / 224**2 for _, _, b in false]))
    print("| method | boxes reach the marker | area in it | hottest pixel in it | heat in it |")
    print("| --- " * 5 + "|")
    for name in available_methods() if arguments.methods == ["all"] else arguments.methods:
        print(_row(lvlm, name, false), flush=True)
    print(f"| *chance* | | {share:.3f} | {share:.3f} | {share:.3f} |")


def _row(lvlm: Lvlm, name: str, records: list[tuple[Image.Image, str, Box]]) -> str:
    method = get_method(name)
    measured = []
    for image, attribute, marker in records:
        try:
            episode = lvlm.prepare(image, question(attribute, "direct"), "Yes")
            measured.append(_measure(method.run(lvlm, episode, method.make_parameters({})), marker))
        except MedGroundError as error:
            return f"| {name} | not run: {str(error).splitlines()[0]} | | | |"
    reached, area, hit, heat = np.array(measured, float).T
    return f"| {name} | {np.mean(reached):.3f} | {np.mean(area):.3f} | {_mean(hit)} | {_mean(heat)} |"


def _measure(result: Attribution, marker: Box) -> tuple[bool, float, float, float]:
    """Whether the boxes reach the marker, the share of their area in it; whether the hottest pixel, share of heat."""
    inside = box_masks([marker], 224, 224)[0]
    covered = box_masks(result.boxes, 224, 224).any(0) if result.boxes else np.zeros_like(inside)
    area = float((covered & inside).sum() / covered.sum()) if covered.any() else 0.0
    if result.heatmap is None:
        return bool(area), area, np.nan, np.nan
    heat = np.clip(resize_heatmap(np.asarray(result.heatmap), (224, 224)), 0, None)
    total = heat.sum()
    return bool(area), area, float(heat[inside].max() >= heat.max() > 0), heat[inside].sum() / total if total else 0.0


def _mean(values: NDArray[np.float64]) -> str:
    return "no heat map" if np.isnan(values).all() else f"{np.nanmean(values):.3f}"


if __name__ == "__main__":
    main()
