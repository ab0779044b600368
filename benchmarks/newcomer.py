"""The newcomer's path, timed: install, the demo, a method of one's own in a notebook, its row on the leaderboard.

Every step is what the README and the guides tell to do, in a new folder, and ends with a look at what it made. Usage,
from the checkout::

    python benchmarks/newcomer.py --out FOLDER [--records 2] [--install]

``--install`` makes a new environment first and goes on in it; without it the environment of this process is used.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

NOTEBOOK = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
"""

METHOD = """
import medground_bench as mgb


def dark(lvlm, episode, below=60):
    return (below - episode.frame_array.astype(float)).clip(0)


mgb.generate(mgb.open_dataset("demo/medground-bench", "direct"), mgb.load_lvlm("toy_qwen"), [dark], out="mine")
"""


def run(python: Path, *words: str | Path, where: Path) -> None:
    """Run a Python program; one that fails ends the path."""
    done = subprocess.run([python, *words], cwd=where, capture_output=True, text=True)
    if done.returncode:
        said = done.stdout[-2000:] + done.stderr[-4000:]
        sys.exit(f"{' '.join(map(str, words))[:200]}\nended with {done.returncode}:\n{said}")


def install(folder: Path) -> Path:
    """A new environment with everything; its interpreter."""
    run(Path(sys.executable), "-m", "venv", folder / "env", where=folder)
    python = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(python, "-m", "pip", "install", "--quiet", f"{ROOT}[all]", "nbclient", "ipykernel", where=folder)
    return python


def demo(python: Path, folder: Path, records: int) -> None:
    run(python, "-m", "medground_bench", "demo", "--out", "demo", "--records", str(records), where=folder)
    require(folder / "demo" / "leaderboard.html", "occlusion")
    require(folder / "demo" / "report.html", "occlusion")


def notebook(python: Path, folder: Path) -> None:
    (folder / "notebook").mkdir()
    run(python, "-c", NOTEBOOK, ROOT / "examples" / "notebooks" / "method.ipynb", "notebook", where=folder)
    require(folder / "notebook" / "leaderboard.html", "blurred_windows")


def own_row(python: Path, folder: Path) -> None:
    """A function of one's own on the demo's records, beside the demo's methods."""
    run(python, "-c", METHOD, where=folder)
    place = ("--dataset", "demo/medground-bench", "--config", "direct")
    bench = ("-m", "medground_bench")
    run(python, *bench, "validate", "mine", *place, where=folder)
    run(python, *bench, "score", "mine", *place, "--out", "demo/results/mine.json", where=folder)
    run(python, *bench, "leaderboard", "demo/results", "--out", "board.html", where=folder)
    require(folder / "board.html", ">dark<")


def require(page: Path, text: str) -> None:
    if text not in page.read_text(encoding="utf-8"):
        sys.exit(f"{page} does not have {text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--records", type=int, default=2, help="phantoms of the demo, per LVLM")
    parser.add_argument("--install", action="store_true", help="into a new environment, with pip")
    args = parser.parse_args()
    folder = args.out.resolve()
    folder.mkdir(parents=True)
    python, total = Path(sys.executable), 0.0
    print("| step | seconds |\n| --- | --- |", flush=True)

    def timed(name: str, step: Callable[[], Path | None]) -> Path | None:
        nonlocal total
        start = time.perf_counter()
        made = step()
        total += (seconds := time.perf_counter() - start)
        print(f"| {name} | {seconds:.0f} |", flush=True)
        return made

    if args.install:
        python = timed("install", lambda: install(folder)) or python
    timed(f"demo --records {args.records}", lambda: demo(python, folder, args.records))
    timed("a method of one's own, in the notebook", lambda: notebook(python, folder))
    timed("its row on the leaderboard, beside the demo's methods", lambda: own_row(python, folder))
    print(f"| all | {total:.0f} |")


if __name__ == "__main__":
    main()
