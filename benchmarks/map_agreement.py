"""How well do maps agree with causal effects of image tokens, and do they depend on the question?

    python benchmarks/map_agreement.py DEMO --questions 6

Two rank correlations (Spearman, mean over records) of the heat maps of a demo's submissions, averaged to the token
grid. With those of ``token_patching``: how well a method estimates the effect of single image tokens. With the map that
the method gives when another question is asked about the same image (for ``--questions`` records, which are run again):
1 for a method that is blind to the question.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from medground_bench.attribution.method import Method, get_method
from medground_bench.core.errors import MedGroundError
from medground_bench.core.schema import question
from medground_bench.dataset.folder import open_folder
from medground_bench.imaging import resize_heatmap
from medground_bench.lvlm import Lvlm, load_lvlm
from medground_bench.submission import Submission, open_submission

REFERENCE = "token_patching"


def on_grid(grid: Any, heat: np.ndarray) -> np.ndarray:
    """A map's mean in every token's box."""
    if heat.shape == grid.map_shape:
        return heat
    width, height = grid.frame_size
    mean: np.ndarray = grid.from_frame(resize_heatmap(heat, (height, width)))
    return mean


def maps_of(submission: Submission, grid: Any, wanted: list[str]) -> dict[str, np.ndarray]:
    """Record id -> the submitted map on the token grid."""
    rows = submission.predictions()
    found = {key: rows[key].heatmap for key in wanted if key in rows}
    return {key: on_grid(grid, np.load(submission.path / name)) for key, name in found.items() if name}


def method_of(submission: Submission) -> tuple[Method, Any]:
    method = get_method(str(submission.header["method"]))
    names = {field.name for field in fields(method.parameters)}
    settings = submission.header.get("settings", {})
    return method, method.make_parameters({k: v for k, v in settings.items() if k in names})


def mean_correlation(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> str:
    """Mean over the pairs in which neither map is constant."""
    values = [float(spearmanr(a.ravel(), b.ravel()).statistic) for a, b in pairs if np.ptp(a) and np.ptp(b)]
    return f"{np.mean(values):.2f} ({len(values)})" if values else ""


def report(lvlm: Lvlm, demo: Path, mode: str, count: int) -> None:
    records = [r for r in open_folder(demo / "medground-bench", mode) if r.model == lvlm.key]
    base = demo / "submissions" / lvlm.key / mode
    submissions = {p.parent.name: open_submission(p.parent) for p in sorted(base.glob("*/submission.json"))}
    first = lvlm.prepare(records[0].image, records[0].question, records[0].response or "")
    ids = [record.id for record in records]
    patched = maps_of(submissions[REFERENCE], first.grid, ids)
    attributes = sorted({record.attribute for record in records})
    rows = []
    for name, submission in submissions.items():
        own = maps_of(submission, first.grid, ids)
        if not own:
            continue
        with_patching = mean_correlation((own[k], patched[k]) for k in ids if k in own and k in patched)
        method, parameters = method_of(submission)
        other = {}
        for record in records[:count] if name != REFERENCE or count else []:
            asked = question(attributes[(attributes.index(record.attribute) + 1) % len(attributes)], mode)
            try:
                episode = lvlm.prepare(record.image, asked, record.response or "")
                heat = method.run(lvlm, episode, parameters).heatmap
            except MedGroundError:
                continue  # counted: the number of pairs stands behind the mean
            if heat is not None:
                other[record.id] = on_grid(first.grid, np.asarray(heat, float))
        across = mean_correlation((own[k], other[k]) for k in other if k in own)
        rows.append((name, with_patching, across, "" if method.question_aware else "blind to the question"))
    print(f"\n## {lvlm.key}, {mode}: {len(records)} records\n")
    print("| method | with token patching (records) | with another question's map (records) | |\n" + "| --- " * 4 + "|")
    for row in sorted(rows, key=lambda row: -float(row[1].split()[0]) if row[1] else 2.0):
        print("| " + " | ".join(row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of medground-bench demo, with token_patching among its methods")
    parser.add_argument("--lvlm", nargs="+", default=["toy_qwen", "toy_gemma"])
    parser.add_argument("--mode", default="direct")
    parser.add_argument("--questions", type=int, default=6, help="records that another question is asked about")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for key in args.lvlm:
        report(load_lvlm(key), args.demo, args.mode, args.questions)


if __name__ == "__main__":
    main()
