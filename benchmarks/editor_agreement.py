"""How often does the causal filter judge alike with an imperfect editor and with the exact counterfactual?

    medground-bench plant --canvas DIR --out SET --count 100 --seed 5
    python benchmarks/editor_agreement.py SET --lvlm toy_gemma --editor inpaint --out VERDICTS

Runs the filter over a planted set twice, with the exact editor and with another, and prints how the verdicts compare:
what a benchmark pays for not having exact counterfactuals. Resumes in VERDICTS.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from medground_bench.causal.editors import load_editor
from medground_bench.causal.filter import filter_candidates
from medground_bench.causal.verdicts import Verdict, read_verdicts
from medground_bench.core.console import progress_bar
from medground_bench.core.schema import GATES, MODES
from medground_bench.lvlm import load_lvlm
from medground_bench.scoring.statistics import bootstrap_ratios
from medground_bench.sources import open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--lvlm", nargs="+", default=["toy_qwen", "toy_gemma"])
    parser.add_argument("--mode", choices=MODES, default="direct")
    parser.add_argument("--editor", default="inpaint")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = open_source("planted", arguments.folder)
    patients = {c.image_id: c.patient_id for c in source}
    for key in arguments.lvlm:
        lvlm = load_lvlm(key)
        found = []
        for name in ("planted", arguments.editor):
            folder = arguments.out / name
            with progress_bar(f"{key} {name}") as update:
                filter_candidates(
                    lvlm,
                    arguments.mode,
                    {"planted": source},
                    load_editor(name),
                    folder,
                    limit=arguments.limit,
                    progress=update,
                )
            found.append(
                {
                    (v.image_id, v.attribute): v
                    for v in read_verdicts(folder)
                    if (v.model, v.mode) == (key, arguments.mode) and v.verdict not in ("error", "skipped")
                }
            )
        _report(key, arguments, found[0], found[1], patients)


def _report(
    key: str,
    arguments: argparse.Namespace,
    exact: dict[tuple[str, str], Verdict],
    other: dict[tuple[str, str], Verdict],
    patients: dict[str, str],
) -> None:
    both = [pair for pair in exact if pair in other]
    kept = np.array([[exact[pair].gate is None, other[pair].gate is None] for pair in both])
    same = kept[:, 0] == kept[:, 1]
    agree = bootstrap_ratios(
        same.astype(float), np.ones(len(both)), [patients[image] for image, _ in both], bounds=[(0.0, 1.0)]
    )[0]
    table = Counter(map(tuple, kept.tolist()))
    chance = kept.mean(0).prod() + (1 - kept.mean(0)).prod()
    kappa = (same.mean() - chance) / (1 - chance) if chance < 1 else float("nan")
    print(f"{key} {arguments.mode}: {len(both)} candidates, the exact editor against {arguments.editor}")
    print(f"  verdicts agree on {agree.value:.3f} [{agree.low:.3f}, {agree.high:.3f}] (kappa {kappa:.2f})")
    print(
        f"  kept by both {table[True, True]}, by the exact one alone {table[True, False]}, "
        f"by {arguments.editor} alone {table[False, True]}, by neither {table[False, False]}"
    )
    for name, verdicts in (("exact", exact), (arguments.editor, other)):
        gates = Counter(verdicts[pair].gate for pair in both)
        print(f"  {name}: kept {gates[None]}; fell at " + ", ".join(f"{gate} {gates[gate]}" for gate in GATES))


if __name__ == "__main__":
    main()
