"""Do two datasets rank the methods alike? Kendall's tau between two score files, for each LVLM and mode.

    python benchmarks/rank_agreement.py phantoms/results/direct/scores.json planted/results/direct/scores.json

Every method that both files score by the same LVLM is ranked by its mean IoU. Controls are left out, since methods only
have to agree about methods, and so are methods on fewer than a tenth of the records that another has: their rank is
noise. The interval (95 %, percentile) resamples the patients of both files, each by themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from scipy.stats import kendalltau

from medground_bench.scoring.files import ScoreFile, SubmissionScores, read_scores
from medground_bench.scoring.statistics import cluster_codes, cluster_sums


def agreements(
    first: ScoreFile, second: ScoreFile, metric: str = "iou", resamples: int = 2000, seed: int = 0
) -> Iterator[str]:
    """A line for each LVLM and mode of the first file."""
    rng = np.random.default_rng(seed)
    for lvlm, mode in sorted({(s.lvlm, s.mode) for s in first.submissions}):
        others = {s.method: s for s in second.submissions if (s.lvlm, s.mode) == (lvlm, mode)}
        pairs = [
            (s, others[s.method])
            for s in first.submissions
            if (s.lvlm, s.mode, s.kind) == (lvlm, mode, "method") and s.method in others
        ]
        most = [max((len(pair[k].positions) for pair in pairs), default=0) for k in (0, 1)]
        pairs = [pair for pair in pairs if all(len(pair[k].positions) * 10 >= most[k] for k in (0, 1))]
        if len(pairs) < 3:
            yield f"{lvlm} {mode}: {len(pairs)} methods in both files, at least 3 are needed"
            continue
        sums = [_sums(file, [pair[k] for pair in pairs], metric) for k, file in enumerate((first, second))]
        tau = _tau(*(total.sum(0) / count.sum(0) for total, count in sums))
        drawn = []
        for _ in range(resamples):
            means = []
            for total, count in sums:
                weight = np.bincount(rng.integers(0, len(total), len(total)), minlength=len(total))
                means.append(weight @ total / (weight @ count))
            drawn.append(_tau(*means))
        low, high = np.percentile(drawn, (2.5, 97.5))
        patients = " and ".join(str(len(total)) for total, _ in sums)
        yield f"{lvlm} {mode}: tau {tau:.2f} [{low:.2f}, {high:.2f}] over {len(pairs)} methods ({patients} patients)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs=2, metavar="SCORES")
    parser.add_argument("--metric", default="iou")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    first, second = (read_scores(path) for path in arguments.files)
    for line in agreements(first, second, arguments.metric, arguments.resamples, arguments.seed):
        print(line)


def _tau(a: np.ndarray, b: np.ndarray) -> float:
    return float(kendalltau(a, b).statistic)


def _sums(file: ScoreFile, submissions: list[SubmissionScores], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(patients, methods): sum of the metric and number of records."""
    codes, count = cluster_codes(np.asarray(file.table.cluster))
    sides = [
        cluster_sums(np.stack([s.scores[metric], np.ones(len(s.positions))], 1), codes[s.positions], count)
        for s in submissions
    ]
    total, number = (np.stack([side[:, k] for side in sides], 1) for k in (0, 1))
    there = number.any(1)  # the file's other LVLM may have patients of its own
    return total[there], number[there]


if __name__ == "__main__":
    main()
