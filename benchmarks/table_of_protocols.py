"""One table of all protocols on causally verified records, for each toy LVLM, and what they say of each other.

Phantoms with exact counterfactuals and, with ``--canvas``, findings planted in real radiographs go through the demo's
chain (filter, dataset, methods, scores); then every protocol runs on every submission of direct mode. Protocols that
run the methods again on other inputs take the first records only (``--reruns``), where 30 are enough. At the end stand
the rank agreement of every measure with the verified evidence (``medground-bench meta``) and what the shared cache
saves: the passes that all methods' deletion curves cost together against one by one. Everything resumes: run the same
command again after an interruption. Nothing is asserted: the tables are what comes out. Hours on an idle core; a GPU is
used where there is one, and ``accelerate launch --num_processes N benchmarks/table_of_protocols.py ...`` shares records
once the demo's part is done.

    python benchmarks/table_of_protocols.py OUT --records 100 --canvas FOLDER_OF_NORMAL_RADIOGRAPHS
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from medground_bench.causal.editors import load_editor
from medground_bench.cli._score_tables import console, print_agreements, print_protocol
from medground_bench.core.processes import process_group
from medground_bench.dataset.folder import open_folder
from medground_bench.demo import LVLMS, run_demo
from medground_bench.demo import METHODS as DEMO
from medground_bench.lvlm import load_lvlm
from medground_bench.scoring import read_scores
from medground_bench.scoring.protocols.meta import kendall_matrix, rank_agreement
from medground_bench.scoring.protocols.protocol import available_protocols, get_protocol
from medground_bench.scoring.protocols.result import read_results
from medground_bench.scoring.protocols.run import run_protocols
from medground_bench.sources import open_source

CONTROLS = ("random_map", "centre_prior", "sobel")
METHODS = (*(name for name in DEMO if name not in CONTROLS), "integrated_gradients")

LIGHT = {
    "necessity": {"draws": 4},
    "necessity_edited": {"draws": 4},
    "deletion": {"steps": 16, "randoms": 3},
    "pic": {"shares": (0.02, 0.05, 0.1, 0.21, 0.5)},
    "road": {"shares": (0.1, 0.3, 0.5, 0.7, 0.9)},
    "sensitivity_n": {"sets": 40},
    "infidelity": {"sets": 60},
    "noise": {"levels": (8, 32)},
}
"""Fewer draws than the defaults, for a table that comes out in hours: ``--full`` takes the defaults."""


def demo(out: Path, args: argparse.Namespace, canvas: Path | None) -> Path:
    """The demo's chain up to its scores; what is there stays."""
    import contextlib

    @contextlib.contextmanager
    def quiet(title: str) -> Any:
        shown = [-1]

        def update(done: int, total: int, what: str) -> None:
            if total and done * 20 // total != shown[0]:
                shown[0] = done * 20 // total
                print(f"  {title}: {done}/{total} {what}", file=sys.stderr, flush=True)

        yield update

    run_demo(
        out,
        records=args.records,
        methods=[*args.methods, *args.controls],
        canvas=canvas,
        processes=args.processes,
        progress=quiet,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    return out


def evaluate(folder: Path, source: str, key: str, names: list[str], args: argparse.Namespace) -> None:
    """All protocols on all submissions of one LVLM; those that run the methods again in a folder of their own."""
    dataset = open_folder(folder / "medground-bench", "direct")
    if not any(record.model == key for record in dataset):
        print(f"{key}: no record passed the filter", file=sys.stderr)
        return
    base = folder / "submissions" / key / "direct"  # of a larger demo, the methods that are asked for
    submissions = [base / name for name in (*args.methods, *args.controls) if (base / name).is_dir()]
    lvlm, editor, group = load_lvlm(key), load_editor(source), process_group()
    sources = [open_source(source, folder / source)]
    rerun = [name for name in names if "method" in get_protocol(name).needs]
    for part, chosen, limit in (
        ("evaluated", [n for n in names if n not in rerun], args.limit),
        ("reruns", rerun, min(args.reruns, args.limit or args.reruns)),
    ):
        if not chosen:
            continue
        report = run_protocols(
            submissions,
            dataset,
            chosen,
            folder / part / key,
            lvlm=lvlm,
            editor=editor,
            sources=sources,
            settings={} if args.full else {n: v for n, v in LIGHT.items() if n in chosen},
            limit=limit,
            rank=group.rank,
            world_size=group.world_size,
            progress=lambda done, total, what: print(f"\r  {key} {done}/{total} {what:60}", end="", file=sys.stderr),
        )
        for line in [*report.missing, *report.errors]:
            print(f"left out: {line}", file=sys.stderr)


def show(folders: list[Path]) -> None:
    """Every table, the agreement and the saving."""
    out = console()
    results, files = [], []
    for folder in folders:
        for part in ("evaluated", "reruns"):
            results += [r for path in sorted((folder / part).glob("*")) for r in read_results(path)]
        files.append(read_scores(folder / "results" / "direct" / "scores.json"))
    for folder_name, lvlm, name in dict.fromkeys((r.dataset, r.lvlm, r.protocol) for r in results):
        rows = [r for r in results if (r.dataset, r.lvlm, r.protocol) == (folder_name, lvlm, name)]
        print_protocol(rows, out, tables=False)
    for truth in (("scores", "iou"), ("necessity_edited", "verified")):
        names, matrix = kendall_matrix(results, files)
        print_agreements(rank_agreement(results, files, truth), ".".join(truth), names, matrix, out)
    for dataset, lvlm in dict.fromkeys((r.dataset, r.lvlm) for r in results):
        for name in ("deletion", "necessity", "sensitivity_n"):
            rows = [r for r in results if (r.dataset, r.lvlm, r.protocol) == (dataset, lvlm, name)]
            made, found = (sum(r.count[k] for r in rows) for k in ("passes", "found"))
            if made:
                print(
                    f"shared cache, {lvlm}, {name}: {len(rows)} methods together {made} passes, "
                    f"one by one {made + found}: {(made + found) / made:.2f}x fewer"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--records", type=int, default=100, help="candidates put to the filter, for each LVLM")
    parser.add_argument("--canvas", type=Path, help="folder of normal radiographs, for planted records")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--controls", nargs="*", default=list(CONTROLS))
    parser.add_argument("--protocols", nargs="+", default=available_protocols())
    parser.add_argument("--lvlm", nargs="+", default=list(LVLMS))
    parser.add_argument("--limit", type=int, help="only the first N records of each LVLM")
    parser.add_argument("--reruns", type=int, default=30, help="records of the protocols that run the methods again")
    parser.add_argument("--processes", type=int, default=1, help="of the demo's part")
    parser.add_argument("--full", action="store_true", help="the protocols' own defaults")
    parser.add_argument("--show", action="store_true", help="only print what is there")
    args = parser.parse_args()
    wanted = [("phantom", None), *([("planted", args.canvas)] if args.canvas else [])]
    folders = [args.out / source for source, _ in wanted]
    if not args.show:
        for source, canvas in wanted:
            folder = args.out / source
            if not (folder / "results" / "direct" / "scores.json").is_file():
                demo(folder, args, canvas)
            for key in args.lvlm:
                evaluate(folder, source, key, args.protocols, args)
    if process_group().rank == 0:
        show(folders)


if __name__ == "__main__":
    main()
