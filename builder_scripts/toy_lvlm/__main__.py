"""Make a toy LVLM from scratch, or measure one.

    python -m builder_scripts.toy_lvlm render --pool POOL --canvas CANVASES --groups 3000
    python -m builder_scripts.toy_lvlm train --model toy_qwen --pool POOL --out DIR
    python -m builder_scripts.toy_lvlm evaluate DIR --canvas CANVASES

CANVASES is a folder of NIH ChestX-ray14 radiographs labelled "No Finding", by their own names. Those whose patient's
number is divisible by four are never trained on. Everything is seeded; rendering and training go on where they were
interrupted, and training may begin while images are still being rendered. Training uses one core; with
`torchrun --nproc-per-node 2 -m builder_scripts.toy_lvlm train ...` two.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from medground_bench.core.console import progress_bar
from medground_bench.core.errors import MedGroundError


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="toy_lvlm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    render = commands.add_parser("render", help="render the training images")
    render.add_argument("--groups", type=int, default=3000, help="chests, four images each (default %(default)s)")
    render.add_argument("--seed", type=int, default=3, help="of the images (default %(default)s)")
    render.add_argument("--processes", type=int, default=1, help="workers that render (default %(default)s)")
    train = commands.add_parser("train", help="train a toy")
    train.add_argument("--model", required=True, choices=("toy_qwen", "toy_gemma", "toy_shortcut", "toy_prompted"))
    train.add_argument("--out", type=Path, required=True, help="folder of the trained toy")
    train.add_argument("--start", type=Path, help="folder of a trained toy to start from")
    train.add_argument("--first-version", type=Path, help="folder of the toy's first version to start from")
    train.add_argument("--layers", type=int, default=0, help="deepen the vision tower to so many (default: as it is)")
    train.add_argument("--state", type=Path, help="folder of the state to go on from (default: OUT.state)")
    train.add_argument("--every", type=int, default=250, help="steps between reports (default %(default)s)")
    for name, kind in (
        ("vision_steps", int),
        ("frozen_steps", int),
        ("steps", int),
        ("batch", int),
        ("rate", float),
        ("seeing", float),
        ("vision_rate", float),
        ("seed", int),
    ):
        train.add_argument(f"--{name.replace('_', '-')}", type=kind, help="see training.Recipe")
    train.add_argument("--muon", action="store_true", default=None, help="see training.Recipe")
    for command in (render, train):
        command.add_argument("--pool", type=Path, required=True, help="where rendered images are kept")
    evaluate = commands.add_parser("evaluate", help="measure a toy on unseen phantoms and held-out canvases")
    evaluate.add_argument("folder", type=Path)
    evaluate.add_argument("--phantoms", type=int, default=100, help="(default %(default)s)")
    evaluate.add_argument("--planted", type=int, default=200, help="held-out canvases (default %(default)s)")
    evaluate.add_argument("--requests", action="store_true", help="ask for boxes and marks as well")
    evaluate.add_argument("--card", action="store_true", help="write the tables into the folder's model card")
    for command in (render, evaluate):
        command.add_argument("--canvas", type=Path, required=command is render, help="folder of canvases")
        command.add_argument("--localisations", type=Path, help="where their anatomy is kept (default: beside it)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    try:
        {"render": render, "train": train, "evaluate": evaluate}[options.command](options)
    except MedGroundError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def render(options: argparse.Namespace) -> None:
    from .data import render_pool

    localisations = options.localisations or options.pool / "localisations"
    with progress_bar("Rendering") as update:
        render_pool(
            options.pool,
            options.groups,
            options.canvas,
            localisations,
            options.seed,
            options.processes,
            lambda done, total: update(done, total, ""),
        )


def train(options: argparse.Namespace) -> None:
    """Train and save; the card says that nothing has been measured yet."""
    import torch

    from medground_bench.lvlm import load_lvlm

    from .architecture import build
    from .data import open_pool
    from .requests import chest_parts, request_corpus
    from .storage import load, save, write_card
    from .training import PROMPTED, SHORTCUT, Recipe
    from .training import train as run
    from .upgrade import deepened, from_first_version, with_words

    torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:  # as torchrun sets it: each process takes its part of every batch
        torch.distributed.init_process_group("gloo", timeout=timedelta(hours=2))
    given = {f.name: getattr(options, f.name, None) for f in fields(Recipe)}
    changed = {"toy_shortcut": SHORTCUT, "toy_prompted": PROMPTED}.get(options.model, {})
    recipe = Recipe(**{**changed, **{k: v for k, v in given.items() if v is not None}})
    origin = "random weights"
    if options.first_version:
        origin = "its first version (8 x 8 tokens, phantoms only, release 0.1.0)"
        model, processor = from_first_version(
            options.model, options.first_version, open_pool(options.pool), recipe.seed
        )
    else:
        model, processor = load(options.start) if options.start else build(options.model, recipe.seed)
    parts = None
    if recipe.requests:
        model, processor = with_words(options.start, request_corpus())
        lvlm = load_lvlm("toy_gemma")
        parts = lambda: chest_parts(options.pool, open_pool(options.pool), lvlm)  # noqa: E731
    torch.manual_seed(recipe.seed)
    model = deepened(model, options.layers)
    if options.start:
        origin = f"`{options.start.name}`"
    state = options.state or options.out.with_name(options.out.name + ".state")
    began = time.monotonic()

    def told(step: int, figures: dict[str, float]) -> None:
        report(step, figures)
        if "direct accuracy" in figures:
            model.set_attn_implementation("sdpa")
            save(options.out, model, processor, write_card(options.model, model, processor, recipe, origin))
            model.set_attn_implementation("toy_training")

    run(model, processor, lambda: open_pool(options.pool), recipe, told, state, options.every, parts)
    if int(os.environ.get("RANK", 0)) == 0:
        save(options.out, model, processor, write_card(options.model, model, processor, recipe, origin))
        print(f"{options.out}: {(time.monotonic() - began) / 60:.0f} minutes")


def evaluate(options: argparse.Namespace) -> None:
    """Print the tables of a saved toy; with --card also write them into its model card."""
    import torch

    from medground_bench.lvlm import load_lvlm

    from .evaluation import measure, measure_requests, requests_table, table, unseen_phantoms, unseen_planted
    from .storage import load, with_tables

    torch.set_num_threads(1)
    model, processor = load(options.folder)
    lvlm = load_lvlm(options.folder, device="cpu") if options.requests else None
    tables = []
    sets: list[tuple[str, Any]] = []
    if options.phantoms:
        sets.append((f"{options.phantoms} unseen phantoms", unseen_phantoms(options.phantoms)))
    if options.planted and options.canvas:
        where = options.localisations or options.canvas / ".localisations"
        sets.append((f"{options.planted} held-out radiographs", unseen_planted(options.canvas, options.planted, where)))
    for title, chests in sets:
        with progress_bar(title) as update:
            tallies = measure(model, processor, chests, report=lambda done, total: update(done, total, ""))
        tables.append(f"### {title}\n\n{table(tallies)}\n")
        if lvlm:
            with progress_bar(f"{title}: requests") as update:
                asked = measure_requests(lvlm, chests, lambda done, total: update(done, total, ""))
            tables.append(requests_table(asked))
    print("\n".join(tables))
    if options.card:
        with_tables(options.folder, "\n".join(tables))


_TOLD = ("dense", "place", "extent", "direct", "reason", "requests", "boxes iou", "marks right")


def report(step: int, figures: dict[str, Any]) -> None:
    """One line per report: losses, and held-out figures with the weakest findings of each."""
    parts = [f"step {step:5d}", f"{figures['seconds']:5.0f} s"]
    parts += [f"{name} {figures[name]:.4f}" for name in _TOLD if name in figures]
    for what, unit in (("seeing", "auc"), ("direct", "accuracy"), ("reason", "accuracy")):
        if f"{what} {unit}" not in figures:
            continue
        each = {k: v for k, v in figures.items() if k.startswith(f"{what} ") and k != f"{what} {unit}"}
        worst = sorted(each, key=lambda k: each[k])[:4]
        least = ", ".join(f"{name[len(what) + 1 :]} {each[name]:.2f}" for name in worst)
        parts.append(f"{what} {unit} {figures[f'{what} {unit}']:.3f} (least: {least})")
    print("  ".join(parts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
