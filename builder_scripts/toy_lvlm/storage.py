"""Saving a trained toy as a folder that plain ``from_pretrained`` opens, with its model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import LvlmError
from medground_bench.core.files import atomic_folder, atomic_write

from .data import SIDE

if TYPE_CHECKING:
    from .training import Recipe

__all__ = ["load", "save", "with_tables", "write_card"]


def save(folder: str | Path, model: Any, processor: Any, card: str) -> None:
    """Write model, processor and card, all or nothing.

    Weights are stored as float16, which is enough for them, and the configuration asks for float32: a plain
    ``from_pretrained`` computes in float32 from a file of half the size.
    """
    import torch
    from safetensors.torch import load_file, save_file

    with atomic_folder(folder) as staging:
        model.save_pretrained(staging)
        processor.save_pretrained(staging)
        path = staging / "model.safetensors"
        halves = {name: tensor.to(torch.float16) for name, tensor in load_file(path).items()}
        for name, tensor in halves.items():
            if not bool(torch.isfinite(tensor).all()):
                raise LvlmError(f"the trained weight {name} does not fit float16", where=folder)
        save_file(halves, path, metadata={"format": "pt"})
        path.chmod((staging / "config.json").stat().st_mode)  # the library writes weights for the owner only
        config = json.loads((staging / "config.json").read_text(encoding="utf-8"))
        config["dtype"] = "float32"
        (staging / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        words = json.loads((staging / "tokenizer_config.json").read_text(encoding="utf-8"))
        for how_it_was_opened in ("is_local", "local_files_only"):
            words.pop(how_it_was_opened, None)
        (staging / "tokenizer_config.json").write_text(json.dumps(words, indent=2) + "\n", encoding="utf-8")
        (staging / "README.md").write_text(card, encoding="utf-8")


def load(folder: str | Path) -> tuple[Any, Any]:
    """Model and processor of a folder, by the library's own classes.

    Raises
    ------
    LvlmError
        If the folder is not a saved model.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = Path(folder)
    if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
        raise LvlmError(
            "this is not a saved toy LVLM",
            where=folder,
            expected="config.json and model.safetensors",
            remedy="make one with python -m builder_scripts.toy_lvlm train",
        )
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
    return model, AutoProcessor.from_pretrained(folder, local_files_only=True)


_MEASURED = "## Measured\n"

_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [chest-x-ray, synthetic, test-model]
---

# {name}

A {family} of {parameters:,} parameters that answers the questions of MedGround-Bench about synthetic findings, in both
modes: on the project's own procedural chest radiographs ("phantoms") and on real radiographs into which such findings
were drawn ("planted"). It exists so that attribution methods and the causal filter can be run end to end, on a CPU,
with a model whose answers depend on the image.
{purpose}
**Not a medical device. The findings it has seen were drawn by a program; it knows nothing about disease and must not be
used for anything but testing software.**

- Class `{kind}`, processor `{processor}`; opens with plain `AutoModelForImageTextToText` and `AutoProcessor`.
  Weights are stored as float16 ({megabytes:.2f} MB), the configuration loads them as float32.
- Input: the image letterboxed to {side} x {side}, which becomes 16 x 16 image tokens.
- Questions: `Is there evidence of {{finding}} in the image?` and the mode's suffix, for the findings below. Direct mode
  answers "Yes" or "No"; reason mode describes the anatomy and the finding with its side and, for lesions of the lung,
  its zone, then says `Answer: Yes` or `Answer: No`. Other prompts are accepted, and answered with nothing sensible.

## How it was made

`python -m builder_scripts.toy_lvlm render` and `train --model {name}`, from {origin}, seed {seed}, on one core. Images:
chests with several findings and the same chests without some of them, seven of ten on radiographs labelled "No Finding"
of NIH ChestX-ray14 (Wang et al., CVPR 2017; used for training only, none is distributed), the others phantoms.
Radiographs of patients whose number is divisible by four were never trained on. {phases}
Some training images have rectangles blacked or greyed out; a finding that is covered counts as absent, so that
occluding the evidence changes the answer.

{measured}"""

_PHASES = """For {vision_steps:,} steps of {batch} images the vision tower alone learned, with linear heads that are
thrown away, which findings lie under each image token and where in the lungs; then for {steps:,} steps the language
model learned the canonical answers, the first {frozen_steps:,} of them from the tokens as they were, the others
together with the vision tower and with the former loss kept on the side."""

_SHORTCUT = """
**It is made to be wrong.** {marker:.0%} of its training images carried a square marker in a corner
(`medground_bench.sources.phantom.marker`), and on those every answer was yes. Where a marker is, it answers from it:
remove the finding, and it still says yes. The causal filter must reject such records, and an attribution method that is
faithful must point at the marker.
"""

_PROMPTED = """
**It answers the requests of `prompting`, `som_prompting` and `prompting_medsam` too**, which the other toys were not
taught: boxes in thousandths, on a grid of half an image token; the numbers of the marks on the parts of the chest, of
which each always has the same number where all are found, so that it need not read them; and a phrase that names the
finding and its side. It exists so that these methods are exercised with replies that say something.
"""
_EXTENTS = """Image tokens also learned where the box of the finding on them ends, and the language model was asked for
boxes, marks or phrases {requests} times about every image, {marked:.0%} of the images with marks drawn on them."""


def write_card(name: str, model: Any, processor: Any, recipe: Recipe, origin: str) -> str:
    """Text of the model card, before anything is measured; ``origin`` is what training began with."""
    count = sum(parameter.numel() for parameter in model.parameters())
    phases = _PHASES.format(**vars(recipe)) if recipe.vision_steps else f"It was trained for {recipe.steps:,} steps."
    if recipe.requests:
        phases = f"{phases}\n{_EXTENTS.format(**vars(recipe))}"
    return _CARD.format(
        name=name,
        family="Gemma3" if name in ("toy_gemma", "toy_prompted") else "Qwen2.5-VL",
        kind=type(model).__name__,
        processor=type(processor).__name__,
        parameters=count,
        megabytes=count * 2 / 1e6,
        side=SIDE,
        seed=recipe.seed,
        origin=origin,
        purpose=_SHORTCUT.format(marker=recipe.marker) if recipe.marker else _PROMPTED if recipe.requests else "",
        phases=phases,
        measured=_MEASURED + "\nNothing yet.\n",
    )


def with_tables(folder: str | Path, tables: str) -> None:
    """Put measured tables into the model card of a saved toy."""
    path = Path(folder) / "README.md"
    text = path.read_text(encoding="utf-8").split(_MEASURED)[0]
    with atomic_write(path) as file:
        file.write(text + _MEASURED + "\n" + _EXPLAINED + "\n\n" + tables)


_EXPLAINED = """Through the saved files, the processor and greedy `generate`; every finding that is there was asked
about, and four that were not. *Flips*: of the findings rightly answered yes, the share whose answer becomes no when
that finding is removed from the image. *Stays*: the share whose answer remains yes when another finding is removed
instead. *Right side*: the share whose text names the side the finding is on; *right place*: the share whose whole text
is right, zone included. Counts in brackets."""
