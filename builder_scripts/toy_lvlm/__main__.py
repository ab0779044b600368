"""Make a toy LVLM from scratch, or measure one: accuracy per finding and mode, and the causal rates.

    python -m builder_scripts.toy_lvlm --model toy_qwen --out DIR
    python -m builder_scripts.toy_lvlm --evaluate DIR

Seeded. Images are rendered once by --processes workers and kept in --cache; training itself uses one core, so that
both toys can be made side by side on two. The folder appears whole at the end (and, with --save-every, along the way);
an interruption leaves the old one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from medground_bench.core.console import progress_bar
from medground_bench.core.errors import MedGroundError

if TYPE_CHECKING:
    from .evaluation import Tally

NAMES = ("toy_qwen", "toy_gemma")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", choices=NAMES, help="which toy to train")
    what.add_argument("--evaluate", type=Path, metavar="DIR", help="only measure the toy in this folder")
    parser.add_argument("--out", type=Path, help="folder of the trained toy")
    parser.add_argument("--steps", type=int, default=1800, help="steps of answering (default %(default)s)")
    parser.add_argument("--vision-steps", type=int, default=4000, help="steps before, of seeing (default %(default)s)")
    parser.add_argument("--images", type=int, default=16000, help="training images (default %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="images per step (default %(default)s)")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of weights, images and order (default %(default)s)")
    parser.add_argument("--phantoms", type=int, default=100, help="unseen phantoms to measure on (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="workers that render (default %(default)s)")
    parser.add_argument("--cache", type=Path, help="where rendered images are kept (default: the temporary folder)")
    parser.add_argument("--save-every", type=int, default=0, metavar="STEPS", help="also write the folder on the way")
    options = parser.parse_args(argv)
    if options.model and not options.out:
        parser.error("--model needs --out DIR")
    if min(options.steps, options.phantoms, options.batch) < 1:
        parser.error("--steps, --batch and --phantoms must be at least 1")
    return options


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    try:
        if options.evaluate:
            print(measure(options.evaluate, options.phantoms)[1])
        else:
            make(options)
    except MedGroundError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing half-written", file=sys.stderr)
        return 130
    return 0


def make(options: argparse.Namespace) -> None:
    """Render, train, save, measure, and save again with the measured card."""
    import torch

    from .architecture import build
    from .data import render_pool
    from .evaluation import UNSEEN
    from .storage import save, write_card
    from .training import Recipe, train

    torch.set_num_threads(1)
    cache = options.cache or Path(tempfile.gettempdir()) / "medground-bench-phantoms"
    with progress_bar("Rendering phantoms") as update:
        pool = render_pool(
            cache, options.images, options.seed, options.processes, lambda done, total: update(done, total, "")
        )
    recipe = Recipe(
        vision_steps=options.vision_steps,
        steps=options.steps,
        batch=options.batch,
        rate=options.rate,
        seed=options.seed,
    )
    model, processor = build(options.model, options.seed)
    began = time.monotonic()

    def card(table: str) -> str:
        return write_card(
            options.model,
            model,
            processor,
            recipe,
            images=options.images,
            minutes=(time.monotonic() - began) / 60,
            phantoms=options.phantoms,
            first=UNSEEN,
            table=table,
        )

    def checkpoint(step: int) -> None:
        if options.save_every and step % options.save_every == 0 and step < options.steps:
            save(options.out, model, processor, card(f"Not measured: saved on the way, at step {step:,}."))

    train(model, processor, pool, recipe, report, checkpoint)
    unmeasured = card("@table@")
    save(options.out, model, processor, unmeasured)
    _, table = measure(options.out, options.phantoms)
    save(options.out, model, processor, unmeasured.replace("@table@", table))
    print(table)


def measure(folder: Path, phantoms: int) -> tuple[dict[tuple[str, str], Tally], str]:
    """The tallies and the printed table of a saved toy, on unseen phantoms."""
    import torch

    from .evaluation import evaluate
    from .evaluation import table as make_table
    from .storage import load

    torch.set_num_threads(1)
    model, processor = load(folder)
    with progress_bar("Asking about unseen phantoms") as update:
        tallies = evaluate(model, processor, phantoms, report=lambda done, total: update(done, total, ""))
    return tallies, make_table(tallies)


def report(step: int, figures: dict[str, Any]) -> None:
    """One line per report: losses, and held-out balanced accuracy per mode with the weakest finding of each."""
    parts = [f"step {step:5d}", f"{figures['seconds']:5.0f} s"]
    parts += [f"{name} {figures[name]:.4f}" for name in ("dense", "direct", "reason") if name in figures]
    for what, unit in (("seeing", "auc"), ("direct", "accuracy"), ("reason", "accuracy")):
        if f"{what} {unit}" not in figures:
            continue
        each = {k: v for k, v in figures.items() if k.startswith(f"{what} ") and k != f"{what} {unit}"}
        worst = min(each, key=lambda k: each[k])
        parts.append(
            f"{what} {unit} {figures[f'{what} {unit}']:.3f} (least: {worst[len(what) + 1 :]} {each[worst]:.2f})"
        )
    print("  ".join(parts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
