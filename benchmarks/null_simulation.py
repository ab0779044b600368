"""Do the benchmark's intervals cover, and are equal methods called equal? Simulations with a known truth.

Populations of patients are drawn whose scores look like IoU: bounded, skewed, many zeros, alike within a patient, and
of an unequal number of records per patient. Printed per number of patients:

- *coverage* of the 95 % intervals of the mean score (bootstrap-t, as the package computes them), beside that of the
  percentile bootstrap, which version 0.1.0 used, on the same data;
- *any of 66*: how often some pair of 12 equally good methods is called different after Holm's correction at 5 %;
- *one pair*: how often a single pair is, uncorrected.

Claims: coverage within 0.92 to 0.98, any of 66 at most 7 %, one pair at most 6 %, for 6, 12, 30 and 100 patients.
A population outside the claims is printed too: in ``uneven`` the size of a patient's share of the records goes with
their score, which few patients cannot show; and hits that nearly all records have, of which the claim is coverage of at
least 0.95 (most bootstrap samples of few patients have no miss). Usage::

    python benchmarks/null_simulation.py [--trials 2000] [--patients 6 12 30 100] [--nih FOLDER]

``--nih`` adds a population of real values: the scores of the centre prior on NIH ChestX-ray14 boxes, by patient.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy import stats

from medground_bench.scoring import holm, ratio_intervals, sign_flip_test

Population = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]
"""(generator, patients) -> sum of scores and number of records of each patient."""


def population(zeros: float, shape: tuple[float, float], alike: float, largest: int, uneven: float = 0.0) -> Population:
    """Scores that are 0 with a probability and beta-distributed otherwise; a patient's share a common difficulty.

    ``alike`` is the standard deviation of that difficulty against 1 for the records' own; ``uneven`` makes the
    patients with many records the easier ones.
    """

    def draw(rng: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.minimum(rng.geometric(0.35, patients), largest)
        owner = np.repeat(np.arange(patients), sizes)
        difficulty = rng.normal(0, alike, patients) + uneven * (sizes - 3)
        latent = difficulty[owner] + rng.normal(0, 1, len(owner))
        level = stats.norm.cdf(latent / np.hypot(1, alike))
        scores = np.where(level < zeros, 0.0, stats.beta(*shape).ppf((level - zeros).clip(0) / (1 - zeros)))
        return np.bincount(owner, scores, minlength=patients), sizes.astype(np.float64)

    return draw


def rare(rate: float) -> Population:
    """Records that succeed or fail, nearly all alike: with a share ``rate`` of successes, alike within a patient."""

    def draw(rng: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray]:
        sizes = np.minimum(rng.geometric(0.5, patients), 4)
        owner = np.repeat(np.arange(patients), sizes)
        latent = (rng.normal(0, 1, patients)[owner] + rng.normal(0, 1, len(owner))) / np.sqrt(2)
        return np.bincount(owner, latent < stats.norm.ppf(rate), minlength=patients), sizes.astype(np.float64)

    return draw


POPULATIONS: dict[str, Population] = {
    "moderate": population(0.15, (2, 4), 0.5, 6),
    "iou": population(0.4, (1.2, 3), 1.0, 12),
    "sparse": population(0.65, (1, 4), 1.0, 12),
}
BEYOND: dict[str, Population] = {
    "uneven": population(0.4, (1.2, 3), 1.0, 20, uneven=0.2),
    **{f"rare misses, {rate:.0%} hits": rare(rate) for rate in (0.8, 0.95, 0.99)},
}


def nih_population(folder: str) -> Population:
    """Patients drawn with replacement from the real ones; their scores are the centre prior's IoU."""
    from medground_bench.scoring import chance_scores
    from medground_bench.sources import open_source

    found = [c for c in open_source("nih_cxr14", folder) if c.boxes]
    patients = [c.patient_id for c in found]
    sizes = np.full((len(found), 2), 1024.0)
    iou = chance_scores([c.boxes for c in found], sizes, [c.attribute for c in found], patients)["centre_prior"].iou
    owner = np.unique(patients, return_inverse=True)[1]
    sums, counts = np.bincount(owner, iou), np.bincount(owner).astype(np.float64)

    def draw(rng: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = rng.integers(0, len(sums), patients)
        return sums[chosen], counts[chosen]

    return draw


def true_mean(draw: Population) -> float:
    """The mean score of a population, from a million patients."""
    rng = np.random.default_rng(12345)
    sums, sizes = draw(rng, 1_000_000)
    return float(sums.sum() / sizes.sum())


def coverage(
    name: str | Population, patients: int, *, trials: int, seed: int, resamples: int = 2000, percentile: bool = False
) -> float:
    """How often the 95 % interval of the mean holds the population's mean."""
    draw = POPULATIONS[name] if isinstance(name, str) else name
    truth, rng = true_mean(draw), np.random.default_rng([seed, patients])
    hits = 0
    for trial in range(trials):
        sums, sizes = draw(rng, patients)
        if percentile:
            chosen = rng.integers(0, patients, (resamples, patients))
            low, high = np.quantile(sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1), [0.025, 0.975])
        else:
            ((_, low, high),) = ratio_intervals(
                sums[:, None, None], sizes[:, None, None], [(0.0, 1.0)], resamples=resamples, seed=trial
            )
        hits += low <= truth <= high
    return hits / trials


def false_positives(patients: int, *, methods: int, trials: int, seed: int) -> tuple[float, float]:
    """Equal methods that share the patients' difficulty: shares of trials in which some pair, and one pair, differ."""
    rng = np.random.default_rng([seed, patients])
    first, second = np.triu_indices(methods, 1)
    some = one = 0
    for trial in range(trials):
        sizes = np.minimum(rng.geometric(0.35, patients), 12)
        owner = np.repeat(np.arange(patients), sizes)
        shared = rng.normal(0, 1, patients)[owner] + rng.normal(0, 1, len(owner))
        own = rng.normal(0, 0.7, (methods, patients))[:, owner] + rng.normal(0, 0.7, (methods, len(owner)))
        level = stats.norm.cdf((shared + own) / np.sqrt(2 + 2 * 0.49))
        scores = np.where(level < 0.4, 0.0, stats.beta(1.2, 3).ppf((level - 0.4).clip(0) / 0.6))
        sums = np.stack([np.bincount(owner, s, minlength=patients) for s in scores], axis=1)
        p_values = sign_flip_test(sums[:, first] - sums[:, second], seed=trial).tolist()
        some += min(holm(p_values)) <= 0.05
        one += p_values[0] <= 0.05
    return some / trials, one / trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--patients", type=int, nargs="+", default=[6, 12, 30, 100])
    parser.add_argument("--methods", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nih", help="folder of the source nih_cxr14")
    options = parser.parse_args()
    named: dict[str, Population] = {**POPULATIONS, **BEYOND}
    if options.nih:
        named["nih"] = nih_population(options.nih)
    print("| population | patients | coverage of 95 % | percentile bootstrap |\n| --- | ---: | ---: | ---: |")
    for name, draw in named.items():
        for patients in options.patients:
            found = [
                coverage(draw, patients, trials=options.trials, seed=options.seed, percentile=p) for p in (False, True)
            ]
            print(f"| {name} | {patients} | {found[0]:.3f} | {found[1]:.3f} |", flush=True)
    pairs = options.methods * (options.methods - 1) // 2
    print(f"\n| patients | any of {pairs} after Holm | one pair |\n| ---: | ---: | ---: |")
    for patients in options.patients:
        some, one = false_positives(patients, methods=options.methods, trials=options.trials, seed=options.seed)
        print(f"| {patients} | {some:.3f} | {one:.3f} |", flush=True)


if __name__ == "__main__":
    main()
