"""What the scripts that train a small model on phantoms share: their images and their command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.core.errors import MedGroundError
from medground_bench.core.files import atomic_folder, atomic_write
from medground_bench.sources.phantom import FINDINGS, sample_phantom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from medground_bench.sources.phantom.sample import Phantom

__all__ = ["SHARED", "drawn", "run"]

SHARED = 4  # images of one chest


def drawn(seed: int, sizes: Sequence[int | tuple[int, int]], has: np.ndarray) -> Iterator[Phantom]:
    """Every chest ``SHARED`` times, each with other findings: those of ``has``, (images, findings)."""
    for chest, size in enumerate(sizes):
        every = sample_phantom(seed + chest, size=size, findings=FINDINGS)
        for present in has[chest * SHARED : (chest + 1) * SHARED]:
            one = every
            for name in np.array(FINDINGS)[~present]:
                one = one.without(str(name))
            yield one


def run(
    doc: str | None, recipe: type[Any], train: Callable[[Any], tuple[list[Any], str]], about: str, argv: Any = None
) -> int:
    """Read a recipe from the command line, train, and write the parts and a card to ``--out``; an exit status.

    ``train`` takes the recipe and returns what has ``save_pretrained``, and figures for the card that ``about`` begins.
    """
    import torch

    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the trained model")
    for name, default in vars(recipe()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help="(default %(default)s)")
    options = vars(parser.parse_args(argv))
    out = options.pop("out")
    torch.set_num_threads(1)
    try:
        chosen = recipe(**options)
        parts, figures = train(chosen)
        with atomic_folder(out) as folder:
            for part in parts:
                part.save_pretrained(folder)
            with atomic_write(folder / "README.md") as file:
                file.write(f"# {about} {'; '.join(filter(None, (str(chosen), figures)))}\n")
    except MedGroundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
