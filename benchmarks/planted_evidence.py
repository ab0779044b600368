"""Is planted evidence like real evidence, and does nothing but the finding give it away?

    medground-bench plant --canvas DIR --out SET --count 300 --seed 5
    python benchmarks/planted_evidence.py SET

prints the chance rows on the first 300 records and the sizes of the boxes beside those of NIH ChestX-ray14; how many
images a core plants in a second; and the AUC with which a logistic regression on 8 x 8 mean gradients *outside* the
masks tells planted images from canvases. Images and canvases there come from different patients and both lie under
masks of planted findings, so that neither a mask nor a patient says which is which; folds are patients.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation
from scipy.optimize import minimize
from scipy.stats import rankdata

from medground_bench.scoring.chance import chance_scores
from medground_bench.sources import open_source
from medground_bench.sources.distributions import distribution
from medground_bench.sources.planted import CanvasAnatomy, PlantedFile, load_localizer, load_planted, plant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5, help="random halves of the patients")
    arguments = parser.parse_args()
    source = list(open_source("planted", arguments.folder))
    patients = {c.image_id: c.patient_id for c in source}
    images = {image_id: load_planted(arguments.folder, image_id) for image_id in patients}

    records = source[: arguments.records]
    sizes = [images[c.image_id].image.shape[::-1] for c in records]
    boxes, attributes = [c.boxes for c in records], [c.attribute for c in records]
    chance = chance_scores(boxes, sizes, attributes, [c.patient_id for c in records])
    print(f"{len(records)} records of {len({c.patient_id for c in records})} patients; IoU of guesses that never look:")
    for name, scores in chance.items():
        print(f"  {name:12s} {scores.iou.mean():.3f}")
    pairs = zip(records, sizes, strict=True)
    share = [sum((b[2] - b[0]) * (b[3] - b[1]) for b in c.boxes) / (w * h) for c, (w, h) in pairs]
    deciles = np.percentile(share, (10, 50, 90))
    real = distribution("*").area
    print(f"share of the image: deciles 1, 5, 9 {deciles.round(4)}; NIH {real[0]}, {real[4]}, {real[8]}")

    print(f"planted in a second on one core: {_speed(list(images.values())[:24]):.0f} images")
    ids = list(images)
    areas = [_areas(images[i]) for i in ids]
    aucs = [_auc([images[i] for i in ids], areas, [patients[i] for i in ids], k) for k in range(arguments.repeats)]
    print(f"AUC planted against canvas, outside the masks: {np.mean(aucs):.3f} (repeats {np.round(aucs, 3)})")


def _speed(some: list[PlantedFile]) -> float:
    localizer = load_localizer("multi_atlas")
    chests = [(p.canvas, CanvasAnatomy(localizer(p.canvas))) for p in some]
    for canvas, anatomy in chests:
        plant(canvas, anatomy, 0)  # the geometry of a canvas is worked out once
    start = time.process_time()
    for canvas, anatomy in chests:
        _ = plant(canvas, anatomy, 1).image
    return len(chests) / (time.process_time() - start)


def _areas(planted: PlantedFile) -> np.ndarray:
    """Where a gradient may not be taken: its stencil would touch a mask."""
    return np.asarray(binary_dilation(np.any(list(planted.masks.values()), axis=0)))


def _features(pixels: np.ndarray, hidden: np.ndarray) -> list[float]:
    """Mean absolute gradients of 8 x 8 tiles outside the hidden area, down and across."""
    out = []
    for gradient in np.asarray(np.gradient(pixels.astype(np.float32))):
        for rows in np.array_split(np.arange(pixels.shape[0]), 8):
            for columns in np.array_split(np.arange(pixels.shape[1]), 8):
                tile = np.ix_(rows, columns)
                seen = ~hidden[tile]
                out.append(float(np.abs(gradient[tile][seen]).mean()) if seen.sum() > 50 else np.nan)
    return out


def _auc(images: list[PlantedFile], hidden: list[np.ndarray], patients: list[str], seed: int) -> float:
    rng = np.random.default_rng(seed)
    names = sorted(set(patients))
    half = set(rng.permutation(names)[: len(names) // 2])
    fold = {name: k % 10 for k, name in enumerate(rng.permutation(names))}
    rows, truth = [], []
    for image, own, patient in zip(images, hidden, patients, strict=True):
        is_planted = patient in half
        other = hidden[int(rng.integers(len(hidden)))]
        fits = other.shape == own.shape
        rows.append(_features(image.image, own) if is_planted else _features(image.canvas, other if fits else own))
        truth.append(float(is_planted))
    x, y = np.array(rows), np.array(truth)
    x = np.where(np.isnan(x), np.nanmean(x, axis=0), x)
    folds = np.array([fold[p] for p in patients])
    score = np.zeros(len(y))
    for k in range(10):
        train = folds != k
        centre, spread = x[train].mean(0), x[train].std(0) + 1e-6
        weights = _logistic((x[train] - centre) / spread, y[train])
        score[~train] = ((x[~train] - centre) / spread) @ weights[:-1] + weights[-1]
    positive = y.sum()
    return float((rankdata(score)[y == 1].sum() - positive * (positive + 1) / 2) / (positive * (len(y) - positive)))


def _logistic(x: np.ndarray, y: np.ndarray, penalty: float = 10.0) -> np.ndarray:
    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ w[:-1] + w[-1]
        error = 1 / (1 + np.exp(-z)) - y
        value = (np.logaddexp(0, z) - y * z).mean() + penalty / len(y) * (w[:-1] ** 2).sum() / 2
        return float(value), np.append(x.T @ error / len(y) + penalty / len(y) * w[:-1], error.mean())

    return np.asarray(minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x)


if __name__ == "__main__":
    main()
