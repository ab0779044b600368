"""What building the dataset folder costs beside bare image work.

Claims, each a ratio within one run:

- throughput per core is at least 0.8 of bare decode + PNG encode with Pillow at the same zlib level;
- two processes are at least 1.6 times as fast as one;
- peak memory is flat: ten times the images take less than 1.2 times the memory.

    python benchmarks/bench_build.py [--images 200] [--side 1024] [--source DIR]

Without ``--source`` (a folder in the layout of nih_cxr14) phantoms are drawn. Images are repeated under other names
up to the number asked for, each a different file to the builder. Wall-clock ratios need two idle cores; the share is
also given in processor time, which a busy machine disturbs less, and beside the gain stands that of the bare work
itself split over two processes: what this machine had to give at that moment.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path

from PIL import Image

from medground_bench.dataset.encode import PNG_LEVEL
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.write import build_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=1024, help="pixels of the phantoms")
    parser.add_argument("--source", type=Path, help="folder in the layout of nih_cxr14 to take images from")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        build_once(options.memory_of, 1)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    with tempfile.TemporaryDirectory() as scratch:
        run(options, Path(scratch))


def run(options: argparse.Namespace, scratch: Path) -> None:
    originals = sorted((options.source or draw(scratch / "drawn", options.side)).glob("images/*"))
    many = repeat(originals, options.images, scratch / "many")
    few = repeat(originals, max(1, options.images // 10), scratch / "few")
    build_once(few, 1)  # imports and caches are warm from here on

    bare, bare_cpu = timed(lambda: decode_and_encode(many))
    one, one_cpu = timed(lambda: build_once(many, 1))
    two, _ = timed(lambda: build_once(many, 2))
    halves, _ = timed(lambda: decode_and_encode_in_two(many))
    small, large = (peak_memory(folder) for folder in (few, many))
    rate = options.images / one
    print(f"{options.images} images; bare {bare:.1f} s, one process {one:.1f} s ({rate:.1f} images/s), two {two:.1f} s")
    show("share of bare decode + PNG encode, wall clock", bare / one, 0.8)
    show("share of bare decode + PNG encode, processor time", bare_cpu / one_cpu, 0.8)
    show("gain from one process to two", one / two, 1.6)
    print(f"gain of the bare work from one process to two: {bare / halves:.2f} (the machine's own)")
    print(
        f"peak memory: {small / 1024:.0f} MB for {len(list((few / 'images').iterdir()))} images, {large / 1024:.0f} MB"
    )
    show("memory of ten times the images", large / small, 1.2, below=True)


def show(what: str, ratio: float, claim: float, below: bool = False) -> None:
    met = ratio < claim if below else ratio >= claim
    print(f"{what}: {ratio:.2f} (claim: {'below' if below else 'at least'} {claim}; {'met' if met else 'NOT MET'})")


def draw(folder: Path, side: int) -> Path:
    from medground_bench.sources.phantom import write_source

    write_source("nih_cxr14", folder, 16, size=side, findings=["cardiomegaly"])
    return folder


def repeat(originals: list[Path], count: int, folder: Path) -> Path:
    """A source of ``count`` images, one box each."""
    (folder / "images").mkdir(parents=True)
    lines = ["Image Index,Finding Label,Bbox [x,y,w,h],,,"]
    for number, path in zip(range(count), cycle(originals), strict=False):
        name = f"{number:08d}_000"
        shutil.copy(path, folder / "images" / f"{name}{path.suffix}")
        lines.append(f"{name}.png,Mass,10,10,50,50,,,")
    (folder / "BBox_List_2017.csv").write_text("\n".join(lines) + "\n")
    return folder


def decode_and_encode(folder: Path, start: int = 0, step: int = 1) -> None:
    for path in sorted((folder / "images").iterdir())[start::step]:
        with Image.open(path) as image:
            image.convert("L").save(io.BytesIO(), "PNG", compress_level=PNG_LEVEL)


def decode_and_encode_in_two(folder: Path) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.starmap(decode_and_encode, [(folder, 0, 2), (folder, 1, 2)], chunksize=1)


def build_once(folder: Path, num_proc: int) -> None:
    settings = BuildSettings("candidates", {"nih_cxr14": str(folder)})
    with tempfile.TemporaryDirectory() as out:
        build_folder(settings, Path(out) / "medground-bench", num_proc=num_proc)


def timed(work: object) -> tuple[float, float]:
    """Wall-clock and processor seconds of this process and its children."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    work()  # type: ignore[operator]
    return time.perf_counter() - wall, sum(os.times()[:4]) - cpu


def peak_memory(folder: Path) -> int:
    """Kilobytes of a fresh process that builds this folder."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory-of", str(folder)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
