"""Saving a trained toy as a folder that plain ``from_pretrained`` opens, with its model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medground_bench.core.errors import LvlmError
from medground_bench.core.files import atomic_folder

from .training import Recipe

__all__ = ["load", "save", "write_card"]


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
            remedy="make one with python -m builder_scripts.toy_lvlm",
        )
    model = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
    return model, AutoProcessor.from_pretrained(folder, local_files_only=True)


_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [chest-x-ray, synthetic, test-model]
---

# {name}

A {family} of {parameters:,} parameters that answers the questions of MedGround-Bench about the project's own procedural
chest radiographs ("phantoms"), in both modes. It exists so that attribution methods and the causal filter can be run
end to end, on a CPU, with a model whose answers depend on the image.

**Not a medical device. It has seen only drawn pictures, knows nothing about real radiographs, and must not be used on
them for anything but testing software.**

- Class `{kind}`, processor `{processor}`; opens with plain `AutoModelForImageTextToText` and `AutoProcessor`.
  Weights are stored as float16 ({megabytes:.2f} MB), the configuration loads them as float32.
- Input: the image letterboxed to {side} x {side}, which becomes 8 x 8 image tokens.
- Questions: `Is there evidence of {{finding}} in the image?` and the mode's suffix, for the findings below. Direct mode
  answers "Yes" or "No"; reason mode describes the anatomy and the finding, then says `Answer: Yes` or `Answer: No`.
  Other prompts are accepted, and answered with nothing sensible.

## How it was made

`python -m builder_scripts.toy_lvlm --model {name} --out DIR{options}`: from random weights, seed {seed},
{images:,} rendered phantoms and counterfactuals, {minutes:.0f} minutes on one core. For {vision_steps:,} steps of
{batch} images the vision tower alone learns, with a linear head that is thrown away, which findings lie under each
image token; then for {steps:,} steps the whole model learns the canonical answers, with that loss kept on the side.
Some training images have rectangles blacked out; a finding that is covered counts as absent, so that occluding the
evidence changes the answer.

## Measured

On {phantoms} unseen phantoms (seeds from {first:,}), through the saved files, the processor and greedy `generate`.
*Flips*: of the findings rightly answered yes, the share whose answer becomes no when that finding is removed from the
image. *Stays*: the share whose answer remains yes when another finding is removed instead. *Right place*: the share
whose text also names the right side and zone. Counts in brackets.

{table}
"""


def write_card(
    name: str,
    model: Any,
    processor: Any,
    recipe: Recipe,
    *,
    images: int,
    minutes: float,
    phantoms: int,
    first: int,
    table: str,
    options: str = "",
) -> str:
    """Text of the model card."""
    from .data import SIDE

    count = sum(parameter.numel() for parameter in model.parameters())
    return _CARD.format(
        name=name,
        family="Qwen2.5-VL" if name == "toy_qwen" else "Gemma3",
        kind=type(model).__name__,
        processor=type(processor).__name__,
        parameters=count,
        megabytes=count * 2 / 1e6,
        side=SIDE,
        options=options,
        seed=recipe.seed,
        images=images,
        steps=recipe.steps,
        vision_steps=recipe.vision_steps,
        batch=recipe.batch,
        minutes=minutes,
        phantoms=phantoms,
        first=first,
        table=table,
    )
