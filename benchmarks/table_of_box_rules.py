"""How much of the methods' scores is the rule that makes boxes of their maps?

    python benchmarks/table_of_box_rules.py phantoms,phantoms1 planted,planted1 --mode direct

The protocol ``box_rules`` on every submission with maps of some demos; folders joined by commas are one set, whose
patients stay patients. Results are kept in each folder (``box_rules``), so that the same command resumes.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medground_bench.attribution.method import get_method
from medground_bench.core.schema import MODES
from medground_bench.dataset.folder import open_folder
from medground_bench.scoring.protocols.protocol import get_protocol
from medground_bench.scoring.protocols.run import run_protocols
from medground_bench.scoring.statistics import bootstrap_ratios

PROTOCOL = "box_rules"
MEASURES = ("iou_agreed", "iou_hottest", "iou_sized", "iou_best")
LEAST = 0.9  # of the records that most methods have: methods with fewer are left out

Values = dict[str, dict[str, tuple[str, tuple[float, ...]]]]
"""Method -> record of an LVLM -> its patient, and the measures."""


def found(demos: Sequence[Path], mode: str) -> Values:
    values: Values = defaultdict(dict)
    for demo in demos:
        folder = open_folder(demo / "medground-bench", mode)
        patients = {key: f"{s}\0{patient or image}" for key, s, patient, image in folder.values(*_COLUMNS)}
        for lvlm in sorted(path for path in (demo / "submissions").iterdir() if (path / mode).is_dir()):
            submissions = [path.parent for path in sorted((lvlm / mode).glob("*/submission.json"))]
            report = run_protocols(submissions, folder, [PROTOCOL], demo / PROTOCOL / lvlm.name / mode)
            for result in report.results.values():
                if get_method(result.method).family == "concept":
                    continue  # it makes boxes of its own
                for key, row in zip(result.ids, zip(*(result.values[m] for m in MEASURES), strict=True), strict=True):
                    if np.isfinite(row).all():  # others were skipped
                        values[result.method][key] = patients[key], tuple(float(v) for v in row)
    return values


_COLUMNS = ("id", "dataset", "patient_id", "image_id")


def cells(rows: Mapping[str, tuple[str, tuple[float, ...]]]) -> list[str]:
    """The measures of a method with intervals over patients."""
    columns = np.array([row for _, row in rows.values()])
    intervals: list[Any] = bootstrap_ratios(
        columns, np.ones_like(columns), [patient for patient, _ in rows.values()], bounds=[(0, 1)] * len(MEASURES)
    )
    return [f"{i.value:.3f} [{i.low:.3f}, {i.high:.3f}]".replace(" ", "\N{NO-BREAK SPACE}") for i in intervals]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", nargs="+", help="folders of medground-bench demo, those of one set joined by commas")
    parser.add_argument("--mode", choices=MODES, default="direct")
    args = parser.parse_args()
    titles = {m.name: m.title for m in get_protocol(PROTOCOL).measures}
    for joined in args.demos:
        values = found([Path(part) for part in joined.split(",")], args.mode)
        most = max(len(rows) for rows in values.values())
        values = {name: rows for name, rows in values.items() if len(rows) >= LEAST * most}
        order = sorted(values, key=lambda name: -float(np.mean([row[0] for _, row in values[name].values()])))
        print(
            f"{joined}, mode {args.mode}: {most} records of {len({p for r in values.values() for p, _ in r.values()})}"
        )
        print("\n| method | " + " | ".join(titles[m] for m in MEASURES) + " |\n" + "| --- " * (len(MEASURES) + 1) + "|")
        for name in order:
            print(f"| `{name}` | " + " | ".join(cells(values[name])) + " |")
        print()


if __name__ == "__main__":
    main()
