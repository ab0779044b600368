"""How long a row takes to validate and to score, and how much memory, as submissions grow.

A made-up dataset and a submission with one box a record are written for every count, and ``medground-bench validate``
and ``score`` run on them, each in a process of its own; what is printed is their time a row and the peak of their
memory. Flat means: neither grows with the count. Usage::

    python benchmarks/bench_rows.py --out FOLDER [--rows 10000 100000 1000000]
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from medground_bench.core.files import atomic_write, sha256_of
from medground_bench.core.schema import question, record_id
from medground_bench.dataset.columns import fingerprint

SIZE = 64
ATTRIBUTES = ("cardiomegaly", "pleural effusion", "lung nodule")


def rows_of(count: int) -> Iterator[dict[str, Any]]:
    """So many records, four of each patient, all with the same small image."""
    stream = io.BytesIO()
    Image.new("L", (SIZE, SIZE), 128).save(stream, "PNG")
    corners = np.random.default_rng(0).integers(0, SIZE // 2, (count, 2)).tolist()
    for k, (x, y) in enumerate(corners):
        attribute = ATTRIBUTES[k % 3]
        yield {
            "id": record_id("made_up", "direct", "phantom", f"image-{k:07d}", attribute),
            "dataset": "phantom",
            "model": "made_up",
            "mode": "direct",
            "image": {"bytes": stream.getvalue(), "path": None},
            "image_id": f"image-{k:07d}",
            "patient_id": f"patient-{k // 4}",
            "width": SIZE,
            "height": SIZE,
            "attribute": attribute,
            "question": question(attribute, "direct"),
            "answer": "Yes",
            "response": "Yes",
            "boxes": [[float(x), float(y), float(x + 20), float(y + 16)]],
            **dict.fromkeys(("prediction", "prediction_edited_kept", "prediction_edited_kept_normal"), "Yes"),
            "prediction_edited": "No",
        }


def write(folder: Path, count: int) -> tuple[Path, Path]:
    """Dataset folder and submission folder of so many rows."""
    dataset, submission = folder / "dataset", folder / "submission"
    file = dataset / "direct" / "test-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    submission.mkdir()
    said: list[dict[str, Any]] = []
    with atomic_write(submission / "predictions.jsonl") as lines:
        writer = None
        rows = rows_of(count)
        while batch := list(itertools.islice(rows, 5000)):
            table = pa.Table.from_pylist(batch)
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
            for row in batch:
                x1, y1, x2, y2 = row["boxes"][0]
                lines.write(json.dumps({"id": row["id"], "boxes": [[x1 + 4, y1 + 3, x2 + 4, y2 + 3]]}) + "\n")
                said.append({k: v for k, v in row.items() if k != "image"})
        assert writer is not None
        writer.close()
    facts = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    mark = fingerprint(said)
    entry = {"rows": count, "fingerprint": mark, "files": {str(file.relative_to(dataset)): facts}}
    (dataset / "build.json").write_text(json.dumps({"format": 1, "versions": {}, "configs": {"direct": entry}}))
    header = {"method": "shifted", "lvlm": "made_up", "mode": "direct", "lvlm_revision": "none", "seed": 0}
    header |= {"dataset_fingerprint": mark, "settings": {"frame_side": 224}, "versions": {}}
    (submission / "submission.json").write_text(json.dumps(header))
    return dataset, submission


def measure(*arguments: str | Path) -> tuple[float, float]:
    """Seconds and peak MiB of a command of ours."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "medground_bench", *map(str, arguments)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{arguments[0]} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    args = parser.parse_args()
    print("| rows | command | seconds | ms a row | peak MiB |\n| --- | --- | --- | --- | --- |")
    for count in args.rows:
        dataset, submission = write(args.out / str(count), count)
        place = ("--dataset", dataset, "--config", "direct")
        for command, more in (("validate", ()), ("score", ("--out", args.out / str(count) / "scores.json"))):
            seconds, peak = measure(command, submission, *place, *more)
            print(f"| {count:,} | {command} | {seconds:.1f} | {1e3 * seconds / count:.3f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
