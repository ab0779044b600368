"""What a shared store of scores saves: methods and protocols that ask an LVLM for the same edited images.

    python benchmarks/shared_cache.py DEMO --lvlm toy_qwen --limit 6

Methods run on the first records of a demo's dataset, then protocols on what the demo's submissions say of the same
records: once with everybody asking by himself, once with ``--cache`` (one store for all). Printed are the images that
the LVLM was given, forward, in each case, and whether the boxes are the same.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch

from medground_bench.attribution.generate import generate
from medground_bench.causal.editors import load_editor
from medground_bench.dataset.folder import open_folder
from medground_bench.lvlm import load_lvlm
from medground_bench.lvlm.passes import count_passes
from medground_bench.scoring.protocols.run import run_protocols
from medground_bench.sources import open_source
from medground_bench.submission import open_submission

METHODS = (
    *("medfocus", "medfocus_minimal", "occlusion", "rise", "ensemble_rank", "shapley_anatomy", "sobol"),
    *("lrp", "gradcam", "attention"),
)
PROTOCOLS = ("deletion", "necessity", "sensitivity_n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of medground-bench demo (phantoms)")
    parser.add_argument("--lvlm", default="toy_qwen")
    parser.add_argument("--limit", type=int, default=6, help="records")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--protocols", nargs="+", default=list(PROTOCOLS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    lvlm, dataset = load_lvlm(args.lvlm), open_folder(args.demo / "medground-bench", "direct")
    sources = [open_source("phantom", args.demo / "phantom")]
    spent: dict[str, list[int]] = {}
    boxes = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("one by one", "shared"):
            out = Path(folder) / kind
            cache = out / "scores" if kind == "shared" else None
            with count_passes(lvlm) as made:
                report = generate(dataset, lvlm, args.methods, out / "submissions", limit=args.limit, cache=cache)
            spent.setdefault("methods", []).append(made.forward)
            made_now = report.submissions.values()
            boxes.append({p.name: [r.boxes for r in open_submission(p).predictions().values()] for p in made_now})
            paths = [args.demo / "submissions" / args.lvlm / "direct" / name for name in args.methods]
            paths = [path for path in paths if path.is_dir()]
            for name in args.protocols:
                with count_passes(lvlm) as made:
                    for group in [paths] if cache is not None else [[path] for path in paths]:
                        found = run_protocols(
                            group,
                            dataset,
                            [name],
                            out / (name if cache is not None else f"{name}-{group[0].name}"),
                            lvlm=lvlm,
                            editor=load_editor("phantom"),
                            sources=sources,
                            limit=args.limit,
                            cache=cache,
                            resamples=100,
                        )
                        if kind == "shared":
                            for line in [*found.missing, *found.errors]:
                                print(f"left out: {line}")
                spent.setdefault(name, []).append(made.forward)
    print(f"{args.lvlm}, {args.limit} records, {len(args.methods)} methods, {len(paths)} of them evaluated\n")
    print("| what | images one by one | images with one store | ratio |\n| --- | --- | --- | --- |")
    for name, (alone, shared) in {**spent, "all": [sum(v[k] for v in spent.values()) for k in (0, 1)]}.items():
        print(f"| {name} | {alone} | {shared} | {alone / max(shared, 1):.2f}x |")
    same = [name for name in boxes[0] if boxes[0][name] == boxes[1][name]]
    print(f"\nboxes equal to the bit: {len(same)} of {len(boxes[0])} methods")


if __name__ == "__main__":
    main()
