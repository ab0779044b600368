"""A picture of ten phantoms with the question, both toy LVLMs' answers and the ground truth.

    python benchmarks/toy_lvlm_gallery.py --out gallery.png

Claim looked at: the toys answer from the image, in the words they were taught. Each finding is asked about once, on an
unseen phantom; every third question is about a finding that is not there. True evidence is outlined in green; the
title is green where both answers are right, red where one is wrong. The figures over many phantoms come from
``python -m builder_scripts.toy_lvlm evaluate``.
"""

from __future__ import annotations

import argparse
import os
import textwrap
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("toy_lvlm_gallery.png"))
    parser.add_argument("--seed", type=int, default=950_000_000, help="of the first phantom (default %(default)s)")
    options = parser.parse_args(argv)

    import matplotlib

    matplotlib.use("Agg")
    import torch
    from matplotlib import pyplot
    from matplotlib.patches import Rectangle

    from builder_scripts.toy_lvlm.evaluation import answers, said_yes
    from builder_scripts.toy_lvlm.storage import load
    from medground_bench.core.schema import question
    from medground_bench.lvlm.toy import TOYS
    from medground_bench.sources.phantom import FINDINGS, sample_phantom

    torch.set_num_threads(1)
    toys = {name: load(folder) for name, folder in TOYS.items()}
    figure, axes = pyplot.subplots(2, 5, figsize=(20, 12.5), facecolor="white")
    right = 0
    for index, (name, axis) in enumerate(zip(FINDINGS, axes.flat, strict=True)):
        wanted = index % 3 != 2
        seed = options.seed + 100 * index
        while (name in (phantom := sample_phantom(seed)).attributes) != wanted:
            seed += 1
        mode = ("reason", "direct")[index % 2]
        asked = question(name, mode)
        said = {toy: answers(*loaded, [phantom.image], [asked])[0] for toy, loaded in toys.items()}
        correct = all(said_yes(text) is wanted for text in said.values())
        right += sum(said_yes(text) is wanted for text in said.values())
        axis.imshow(phantom.image, cmap="gray", vmin=0, vmax=255)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(textwrap.fill(asked, 48), fontsize=9, color="darkgreen" if correct else "darkred")
        for finding in phantom.findings:
            for x1, y1, x2, y2 in finding.boxes if finding.attribute == name else ():
                axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="lime", linewidth=1.5))
        truth = ", ".join(f"{f.attribute} ({f.location})" for f in phantom.findings) or "no finding"
        lines = [f"{toy}: {text}" for toy, text in said.items()] + [f"truth: {'Yes' if wanted else 'No'} - {truth}"]
        axis.set_xlabel("\n".join(textwrap.fill(line, 50) for line in lines), fontsize=8.5, ha="left", x=0.0)
    figure.tight_layout()
    figure.savefig(options.out, dpi=90)
    print(f"{right} of {len(toys) * len(FINDINGS)} answers right; written to {options.out}")


if __name__ == "__main__":
    main()
