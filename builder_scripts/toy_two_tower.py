"""Train a tiny CLIP on phantoms, for ``medground-bench xbench``.

    python -m builder_scripts.toy_two_tower --out DIR

Every image is compared with a positive and a negative prompt per finding, the two that
:class:`~medground_bench.lvlm.two_tower.TwoTower` compares, and learns to stand nearer to the right one: as a whole, and
by its nearest patches (the softest possible maximum over them, Huang et al., GLoRIA, ICCV 2021). Where a finding is, is
never told. Each chest is drawn four times with other findings, so that nothing but the findings tells its images apart.
Findings go by the phantoms' names and by those of NIH ChestX-ray14. One core, minutes; everything is seeded.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize, softplus

from builder_scripts.chests import SHARED, drawn, run
from medground_bench.lvlm.two_tower import PROMPTS, TwoTower
from medground_bench.sources.phantom import FINDINGS
from medground_bench.sources.phantom.layouts.nih_cxr14 import LABELS

__all__ = ["Recipe", "build", "images", "train"]

SIDE, PATCH = 112, 8
_SEEDS = 900_000_000  # of the training phantoms; those of sets begin at five billion


@dataclass(frozen=True)
class Recipe:
    """How it is trained."""

    seed: int = 0
    chests: int = 1500
    steps: int = 1000
    batch: int = 32
    rate: float = 2e-3
    chance: float = 0.3  # of a finding to be in an image
    patches: float = 1.0  # weight of the patches' loss


def names() -> list[str]:
    """Every wording of every finding, the phantoms' own first."""
    return [*FINDINGS, *(LABELS[name] for name in FINDINGS if name in LABELS)]


def build(seed: int = 0) -> tuple[Any, Any]:
    """Random CLIP of 170,305 parameters, 14 x 14 patches: (model, processor)."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

    words = sorted({word for prompt in PROMPTS for name in names() for word in prompt.format(name).split()})
    vocabulary = {word: k for k, word in enumerate(["<pad>", "<end>", "<unk>", *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", model_max_length=16
    )
    common = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    text: dict[str, Any] = {
        **common,
        "num_hidden_layers": 1,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 16,
    }
    text["eos_token_id"], text["pad_token_id"], text["bos_token_id"] = 1, 0, None
    vision = {**common, "image_size": SIDE, "patch_size": PATCH}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))
    size = {"height": SIDE, "width": SIDE}
    grey: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    return model, CLIPProcessor(CLIPImageProcessor(size=size, do_center_crop=False, crop_size=size, **grey), tokenizer)


def images(tower: TwoTower, recipe: Recipe) -> tuple[Tensor, NDArray[np.bool_]]:
    """Grey pixel values (N, SIDE, SIDE) of the training phantoms, and which findings each has, (N, findings)."""
    from PIL import Image

    pixels = torch.empty(recipe.chests * SHARED, SIDE, SIDE, dtype=torch.float16)
    has = np.random.default_rng(recipe.seed).random((len(pixels), len(FINDINGS))) < recipe.chance
    for k, one in enumerate(drawn(_SEEDS + recipe.seed * recipe.chests, [224] * recipe.chests, has)):
        pixels[k] = tower.pixels([Image.fromarray(one.image).convert("RGB")])[0, 0]
    return pixels, has


def train(model: Any, processor: Any, recipe: Recipe, report: Any = print) -> None:
    """Train in place; the last images are kept aside for the figures of the reports."""
    tower = TwoTower(model, processor, key="toy_clip")
    began = time.process_time()
    pixels, has = images(tower, recipe)
    report(f"{len(pixels)} images after {time.process_time() - began:.0f} s")
    held = max(SHARED, len(pixels) // 20 // SHARED * SHARED)
    sentences = [prompt.format(name) for name in names() for prompt in PROMPTS]
    prompts = processor.tokenizer(sentences, padding=True, return_tensors="pt")
    same = {alias: name for name, alias in LABELS.items()}
    labels = torch.from_numpy(has).float()[:, [FINDINGS.index(same.get(name, name)) for name in names()]]
    rng = np.random.default_rng([recipe.seed, 1])
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and "embedding" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embedding" in name]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(inner, lr=recipe.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=recipe.rate, weight_decay=0.01, betas=(0.9, 0.98)),
    ]
    model.train()
    for step in range(1, recipe.steps + 1):
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = recipe.rate * min(1.0, step / 100, (recipe.steps - step + 1) / (recipe.steps / 3))
        chests = rng.choice((len(pixels) - held) // SHARED, recipe.batch // SHARED, replace=False)
        chosen = torch.from_numpy((chests[:, None] * SHARED + np.arange(SHARED)).reshape(-1))
        whole, local = _logits(tower, prompts, pixels[chosen])
        loss = _loss(whole, labels[chosen]) + recipe.patches * _loss(local, labels[chosen])
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        if step % 100 == 0 or step == recipe.steps:
            figures = _figures(tower, prompts, pixels[-held:], labels[-held:])
            report(f"step {step} {time.process_time() - began:.0f} s loss {loss.detach():.3f} {figures}")
    model.eval()


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, and that of which of two images of one chest has the finding: what is common to them drops out."""
    of_chest, has = (t.reshape(-1, SHARED, t.shape[1]) for t in (logits, labels))
    apart = of_chest[:, :, None] - of_chest[:, None]
    pairs = has[:, :, None] * (1 - has[:, None])
    return binary_cross_entropy_with_logits(logits, labels) + (softplus(-apart) * pairs).sum() / pairs.sum()


def _logits(tower: TwoTower, prompts: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Nearer to the positive than to the negative prompt, (N, wordings): images, and the nearest of their patches."""
    embedded, out = tower.tower(pixels[:, None].float().expand(-1, 3, -1, -1))
    texts = tower.model.get_text_features(**prompts)
    texts = normalize(getattr(texts, "pooler_output", texts), dim=-1)
    apart = (texts[0::2] - texts[1::2]) * tower.model.logit_scale.exp()
    patches = tower.patch_embeddings(out["last_hidden_state"]) @ apart.T
    return embedded @ apart.T, patches.logsumexp(1) - float(np.log(patches.shape[1]))


@torch.no_grad()
def _figures(tower: TwoTower, prompts: Any, pixels: Tensor, labels: Tensor) -> str:
    """AUROC of the images' and the patches' logits, means over wordings, and the least of the images'."""
    from medground_bench.scoring.xbench import auroc

    parts = [_logits(tower, prompts, part) for part in pixels.split(100)]
    areas = [
        [auroc(score[label > 0.5, k].numpy(), score[label < 0.5, k].numpy()) for k, label in enumerate(labels.T)]
        for score in map(torch.cat, zip(*parts, strict=True))
    ]
    return f"AUROC {np.mean(areas[0]):.3f} (least {min(areas[0]):.3f}), of patches {np.mean(areas[1]):.3f}"


def main(argv: list[str] | None = None) -> int:
    def made(recipe: Recipe) -> tuple[list[Any], str]:
        model, processor = build(recipe.seed)
        train(model, processor, recipe, lambda line: print(line, flush=True))
        return [model, processor], ""

    about = "A tiny CLIP trained on phantoms\n\nFor tests of `medground-bench xbench`."
    return run(__doc__, Recipe, made, about, argv)


if __name__ == "__main__":
    sys.exit(main())
