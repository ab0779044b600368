"""What the true evidence of phantoms scores when it is told in tokens, tiles or pixels, and as one concept.

For every grid: the ceiling (the best set of cells, hard-edged, through the box protocol), with a 95 % interval over
phantoms; the share of findings that are smaller than a cell; and, for comparison, two maps on the same grid that are
interpolated to the frame as a method's is: the best set of cells, and the cells' shares of evidence as they are.

    python benchmarks/ceilings.py --grid 8x8,12x12,16x16,28x28 --findings 300 [--lvlm toy_qwen] [--concepts]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
from PIL import Image

from medground_bench.core.console import progress_bar
from medground_bench.core.schema import Box
from medground_bench.imaging import Letterbox, heatmap_to_boxes, mask_box, resize_heatmap
from medground_bench.imaging.areas import RaggedBoxes, ragged, record_areas
from medground_bench.imaging.overlap import score_boxes
from medground_bench.scoring import ceiling_scores
from medground_bench.scoring.heatmaps import cell_coverage
from medground_bench.scoring.rows import interval_text
from medground_bench.scoring.statistics import ratio_intervals
from medground_bench.sources.phantom import sample_phantom

FIRST_SEED = 7_000_000_000  # far from the seeds of training and evaluation
SIDE = 224


def findings(count: int, concepts: bool) -> tuple[RaggedBoxes, np.ndarray, np.ndarray, np.ndarray | None]:
    """Evidence, image sizes, phantoms, and the best concept's IoU of ``count`` findings."""
    boxes: list[Sequence[Box]] = []
    sizes: list[tuple[int, int]] = []
    owner: list[int] = []
    best: list[float] = []
    with progress_bar("drawing") as progress:
        seed = FIRST_SEED
        while len(boxes) < count:
            progress(len(boxes), count, "phantoms")
            phantom = sample_phantom(seed)
            height, width = phantom.image.shape
            known = [[box] for box in map(mask_box, phantom.masks.values()) if box is not None] if concepts else []
            for finding in phantom.findings:
                boxes.append(finding.boxes)
                sizes.append((width, height))
                owner.append(seed)
                if known:
                    best.append(float(score_boxes(known, [finding.boxes] * len(known)).iou.max()))
            seed += 1
    kept = np.array(best[:count]) if concepts else None
    return ragged(boxes[:count]), np.array(sizes[:count], float), np.array(owner[:count]), kept


def interpolated(evidence: RaggedBoxes, sizes: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """IoU of the best set of cells and of the shares of evidence, as maps that are interpolated to the frame."""
    sets, shares = [], []
    start = np.cumsum(evidence.counts) - evidence.counts
    rows, cols = (np.linspace(0, SIDE, count + 1) for count in grid)
    for k, (width, height) in enumerate(sizes.astype(int).tolist()):
        frame = Letterbox.fit(width, height, SIDE)
        truth = evidence.boxes[start[k] : start[k] + evidence.counts[k]]
        share = cell_coverage(np.array(frame.to_frame(truth)), rows, cols) * grid[0] * grid[1] / SIDE**2
        share = np.round(share, 9)
        maps = [share, *((share >= level).astype(float) for level in np.unique(share[share > 0]))]
        told = [frame.to_native(heatmap_to_boxes(resize_heatmap(m, (SIDE, SIDE)))) for m in maps]
        iou = score_boxes(told, [truth] * len(told)).iou
        shares.append(iou[0])
        sets.append(iou[1:].max())
    return np.array(sets), np.array(shares)


def token_grid(key: str) -> tuple[int, int]:
    from medground_bench.lvlm import load_lvlm

    grid = load_lvlm(key, device="cpu").prepare(Image.new("L", (SIDE, SIDE)), "?", "Yes", side=SIDE).grid
    return grid.map_shape


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", default="8x8,12x12,16x16,28x28", help="ROWSxCOLS, separated by commas")
    parser.add_argument("--lvlm", nargs="*", default=[], help="also the token grids of these")
    parser.add_argument("--findings", type=int, default=300)
    parser.add_argument("--concepts", action="store_true", help="also the best anatomical concept")
    args = parser.parse_args()
    grids = {}
    for text in args.grid.split(","):
        rows, cols = (int(v) for v in text.split("x"))
        grids[text] = (rows, cols)
    grids |= {key: token_grid(key) for key in args.lvlm}
    evidence, sizes, owner, concept = findings(args.findings, args.concepts)
    fraction = record_areas(evidence, evidence).evidence / sizes.prod(axis=1)
    patient = np.unique(owner, return_inverse=True)[1]

    def mean(values: np.ndarray) -> str:
        sums, counts = np.bincount(patient, values), np.bincount(patient).astype(float)
        (interval,) = ratio_intervals(sums[:, None, None], counts[:, None, None], [(0.0, 1.0)])
        return interval_text(interval)

    print(f"{args.findings} findings of {patient.max() + 1} phantoms, evidence {fraction.mean():.3f} of the image")
    print("| space | ceiling, IoU | smaller than a cell | best set, interpolated | shares, interpolated |")
    print("| --- " * 5 + "|")
    for name, grid in grids.items():
        ceiling = ceiling_scores(evidence, sizes, grid, side=SIDE).iou
        small = float((fraction < 1 / (grid[0] * grid[1])).mean())
        best, share = interpolated(evidence, sizes, grid)
        print(f"| {name} | {mean(ceiling)} | {small:.0%} | {best.mean():.3f} | {share.mean():.3f} |", flush=True)
    print(f"| pixels | {mean(ceiling_scores(evidence, sizes, None, side=SIDE).iou)} | | | |")
    if concept is not None:
        print(f"| best concept | {mean(concept)} | | | |")


if __name__ == "__main__":
    main()
