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
    python benchmarks/table_of_protocols.py OUT --canvas FOLDER --show --page docs/results.md

With ``--page`` what is there goes into a page, between ``<!-- protocols -->`` and ``<!-- /protocols -->``: for each set
the measure that each protocol puts in front (and those of :data:`BESIDE`), the records of both LVLMs together, with
intervals over patients; the agreement of each with the verified evidence, by set; and the saving.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medground_bench.causal.editors import load_editor
from medground_bench.cli._score_tables import console, print_agreements, print_protocol
from medground_bench.core.files import atomic_write
from medground_bench.core.processes import process_group
from medground_bench.dataset.folder import open_folder
from medground_bench.demo import LVLMS, run_demo
from medground_bench.demo import METHODS as DEMO
from medground_bench.lvlm import load_lvlm
from medground_bench.scoring import ScoreFile, read_scores
from medground_bench.scoring.protocols.meta import kendall_matrix, rank_agreement
from medground_bench.scoring.protocols.protocol import Measure, available_protocols, get_protocol
from medground_bench.scoring.protocols.result import ProtocolResult, read_results
from medground_bench.scoring.protocols.run import run_protocols
from medground_bench.scoring.rows import interval_text
from medground_bench.scoring.statistics import cluster_codes, cluster_sums, ratio_intervals
from medground_bench.sources import open_source

CONTROLS = ("random_map", "centre_prior", "sobel")
METHODS = (*(name for name in DEMO if name not in CONTROLS), "integrated_gradients")

LIGHT: dict[str, dict[str, Any]] = {
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


BESIDE = {
    "necessity": ("necessity_blur", "sufficiency_blur", "flip_blur", "kept_blur"),
    "necessity_edited": ("verified",),
    "chexlocalize": ("iou_otsu",),
}
"""Measures shown beside the one in front."""


def read(folder: Path) -> tuple[list[ProtocolResult], ScoreFile]:
    """What the protocols found on the submissions of a demo, and its scores."""
    paths = [path for part in ("evaluated", "reruns") for path in sorted((folder / part).glob("*"))]
    return [r for path in paths for r in read_results(path)], read_scores(folder / "results" / "direct" / "scores.json")


def both_lvlms(results: Sequence[ProtocolResult], measure: str) -> str:
    """Mean of a measure over the records of results that number patients alike, with its interval over patients."""
    values = np.concatenate([r.values.get(measure, np.full(len(r.ids), np.nan)) for r in results])
    there = ~np.isnan(values)
    if not there.any():
        return ""
    codes, count = cluster_codes(np.concatenate([r.clusters for r in results])[there])
    total, number = (cluster_sums(c[:, None], codes, count)[:, None] for c in (values[there], np.ones(there.sum())))
    bounds = next(m.bounds for m in results[0].measures if m.name == measure)
    (interval,) = ratio_intervals(total, number, [bounds])
    return interval_text(interval)


def columns_of(results: Sequence[ProtocolResult]) -> list[tuple[str, Measure]]:
    """The measures shown: each protocol's first and those beside it, where there is a value; IoU has its column."""
    fronts = {r.protocol: r.measures for r in results if r.protocol != "strata"}
    known = {(r.protocol, name) for r in results for name, column in r.values.items() if not np.isnan(column).all()}
    return [
        (protocol, measure)
        for protocol, measures in fronts.items()
        for wanted in (measures[0].name, *BESIDE.get(protocol, ()))
        for measure in measures
        if measure.name == wanted and (protocol, wanted) in known
    ]


def table_of_methods(name: str, results: Sequence[ProtocolResult], file: ScoreFile) -> list[str]:
    """Markdown: a row a method, best IoU first; a column a measure."""
    columns, rows = columns_of(results), []
    for method in dict.fromkeys(r.method for r in results):
        iou = float(np.nanmean(np.concatenate([s.scores["iou"] for s in file.submissions if s.method == method])))
        found = [[r for r in results if (r.method, r.protocol) == (method, protocol)] for protocol, _ in columns]
        cells = [both_lvlms(some, m.name) if some else "" for some, (_, m) in zip(found, columns, strict=True)]
        rows.append((iou, f"| `{method}` | {iou:.3f} | " + " | ".join(cells) + " |"))

    def most(protocol: str, measure: str) -> int:
        """Of how many records of one method it is."""
        counts: Counter[str] = Counter()
        for r in results:
            if r.protocol == protocol and measure in r.values:
                counts[r.method] += int((~np.isnan(r.values[measure])).sum())
        return max(counts.values())

    lvlms = sorted({r.lvlm for r in results})
    counts = {lvlm: len({record for r in results if r.lvlm == lvlm for record in r.ids}) for lvlm in lvlms}
    arrows = {"high": " ↑", "low": " ↓"}
    return [
        f"**{name}**: " + ", ".join(f"{n} records of `{lvlm}`" for lvlm, n in counts.items()),
        "",
        "| method | IoU | "
        + " | ".join(f"`{p}.{m.name}`{arrows.get(m.better, '')} ({most(p, m.name)})" for p, m in columns)
        + " |",
        "| --- " * (len(columns) + 2) + "|",
        *(row for _, row in sorted(rows, reverse=True)),
        "| *chance* | | " + " | ".join("" if m.chance is None else str(m.chance) for _, m in columns) + " |",
        "",
    ]


def page(sets: dict[str, tuple[list[ProtocolResult], ScoreFile]]) -> str:
    """All of it in Markdown."""
    every = [r for results, _ in sets.values() for r in results]
    groups = {name: (results, [file]) for name, (results, file) in sets.items()}
    groups["both"] = (every, [file for _, file in sets.values()])
    taus = {
        name: {(a.protocol, a.measure): a for a in rank_agreement(results, files, ("scores", "iou"))}
        for name, (results, files) in groups.items()
    }
    shown = {(p, m.name) for p, m in columns_of(every)} | {key for key in taus["both"] if key[0] == "scores"}
    lines = [line for name, (results, file) in sets.items() for line in table_of_methods(name, results, file)]
    lines += ["| measure | " + " | ".join(f"tau, {name}" for name in taus) + " | passes | runs |"]
    lines += ["| --- " * (len(taus) + 3) + "|"]
    for key, a in sorted(taus["both"].items(), key=lambda item: -np.nan_to_num(item[1].tau.value, nan=-2)):
        if key in shown:
            cells = " | ".join(interval_text(found[key].tau) if key in found else "" for found in taus.values())
            lines.append(f"| `{a.protocol}.{a.measure}` | {cells} | {a.passes:.0f} | {a.runs:.0f} |")
    return "\n".join([*lines, "", *(f"- {line}" for line in savings(every)), ""])


def savings(results: Sequence[ProtocolResult]) -> list[str]:
    """What the shared cache saved."""
    lines = []
    for dataset, lvlm in dict.fromkeys((r.dataset, r.lvlm) for r in results):
        for name in ("deletion", "necessity", "sensitivity_n"):
            rows = [r for r in results if (r.dataset, r.lvlm, r.protocol) == (dataset, lvlm, name)]
            made, found = (sum(r.count[k] for r in rows) for k in ("passes", "found"))
            if made:
                lines.append(
                    f"shared cache, {lvlm}, {name}: {len(rows)} methods together {made} passes, "
                    f"one by one {made + found}: {(made + found) / made:.2f}x fewer"
                )
    return lines


def show(folders: list[Path]) -> None:
    """Every table, the agreement and the saving."""
    out = console()
    results, files = [], []
    for folder in folders:
        some, file = read(folder)
        results += some
        files.append(file)
    for folder_name, lvlm, name in dict.fromkeys((r.dataset, r.lvlm, r.protocol) for r in results):
        rows = [r for r in results if (r.dataset, r.lvlm, r.protocol) == (folder_name, lvlm, name)]
        print_protocol(rows, out, tables=False)
    for truth in (("scores", "iou"), ("necessity_edited", "verified")):
        names, matrix = kendall_matrix(results, files)
        print_agreements(rank_agreement(results, files, truth), ".".join(truth), names, matrix, out)
    for line in savings(results):
        print(line)


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
    parser.add_argument("--page", type=Path, help="Markdown page that gets the tables")
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
    if process_group().rank:
        return
    if args.page is None:
        show(folders)
        return
    begin, end = "<!-- protocols -->\n", "<!-- /protocols -->"
    text = args.page.read_text(encoding="utf-8")
    tables = page({source: read(folder) for (source, _), folder in zip(wanted, folders, strict=True)})
    with atomic_write(args.page) as file:
        file.write(text[: text.index(begin) + len(begin)] + tables + text[text.index(end) :])


if __name__ == "__main__":
    main()
