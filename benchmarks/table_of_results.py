"""The tables of docs/results.md, from the scores of demos: every method beside chance, ceilings and the other set.

    medground-bench demo --out phantoms --records 120 --methods NAMES
    medground-bench demo --out planted --canvas DIR --records 200 --methods NAMES
    python -m benchmarks.table_of_results phantoms planted --out docs/results.md --figure docs/pictures/passes.svg

``--mode`` makes the tables of one mode alone, from other folders, say. Folders joined by commas,
``phantoms,phantoms1 planted,planted1``, are one set: several seeds, whose patients stay patients. A method that was run
on some records only says on how many, and is compared with the others on these.

For each mode a table pooled over the LVLMs: IoU with its interval on each set, the paired difference of the reference
method (``--reference``) to every other with its p-value (sign flips by patient, Holm over the methods), what is scored
of concepts and tokens, and a record's passes and seconds. Then each LVLM by itself, and whether the sets rank methods
alike (``rank_agreement.py``). The figure shows IoU against passes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.joined import read_joined
from benchmarks.rank_agreement import agreements
from medground_bench.core.files import atomic_write
from medground_bench.core.schema import MODES
from medground_bench.scoring import ComparisonReport, MethodScores, ScoreFile, compare_methods
from medground_bench.scoring.comparison import compare_scores, pool_methods
from medground_bench.scoring.rows import Row, p_text
from medground_bench.scoring.rows import interval_text as breaking_text
from medground_bench.scoring.statistics import holm

if TYPE_CHECKING:
    from medground_bench.scoring.statistics import Comparison, Interval


def interval_text(interval: Interval | None) -> str:
    """An interval that a narrow column does not break."""
    return breaking_text(interval).replace(" ", "\N{NO-BREAK SPACE}")


Sets = dict[str, tuple[list[ScoreFile], ComparisonReport]]
"""Name of a set -> its score files, one for each mode, and the tables of them."""


def read(demos: Sequence[str], modes: Sequence[str]) -> Sets:
    found: Sets = {}
    for joined in demos:
        folders = [Path(part) for part in joined.split(",")]
        files = [read_joined(folders, mode) for mode in modes]
        name = folders[0].name.rstrip("0123456789") if len(folders) > 1 else folders[0].name  # of several seeds
        found[name] = files, compare_scores(files, metrics=())
    return found


def paired(files: list[ScoreFile], mode: str, reference: str) -> dict[str, Comparison]:
    """The reference less every other method, on the records of both; Holm's correction is over all of them."""
    methods = {m.method: m for m in pool_methods(files) if m.mode == mode}
    first = methods.pop(reference)
    place = {key: k for k, key in enumerate(_keys(first))}
    found = {}
    for name, m in methods.items():
        there = [(place[key], k) for k, key in enumerate(_keys(m)) if key in place]
        mine, others = np.array(there, np.int64).reshape(-1, 2).T
        ious = {reference: first.scores["iou"][mine], name: m.scores["iou"][others]}
        (found[name],) = compare_methods(ious, first.table.cluster[mine])
    corrected = holm([c.p_value for c in found.values()])
    return {name: replace(c, p_holm=p) for (name, c), p in zip(found.items(), corrected, strict=True)}


def _keys(m: MethodScores) -> list[tuple[str, str]]:
    return list(zip(m.table.id.tolist(), m.table.lvlm.tolist(), strict=True))


def rows_of(report: ComparisonReport, mode: str, level: str = "all", group: str = "") -> dict[str, Row]:
    """Title -> row of one mode and group."""
    return {
        r.title: r
        for r in report.rows
        if (r.mode, r.aggregate.level, r.aggregate.group) == (mode, level, group) and r.cell("iou") is not None
    }


def pooled(sets: Sets, mode: str, reference: str) -> Iterator[str]:
    """The table over all LVLMs."""
    tables = {name: rows_of(report, mode) for name, (_, report) in sets.items()}
    tests = {name: paired(files, mode, reference) for name, (files, _) in sets.items()}
    for name, table in tables.items():
        row = table[reference]
        yield f"{name.capitalize()}: {row.records} records of {row.clusters} patients."
    yield ""
    heads = ["row"]
    for name in sets:
        heads += [
            f"{name}: IoU",
            f"{name}: precision",
            f"{name}: recall",
            f"{name}: `{reference}` less this",
            f"{name}: p",
        ]
    heads += [f"{name}: {what}" for name in sets for what in ("concept", "tokens")]
    heads += ["passes", "seconds"]
    body = []
    titles = dict.fromkeys(title for table in tables.values() for title in table)
    for title in sorted(titles, key=lambda t: -np.mean([_iou(table, t) for table in tables.values()])):
        cells, kinds = [], {table[title].kind for table in tables.values() if title in table}
        for name, table in tables.items():
            test = tests[name].get(table[title].name) if title in table and table[title].p_chance else None
            cells += [interval_text(table[title].cell("iou")) if title in table else ""]
            cells += [_number(table, title, "precision"), _number(table, title, "recall")]
            cells += [interval_text(test.difference), p_text(test.p_holm, test.clusters)] if test else ["", ""]
        for table in tables.values():
            cells += [_number(table, title, "concept_accuracy"), _number(table, title, "token_auroc")]
        cells += _cost([file for files, _ in sets.values() for file in files], mode, title)
        shown = f"`{title}`" if kinds == {"method"} else f"*{title}*"
        body.append([shown + _fewer(tables, title, reference), *cells])
    some = [k for k in range(len(heads)) if any(row[k] for row in body)]  # nothing is known of concepts, say
    yield "| " + " | ".join(heads[k] for k in some) + " |\n" + "| --- " * len(some) + "|"
    yield from ("| " + " | ".join(row[k] for k in some) + " |" for row in body)


def _fewer(tables: dict[str, dict[str, Row]], title: str, reference: str) -> str:
    """On how many records of each set, where a method was run on some only."""
    rows = [(table[title], table[reference].records) for table in tables.values() if title in table]
    fewer = any(row.kind in ("method", "control") and row.records < most for row, most in rows)
    return f" ({' / '.join(str(row.records) for row, _ in rows)})" if fewer else ""


def _iou(table: dict[str, Row], title: str) -> float:
    cell = table[title].cell("iou") if title in table else None
    return cell.value if cell else 0.0


def _number(table: dict[str, Row], title: str, metric: str) -> str:
    cell = table[title].cell(metric) if title in table else None
    return f"{cell.value:.3f}" if cell else ""


def _cost(files: list[ScoreFile], mode: str, method: str) -> list[str]:
    costs = [s.cost for f in files for s in f.submissions if (s.mode, s.method) == (mode, method) and s.cost]
    if not costs:
        return ["", ""]
    forward, backward, seconds = (np.mean([c.get(k, 0.0) for c in costs]) for k in ("forward", "backward", "seconds"))
    passes = f"{forward:.0f}" + (f" + {backward:.0f} back" if backward else "")
    return [passes, f"{seconds:.2f}"]


def by_lvlm(sets: Sets, mode: str) -> Iterator[str]:
    """IoU of every row for each LVLM by itself."""
    tables: dict[str, dict[str, Row]] = {}
    for name, (_, report) in sets.items():
        for lvlm in sorted({r.aggregate.group for r in report.rows if r.aggregate.level == "lvlm" and r.mode == mode}):
            rows = rows_of(report, mode, "lvlm", lvlm)
            most = max(rows.values(), key=lambda r: r.records)
            tables[f"{lvlm}, {name} ({most.records} of {most.clusters})"] = rows
    sizes = [max(row.records for row in table.values()) for table in tables.values()]
    yield "| row | " + " | ".join(tables) + " |\n" + "| --- " * (len(tables) + 1) + "|"
    titles = dict.fromkeys(title for table in tables.values() for title in table)
    for title in sorted(titles, key=lambda t: -np.mean([_iou(table, t) for table in tables.values()])):
        cells = [_cell(table.get(title), size) for table, size in zip(tables.values(), sizes, strict=True)]
        method = any(table[title].kind == "method" for table in tables.values() if title in table)
        yield f"| {f'`{title}`' if method else f'*{title}*'} | " + " | ".join(cells) + " |"


def _cell(row: Row | None, most: int) -> str:
    """IoU, and in brackets how many records a method has where others have more."""
    if row is None:
        return ""
    return interval_text(row.cell("iou")) + (f" ({row.records})" if row.kind == "method" and row.records < most else "")


def short(sets: Sets, names: Sequence[str]) -> Iterator[str]:
    """IoU of some rows over sets and modes, for the README: the best method bold, in brackets the records if fewer."""
    tables = {f"{name}, {mode}": rows_of(report, mode) for mode in MODES for name, (_, report) in sets.items()}
    tables = {name: rows for name, rows in tables.items() if rows}
    sizes = [max(t.values(), key=lambda r: r.records) for t in tables.values()]
    heads = [f"{n} ({r.records} of {r.clusters})" for n, r in zip(tables, sizes, strict=True)]
    yield "| row | " + " | ".join(heads) + " |\n" + "| --- " * (len(tables) + 1) + "|"
    chosen = [t for t in dict.fromkeys(t for table in tables.values() for t in table) if t in names]
    best = [max(_iou(t, m) for m in t if t[m].kind == "method") for t in tables.values()]
    for title in sorted(chosen, key=lambda t: -np.mean([_iou(table, t) for table in tables.values()])):
        cells = []
        for table, most, size in zip(tables.values(), best, sizes, strict=True):
            row = table.get(title)
            text = _cell(row, size.records)
            if row and row.kind == "method" and _iou(table, title) == most:
                text = f"**{text[:5]}**{text[5:]}"
            cells.append(text)
        method = any(table[title].kind == "method" for table in tables.values() if title in table)
        yield f"| {f'`{title}`' if method else f'*{title}*'} | " + " | ".join(cells) + " |"


def figure(sets: Sets, path: Path) -> None:
    """IoU in direct mode against forward and backward passes, a panel for each set."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(5.5 * len(sets), 5.2), layout="constrained")
    axes = drawing.subplots(1, len(sets), squeeze=False, sharey=True)[0]
    for axis, (name, (files, report)) in zip(axes, sets.items(), strict=True):
        rows = rows_of(report, "direct")
        points = []
        for title, row in rows.items():
            costs = [s.cost for f in files for s in f.submissions if s.mode == "direct" and s.method == row.name]
            if row.kind == "method" and any(costs):
                passes = float(np.mean([c.get("forward", 0) + c.get("backward", 0) for c in costs if c]))
                points.append((max(passes, 0.5), _iou(rows, title), title))
        axis.scatter([p[0] for p in points], [p[1] for p in points], s=18, color="#0b6e99", zorder=3)
        front, best = [], -math.inf
        for x, y, title in sorted(points, key=lambda p: (p[0], -p[1])):
            if y > best:
                best = y
                front.append((x, y, title))
        axis.step([p[0] for p in front], [p[1] for p in front], where="post", color="#0b6e99", linewidth=0.8)
        for x, y, title in front:
            axis.annotate(title, (x, y), textcoords="offset points", xytext=(4, 5), fontsize=8)
        for title, row in rows.items():
            if row.kind == "chance":
                axis.axhline(_iou(rows, title), color="#7a7a7a", linewidth=0.7, linestyle=":")
                place = (0.99, _iou(rows, title))
                where: Any = ("axes fraction", "data")
                axis.annotate(title, place, xycoords=where, fontsize=7, color="#555555", va="bottom", ha="right")
        axis.set_xscale("log")
        axis.set_xlabel("forward + backward passes a record")
        axis.set_title(name, fontsize=10)
    axes[0].set_ylabel("mean IoU, direct mode, both toys")
    drawing.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", nargs="+", help="folders of medground-bench demo, those of one set joined by commas")
    parser.add_argument("--mode", choices=MODES, help="default: both")
    parser.add_argument("--reference", default="medfocus_guided")
    parser.add_argument("--out", type=Path, help="put the tables in place of those between the page's markers")
    parser.add_argument("--short", help="print only the IoU of these rows (separated by commas)")
    parser.add_argument("--figure", type=Path)
    args = parser.parse_args()
    modes = [args.mode] if args.mode else MODES
    sets = read(args.demos, modes)
    if args.short:
        print("\n".join(short(sets, [name.strip() for name in args.short.split(",")])))
        return
    for k, mode in enumerate(modes):
        lines = [f"## Mode {mode}\n", *pooled(sets, mode, args.reference), f"\n### Each LVLM, mode {mode}\n"]
        lines += by_lvlm(sets, mode)
        if len(sets) == 2:
            lines.append(f"\n### Do the sets rank methods alike, mode {mode}?\n")
            first, second = (files[k] for files, _ in sets.values())
            lines += [f"- {line}" for line in agreements(first, second)]
        text = "\n".join(lines) + "\n"
        if args.out is None:
            print(text)
            continue
        begin, end = f"<!-- tables {mode} -->\n", f"<!-- /tables {mode} -->"
        page = args.out.read_text(encoding="utf-8")
        with atomic_write(args.out) as file:
            file.write(page[: page.index(begin) + len(begin)] + text + page[page.index(end) :])
    if args.figure is not None:
        figure(sets, args.figure)


if __name__ == "__main__":
    main()
