"""Start the second version of a toy from its first, which had 8 x 8 image tokens and had seen phantoms only.

Both versions cut the frame into 16 x 16 patches; the first then merged four patches into a token. All weights carry
over by name. Tokens of the vocabulary are matched by their text; new ones begin as the mean of the old tokens that
spell them. Of Qwen2.5-VL the merger changes its shape: the new one is fitted so that the token of every patch looks
like the old token of its block, which is what the language model can read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from .architecture import build
from .forward import Pixels, qwen_image_tokens
from .storage import load
from .tokenizer import gemma_tokenizer

if TYPE_CHECKING:
    from .data import Pool

__all__ = ["deepened", "from_first_version", "with_words"]

_FIT_STEPS = 300


def from_first_version(name: str, folder: str | Path, pool: Pool, seed: int = 0) -> tuple[Any, Any]:
    """Model and processor of the second version, with the knowledge of the first.

    Parameters
    ----------
    name : {"toy_qwen", "toy_gemma"}
    folder : path
        The first version's folder.
    pool : Pool
        Images to fit the merger on.
    seed : int
        Of the weights that are new.
    """
    old, old_processor = load(folder)
    model, processor = build(name, seed)
    before, after = old.state_dict(), model.state_dict()
    changed = [key for key in after if key not in before or before[key].shape != after[key].shape]
    with torch.no_grad():
        for key, value in after.items():
            if key not in changed:
                value.copy_(before[key])
        model.get_input_embeddings().weight.copy_(
            _embeddings(old.get_input_embeddings().weight, old_processor.tokenizer, processor.tokenizer)
        )
    model.tie_weights()
    if name == "toy_qwen":
        _fit_merger(model, processor, old, old_processor, pool, seed)
    return model, processor


def with_words(folder: str | Path, texts: Sequence[str]) -> tuple[Any, Any]:
    """Model and processor of a toy of the Gemma family whose vocabulary also has the words of ``texts``."""
    model, processor = load(folder)
    old, new = processor.tokenizer, gemma_tokenizer(texts)
    with torch.no_grad():
        weight = _embeddings(model.get_input_embeddings().weight, old, new)
        model.resize_token_embeddings(len(new))
        model.get_input_embeddings().weight.copy_(weight)
    model.tie_weights()
    processor.tokenizer = new
    return model, processor


def deepened(model: Any, layers: int) -> Any:
    """The same toy with a vision tower of so many layers; those it did not have begin as the identity.

    A layer adds to what passes through it, and the last matrices of a new one are zero. The toy as it is where it has
    as many layers or more.
    """
    visual = getattr(model.model, "visual", None)
    had = list(visual.blocks if visual is not None else model.model.vision_tower.encoder.layers)
    if len(had) >= layers:
        return model
    config = type(model.config).from_dict(model.config.to_dict())
    if visual is not None:
        config.vision_config.depth = layers
        config.vision_config.fullatt_block_indexes = list(range(1, layers, 2))
    else:
        config.vision_config.num_hidden_layers = layers
    deeper = type(model)(config)
    blocks = list(deeper.model.visual.blocks if visual is not None else deeper.model.vision_tower.encoder.layers)
    deeper.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        for block in blocks[len(had) :]:
            ends = (
                (block.attn.proj, block.mlp.down_proj)
                if visual is not None
                else (block.self_attn.out_proj, block.mlp.fc2)
            )
            for end in ends:
                end.weight.zero_()
                end.bias.zero_()
    deeper.tie_weights()
    deeper.generation_config = model.generation_config
    return deeper.eval()


def _embeddings(weight: torch.Tensor, old: Any, new: Any) -> torch.Tensor:
    known = old.get_vocab()
    rows = []
    for token in sorted(new.get_vocab(), key=new.get_vocab().__getitem__):
        if token in known:
            rows.append(weight[known[token]])
        else:
            spelled = old(new.convert_tokens_to_string([token]), add_special_tokens=False)["input_ids"]
            rows.append(weight[spelled].mean(0))
    return torch.stack(rows)


def _fit_merger(model: Any, processor: Any, old: Any, old_processor: Any, pool: Pool, seed: int) -> None:
    pixels, old_pixels = Pixels(processor), Pixels(old_processor)
    merger = model.model.visual.merger
    optimiser = torch.optim.AdamW(merger.parameters(), lr=3e-3)
    rng = np.random.default_rng(seed)
    for step in range(_FIT_STEPS):
        frames = np.array(pool.frames[np.sort(rng.choice(len(pool), 4, replace=False))])
        with torch.no_grad():
            wanted = qwen_image_tokens(old.model.visual, old_pixels(frames), 16, len(frames))
            wanted = wanted.reshape(-1, 8, 8, wanted.shape[-1]).repeat_interleave(2, 1).repeat_interleave(2, 2)
        tokens = qwen_image_tokens(model.model.visual, pixels(frames), 16, len(frames), only_merger=True)
        loss = nn.functional.mse_loss(tokens, wanted.flatten(1, 2))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 50 == 49:
            share = float(loss.detach() / wanted.var())
            print(f"merger: step {step + 1}, {share:.3f} of the variance is left", flush=True)
