"""How long a row takes to validate and to score, and how much memory, as submissions grow.

A made-up dataset and a submission with one box a record are written for every count, and ``medground-bench validate``
and ``score`` run on them, each in a process of its own; what is printed is their processor time a row and the peak of
their memory. Usage, from the checkout::

    python -m benchmarks.bench_rows --out FOLDER [--rows 10000 100000 1000000]
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.made_up import made_up_row, write_dataset
from medground_bench.dataset.folder import open_folder
from medground_bench.submission import write_submission

SIZE = 64


def rows_of(count: int) -> Iterator[dict[str, Any]]:
    """So many records, four of each patient, all with the same small image."""
    stream = io.BytesIO()
    Image.new("L", (SIZE, SIZE), 128).save(stream, "PNG")
    corners = np.random.default_rng(0).integers(0, SIZE // 2, (count, 2)).tolist()
    for k, (x, y) in enumerate(corners):
        box = [float(x), float(y), float(x + 20), float(y + 16)]
        yield made_up_row(k, "made_up", stream.getvalue(), (SIZE, SIZE), box, patient=k // 4)


def write(folder: Path, count: int) -> tuple[Path, Path]:
    """Dataset folder and submission folder of so many rows, each box shifted by a few pixels."""
    dataset = write_dataset(folder / "dataset", rows_of(count))
    header = {
        "method": "shifted",
        "lvlm": "made_up",
        "mode": "direct",
        "lvlm_revision": "none",
        "seed": 0,
        "dataset_fingerprint": open_folder(dataset, "direct").fingerprint,
        "settings": {"frame_side": 224},
        "versions": {},
    }
    said = ({"id": r["id"], "boxes": [[value + 4 for value in r["boxes"][0]]]} for r in rows_of(count))
    return dataset, write_submission(folder / "submission", header, said)


def measure(*arguments: str | Path) -> tuple[float, float]:
    """Processor seconds and peak MiB of a command of ours."""
    process = subprocess.Popen(
        [sys.executable, "-m", "medground_bench", *map(str, arguments)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{arguments[0]} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    args = parser.parse_args()
    print("| rows | command | processor seconds | ms a row | peak MiB |\n| --- | --- | --- | --- | --- |")
    for count in args.rows:
        # In a process of its own: what a process has used when it starts another counts for that one's peak, too.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            dataset, submission = pool.submit(write, args.out / str(count), count).result()
        place = ("--dataset", dataset, "--config", "direct")
        for command, more in (("validate", ()), ("score", ("--out", args.out / str(count) / "scores.json"))):
            seconds, peak = measure(command, submission, *place, *more)
            print(f"| {count:,} | {command} | {seconds:.1f} | {1e3 * seconds / count:.3f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
