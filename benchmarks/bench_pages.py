"""How long the pages take: a report of thousands of records and a leaderboard of hundreds of score files.

Records and submissions are made up (smooth noise for radiographs, boxes drawn at random); what is measured is the time
to write a page and the time until Chromium shows it with its first record. Usage, from the checkout::

    python -m benchmarks.bench_pages --out FOLDER [--records 4000] [--files 500]
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.made_up import made_up_row, write_dataset
from medground_bench.dataset.columns import fingerprint
from medground_bench.dataset.folder import open_folder
from medground_bench.pages.leaderboard import write_leaderboard
from medground_bench.pages.report import write_report
from medground_bench.scoring import score_submissions, write_scores
from medground_bench.submission import write_submission
from tests.browser import Browser

SIZE = (512, 448)
METHODS = ("near", "far", "broad")
LVLMS = ("a", "b", "c", "d")


def _image(rng: np.random.Generator) -> bytes:
    from PIL import Image

    small = Image.fromarray(rng.integers(0, 255, (14, 16), dtype=np.uint8))
    stream = io.BytesIO()
    small.resize(SIZE, Image.Resampling.BICUBIC).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def make_rows(count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """So many records; those of the LVLMs share their images."""
    rows: list[dict[str, Any]] = []
    for k in range(count // len(LVLMS)):
        data = _image(rng)
        x, y, w, h = rng.integers(20, 200), rng.integers(20, 200), rng.integers(20, 250), rng.integers(20, 200)
        box = [float(x), float(y), float(x + w), float(y + h)]
        rows += [made_up_row(k, lvlm, data, SIZE, box, patient=k // 2) for lvlm in LVLMS]
    return rows


def make_submission(folder: Path, rows: list[dict[str, Any]], lvlm: str, method: str, rng: np.random.Generator) -> Path:
    """Boxes beside the evidence, by chance, and a 16 x 16 heat map each for the first method."""
    spread = {"near": 15, "far": 90, "broad": 40}.get(method, 60)
    said = []
    for k, row in enumerate(row for row in rows if row["model"] == lvlm):
        shift = rng.normal(0, spread, 4) * (1 if method != "broad" else np.array([-1, -1, 1, 1]))
        x1, y1, x2, y2 = np.array(row["boxes"][0]) + shift
        box = [max(min(x1, x2 - 1), 0), max(min(y1, y2 - 1), 0), min(max(x2, x1 + 1), 512), min(max(y2, y1 + 1), 448)]
        answer: dict[str, Any] = {"id": row["id"], "boxes": [box] if box[2] > box[0] and box[3] > box[1] else []}
        if method == "near":
            answer["heatmap"] = f"heatmaps/{k}.npy"
            (folder / "heatmaps").mkdir(parents=True, exist_ok=True)
            np.save(folder / "heatmaps" / f"{k}.npy", rng.random((16, 16)).astype(np.float32))
        said.append(answer)
    header = {
        "method": method,
        "lvlm": lvlm,
        "mode": "direct",
        "lvlm_revision": "none",
        "dataset_fingerprint": fingerprint(rows),
        "settings": {"frame_side": 224},
        "seed": 0,
        "versions": {},
        "authors": "nobody",
        "licence": "CC0-1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "cost": {"forward": 1.0, "backward": 0.0, "seconds": 0.1},
    }
    return write_submission(folder, header, said)


def opened(path: Path, ready: str) -> float:
    """Seconds from asking Chromium for a page until an expression is true in it, best of three."""
    times = []
    with Browser() as browser:
        for _ in range(3):
            begun = time.perf_counter()
            page = browser.open(path.as_uri())
            page.until(ready)
            times.append(time.perf_counter() - begun)
            if page.errors():
                raise RuntimeError(f"{path}: {page.errors()}")
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder that is made")
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--files", type=int, default=500)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = make_rows(options.records, rng)
    dataset = open_folder(write_dataset(options.out / "dataset", rows), "direct")
    made = [
        make_submission(options.out / "submissions" / lvlm / method, rows, lvlm, method, rng)
        for lvlm in LVLMS
        for method in METHODS
    ]
    begun = time.perf_counter()
    scores = score_submissions(made, dataset)
    print(f"score {len(made)} submissions of {len(rows)} records: {time.perf_counter() - begun:.1f} s", flush=True)
    begun = time.perf_counter()
    page = write_report(options.out / "report.html", dataset.path, made, scores=[scores], records=len(rows))
    print(f"write the report: {time.perf_counter() - begun:.1f} s, page {page.stat().st_size / 1e6:.1f} MB", flush=True)
    seconds = opened(page, "document.querySelector('#v-one-stage img').naturalWidth > 0")
    print(f"open the report at its first record: {seconds:.2f} s", flush=True)

    results = options.out / "results"
    few = [row for row in rows if int(row["image_id"][-5:]) < 75]
    small = open_folder(write_dataset(options.out / "few", few), "direct")
    for k in range(options.files):
        lvlm = LVLMS[k % len(LVLMS)]
        one = make_submission(options.out / "many" / str(k), few, lvlm, f"method-{k}", rng)
        write_scores(score_submissions([one], small, resamples=200), results / f"{k}.json")
    begun = time.perf_counter()
    board = write_leaderboard(results, options.out / "leaderboard.html")
    took = time.perf_counter() - begun
    print(f"leaderboard of {options.files} files: {took:.1f} s, page {board.stat().st_size / 1e6:.1f} MB", flush=True)
    seconds = opened(board, "document.querySelectorAll('#board tbody tr').length > 0")
    print(f"open the leaderboard: {seconds:.2f} s")


if __name__ == "__main__":
    main()
