"""MedFocus's speed, each as a ratio to dense POT or in parts, in one run on one thread.

Claims: (1) transferring 11 concepts on 56 x 56 cells is at least 200 times faster than dense POT from the same weight
arrays, with the same cell sets; (2) choosing among 16 references on 14 x 14 cells is at least 5 times faster than one
dense solve per reference; (3) what a record's whole MedFocus costs, by part, on a small LVLM. Times are
processor times of one thread, the least of several calls.

    python benchmarks/bench_medfocus.py --lvlm toy_qwen
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from medfocus import AnatomyLocalizer, ReferencePool
from medfocus.intervention import groups, variants
from medfocus.refine import refine
from medfocus.regions import mass_set
from medfocus.uot import image_weights, solve_grid_uot
from medground_bench.core.anatomy import CONCEPTS
from medground_bench.sources.phantom import sample_phantom


def seconds(function: Callable[[], Any], repeat: int) -> float:
    """Least processor time of a call on one thread: what it costs when nothing else runs."""
    function()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def dense_pot(reference: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Supports, plan and raw cost by POT, from weight arrays: cost matrix, its percentile, the solver."""
    from ot.unbalanced import sinkhorn_unbalanced

    width = reference.shape[1]
    y, x = np.divmod(np.arange(reference.size), width)
    a, b = reference.ravel() > 0, target.ravel() > 0
    squared = ((y[a][:, None] - y[b]) ** 2 + (x[a][:, None] - x[b]) ** 2).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cost = squared / np.percentile(squared, 90)
        plan = sinkhorn_unbalanced(reference.ravel()[a], target.ravel()[b], cost, 0.05, 0.1, reg_type="entropy")
    return a, b, plan, float((plan * squared).sum())


def transfer(pool: ReferencePool, image: np.ndarray, target: np.ndarray, repeat: int) -> None:
    reference, arrived = image_weights(image, 56), image_weights(target, 56)
    masks = np.stack([pool[0].masks[c].reshape(56, 4, 56, 4).mean((1, 3)) >= 0.5 for c in CONCEPTS]).astype(float)

    def ours() -> np.ndarray:
        return mass_set(solve_grid_uot(reference, arrived).push(masks))

    def pot() -> np.ndarray:
        a, b, plan, _ = dense_pot(reference, arrived)
        mass = np.zeros((len(masks), arrived.size))
        mass[:, b] = masks.reshape(len(masks), -1)[:, a] @ plan
        return mass_set(mass.reshape(masks.shape))

    fast, slow = seconds(ours, 20 * repeat), seconds(pot, repeat)
    different = int((ours() != pot()).sum())
    print(f"supports of {(reference > 0).sum()} and {(arrived > 0).sum()} cells")
    print(f"transfer of 11 concepts, 56x56: {fast * 1e3:.2f} ms, dense POT {slow * 1e3:.0f} ms: {slow / fast:.0f}x")
    print(f"  cells in which the masks differ: {different} of {int(ours().sum())} chosen (POT stops at 1e-6)")


def selection(pool: ReferencePool, target: np.ndarray, repeat: int) -> None:
    references = np.stack([image_weights(reference.image, 14) for reference in pool])
    arrived = image_weights(target, 14)

    def ours() -> int:
        plan = solve_grid_uot(references, arrived)
        return int(np.argmin(plan.cost * plan.scale))

    def pot() -> int:
        return int(np.argmin([dense_pot(reference, arrived)[3] for reference in references]))

    fast, slow = seconds(ours, 20 * repeat), seconds(pot, 3 * repeat)
    print(f"selection among {len(pool)}, 14x14: {fast * 1e3:.2f} ms, dense POT {slow * 1e3:.1f} ms: {slow / fast:.1f}x")
    print(f"  chosen: {ours()} and {pot()}")


def record(pool: ReferencePool, key: str, size: int, repeat: int) -> None:
    """Parts of one record: localise (both presets), refine, make variants, score 16 images."""
    import torch

    torch.set_num_threads(1)
    from medground_bench.attribution.segmenters import litemedsam_installed, load_segmenter

    if key == "tiny_qwen":
        from medground_bench.lvlm.testing import tiny_qwen

        lvlm = tiny_qwen()
    else:
        from medground_bench.lvlm import load_lvlm

        lvlm = load_lvlm(key)
    image = Image.fromarray(sample_phantom(42, size=size).image)
    grey = np.asarray(image)
    episode = lvlm.prepare(
        image, "Is there evidence of pleural effusion in the image? Answer directly with yes or no.", "Yes"
    )
    print(f"one record of {lvlm.key}, image {size}x{size}:")
    for preset in ("paper", "multi_atlas"):
        localizer = AnatomyLocalizer(pool, preset)
        print(f"  localise, {preset:12s} {seconds(lambda: localizer.locate(grey), repeat) * 1e3:8.0f} ms")  # noqa: B023
    found = localizer.localise(grey)
    if litemedsam_installed():
        start = time.process_time()
        refine(grey, found, load_segmenter("litemedsam"), 1.05)
        print(f"  refine (LiteMedSAM, once)  {(time.process_time() - start) * 1e3:7.0f} ms, with loading the weights")
    members = groups(tuple(found.concepts))
    print(
        f"  15 interventions      {seconds(lambda: variants(episode, found.concepts, members), repeat) * 1e3:8.1f} ms"
    )
    images = [episode.frame_array, *variants(episode, found.concepts, members)]
    print(f"  score 16 images       {seconds(lambda: lvlm.log_probs(episode, images), repeat) * 1e3:8.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lvlm", default="tiny_qwen", help="key or folder of an LVLM; tiny_qwen has random weights")
    parser.add_argument("--size", type=int, default=1024, help="side of the record's image")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--images", nargs=2, help="two radiographs to transport between (default: phantoms)")
    options = parser.parse_args()
    pool = ReferencePool.phantom()
    target = np.asarray(sample_phantom(42, size=224).image)
    reference = pool[0].image
    if options.images:
        from medground_bench.imaging.read import read_image

        reference, target = (np.asarray(read_image(path).resize((224, 224))) for path in options.images)
    transfer(pool, reference, target, options.repeat)
    selection(pool, target, options.repeat)
    record(pool, options.lvlm, options.size, options.repeat)


if __name__ == "__main__":
    main()
