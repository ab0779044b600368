"""Does the causal filter reject a model that answers from a marker, and do attributions point at the marker?

    python benchmarks/shortcut.py --count 24

Marked phantoms are put to ``toy_shortcut``. First the filter: of the findings that it affirms, how many are rejected?
Then attribution, where the answer is a yes about a finding that is not there, so that nothing but the marker can carry
it: the share of records whose hottest pixel lies in the marker, and the mean share of heat there, beside the marker's
share of the image (chance).
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from PIL import Image

from medground_bench.attribution.method import get_method
from medground_bench.causal.answers import read_answer
from medground_bench.core.errors import MedGroundError
from medground_bench.core.schema import question
from medground_bench.demo import METHODS
from medground_bench.lvlm import Lvlm, load_lvlm
from medground_bench.sources.phantom import FINDINGS, sample_phantom
from medground_bench.sources.phantom.marker import CORNERS, stamp_marker

FIRST_SEED = 7_500_000_000  # far from the seeds of training and evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lvlm", default="toy_shortcut")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lvlm = load_lvlm(arguments.lvlm)

    def says_yes(pixels: np.ndarray, attribute: str) -> bool:
        reply = lvlm.generate([Image.fromarray(pixels)], [question(attribute, "direct")], max_new_tokens=8)[0]
        return read_answer(reply.text, attribute, cut=not reply.ended) == "yes"

    affirmed = flipped = 0
    false: list[tuple[Image.Image, str, tuple[float, ...]]] = []
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
    share = np.mean([(b[2] - b[0]) * (b[3] - b[1]) / 224**2 for _, _, b in false])
    print("| method | hottest pixel in the marker | share of heat there |\n| --- | --- | --- |")
    for name in arguments.methods:
        print(_row(lvlm, name, false), flush=True)
    print(f"| *chance* | {share:.3f} | {share:.3f} |")


def _row(lvlm: Lvlm, name: str, records: list[tuple[Image.Image, str, tuple[float, ...]]]) -> str:
    method = get_method(name)
    hits, shares = [], []
    for image, attribute, box in records:
        try:
            episode = lvlm.prepare(image, question(attribute, "direct"), "Yes")
            heat = method.run(lvlm, episode, method.make_parameters({})).heatmap
        except MedGroundError as error:
            return f"| {name} | not run: {str(error).splitlines()[0]} | |"
        if heat is None:
            return f"| {name} | no heat map | |"
        heat = np.clip(np.asarray(heat, float), 0, None)
        x1, y1, x2, y2 = (int(v) for v in box)
        inside = np.zeros(heat.shape, bool)
        inside[y1:y2, x1:x2] = True
        hits.append(heat[inside].max() >= heat.max() > 0)
        shares.append(heat[inside].sum() / heat.sum() if heat.sum() else 0.0)
    return f"| {name} | {np.mean(hits):.3f} ({len(hits)}) | {np.mean(shares):.3f} |"


if __name__ == "__main__":
    main()
