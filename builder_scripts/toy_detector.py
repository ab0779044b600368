"""Train a small OWL-ViT on phantoms, for ``prompting_medsam`` where no detector can be downloaded.

    python -m builder_scripts.toy_detector --out DIR
    medground-bench generate ... --method prompting_medsam --set prompting_medsam.detector=DIR

Its vision tower is that of a toy LVLM, which has seen findings, and stays as it is: what it says of every image is
computed once, and only what OWL-ViT puts on top of it, and the text side, learn. Every patch learns whether a finding
that a phrase names covers it (focal loss, Lin et al., ICCV 2017), and the box of the smallest finding that does (L1 and
generalised IoU, Rezatofighi et al., CVPR 2019). Findings go by the phantoms' names and by those of NIH ChestX-ray14,
with words around them that mean nothing. One core, minutes; everything is seeded.
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
from PIL import Image
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import box_convert, box_iou, generalized_box_iou_loss

from baselines.shared.detection import Detector
from builder_scripts.chests import SHARED, drawn, run
from medground_bench.lvlm import load_lvlm
from medground_bench.scoring.xbench import auroc
from medground_bench.sources.phantom import FINDINGS, sample_phantom
from medground_bench.sources.phantom.layouts.nih_cxr14 import LABELS

__all__ = ["Recipe", "build", "measure", "seen", "train"]

SIDE, PATCH = 224, 14
_GRID = SIDE // PATCH
_TOWER = "toy_gemma"
_TEMPLATES = ("{}", "a {}", "{} on the left", "{} in the right lung", "{} on both sides")
_NOTHING = "nothing of the kind"
_WORDINGS = [(name, LABELS.get(name, name)) for name in FINDINGS]  # the phantoms' own, and those of NIH ChestX-ray14
_SEEDS = 910_000_000  # of the training phantoms; those of sets begin at five billion


@dataclass(frozen=True)
class Recipe:
    """How it is trained."""

    seed: int = 0
    chests: int = 150
    steps: int = 1000
    batch: int = 32
    rate: float = 2e-3
    chance: float = 0.3  # of a finding to be in an image


@dataclass(frozen=True)
class Seen:
    """What the tower says of the images, (N, patches, width), and the boxes of the findings.

    ``boxes`` (N, findings, patches, 4) holds the box, in fractions, of a finding at the patches that it covers, and NaN
    elsewhere.
    """

    features: Tensor
    boxes: Tensor


def build(seed: int = 0) -> Detector:
    """An OWL-ViT of half a million parameters with the vision tower of ``toy_gemma``, 16 x 16 patches."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    from transformers import (
        OwlViTConfig,
        OwlViTForObjectDetection,
        OwlViTImageProcessor,
        OwlViTProcessor,
        PreTrainedTokenizerFast,
    )

    words = sorted({word for two in _WORDINGS for name in two for word in name.lower().split()})
    vocabulary = {word: k for k, word in enumerate(["<pad>", "<unk>", *words, "<end>"])}  # the end has the largest id
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    end = len(vocabulary) - 1
    core.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", end)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", model_max_length=16
    )
    toy = load_lvlm(_TOWER, device="cpu").model
    common = {"hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 4}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "num_hidden_layers": 1}
    ids = {"eos_token_id": end, "pad_token_id": 0, "bos_token_id": None}
    vision = {**toy.config.vision_config.to_dict(), "model_type": "owlvit_vision_model"}
    config = OwlViTConfig(text_config={**common, **text, **ids}, vision_config=vision, projection_dim=96)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OwlViTForObjectDetection(config)
        for part in (model.box_head.dense0, model.box_head.dense1, model.class_head.dense0):
            part.reset_parameters()  # the library's own are so large that boxes saturate
        torch.nn.init.zeros_(model.box_head.dense2.weight)
        torch.nn.init.zeros_(model.class_head.logit_shift.weight)
        torch.nn.init.constant_(model.class_head.logit_shift.bias, -1.0)  # at first nothing is anywhere
        torch.nn.init.zeros_(model.class_head.logit_scale.weight)
        torch.nn.init.constant_(model.class_head.logit_scale.bias, 4.0)
    _take_over(toy.model.vision_tower, model.owlvit.vision_model)
    size = {"height": SIDE, "width": SIDE}
    grey: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return Detector(model, OwlViTProcessor(OwlViTImageProcessor(size=size, **grey), tokenizer))


@torch.no_grad()
def _take_over(siglip: Any, tower: Any) -> None:
    """The weights of a SigLIP, so that its patches come out as they would there.

    OWL-ViT has a norm before the layers, which SigLIP has not. A large constant added to every patch makes it a mere
    shift, and its bias takes the constant away again; what is left, the loss of each patch's mean, no later norm can
    tell. OWL-ViT multiplies the patches by a class token, which SigLIP has not either: it begins at another large
    constant, such that after the last norm it is much the same for every image and nowhere near zero.
    """
    known = tower.state_dict()
    known |= {name: value for name, value in siglip.state_dict().items() if name in known}
    norm = siglip.post_layernorm
    gain = (norm.weight + norm.bias).abs() - (norm.weight - norm.bias).abs()  # of +1 over -1
    wanted = torch.where(gain > gain.median(), -1.0, 1.0) / len(gain) ** 0.5
    places = siglip.embeddings.position_embedding.weight + siglip.embeddings.patch_embedding.bias
    large, width = 1000 * float(places.std()), len(wanted)
    constant = -large * wanted
    known["embeddings.position_embedding.weight"] = torch.cat([torch.zeros(1, width), places + constant])
    known["embeddings.class_embedding"] = large * wanted
    known["pre_layernorm.weight"] = torch.full((width,), large / width**0.5)
    known["pre_layernorm.bias"] = -constant
    tower.load_state_dict(known)
    tower.requires_grad_(False)


@torch.no_grad()
def seen(detector: Detector, recipe: Recipe) -> Seen:
    """What is trained on: four phantoms of each chest, with other findings."""
    count = recipe.chests * SHARED
    rng = np.random.default_rng(recipe.seed)
    has = rng.random((count, len(FINDINGS))) < recipe.chance
    sizes = [(int(w), int(h)) for w, h in (rng.integers(SIDE, SIDE * 4 // 3, 2) for _ in range(recipe.chests))]
    features = torch.empty(count, _GRID**2, detector.model.config.vision_config.hidden_size, dtype=torch.float16)
    boxes = torch.full((count, len(FINDINGS), _GRID**2, 4), torch.nan, dtype=torch.float16)
    for n, one in enumerate(drawn(_SEEDS + recipe.seed * recipe.chests, sizes, has)):
        features[n] = _features(detector, Image.fromarray(one.image))
        for found in one.findings:
            boxes[n, FINDINGS.index(found.attribute)] = torch.from_numpy(_patch_boxes(found.mask, found.boxes))
    return Seen(features, boxes)


def _features(detector: Detector, image: Image.Image) -> Tensor:
    """What the heads get of an image, (patches, width)."""
    pixels = detector.processor.image_processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
    embedded, _ = detector.model.image_embedder(pixels)
    return embedded.flatten(1, 2)[0]


def _patch_boxes(mask: np.ndarray, boxes: Any) -> np.ndarray:
    """(patches, 4) box in fractions at the patches of which a finding covers a quarter, or its share at the most."""
    height, width = mask.shape
    share = np.asarray(
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize((_GRID, _GRID), Image.Resampling.BOX), float
    )
    rows, cols = np.nonzero(share >= min(64.0, share.max()))
    corners = np.array(boxes) / (width, height, width, height)
    x, y = ((cols + 0.5) / _GRID)[:, None], ((rows + 0.5) / _GRID)[:, None]
    away = np.abs(corners[:, 0] + corners[:, 2] - 2 * x) + np.abs(corners[:, 1] + corners[:, 3] - 2 * y)
    out = np.full((_GRID**2, 4), np.nan, np.float16)
    out[rows * _GRID + cols] = corners[away.argmin(1)]
    return out


def train(detector: Detector, recipe: Recipe, report: Any = print) -> None:
    """Train what is on top of the tower, in place."""
    model, began = detector.model, time.process_time()
    known = seen(detector, recipe)
    report(f"{len(known.features)} images after {time.process_time() - began:.0f} s")
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=recipe.rate, weight_decay=0.01, betas=(0.9, 0.98))
    model.train()
    for step in range(1, recipe.steps + 1):
        optimiser.param_groups[0]["lr"] = recipe.rate * min(1.0, step / 100, 3 * (1 - (step - 1) / recipe.steps))
        rng = np.random.default_rng([recipe.seed, step])
        chosen = torch.from_numpy(rng.choice(len(known.features), recipe.batch, replace=False))
        named, placed = losses(detector, known.features[chosen].float(), known.boxes[chosen].float(), rng)
        optimiser.zero_grad(set_to_none=True)
        (named + placed).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        if step % 500 == 0 or step == recipe.steps:
            report(f"step {step} {time.process_time() - began:.0f} s named {named:.3f} placed {placed:.3f}")
    model.eval()


def losses(detector: Detector, features: Tensor, boxes: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Focal loss of which finding covers each patch, and of the boxes of patches that one covers."""
    phrases = [_TEMPLATES[rng.integers(len(_TEMPLATES))].format(two[rng.integers(2)]) for two in _WORDINGS]
    text = detector.processor.tokenizer([*phrases, _NOTHING], padding="max_length", return_tensors="pt")
    embedded = detector.model.owlvit.get_text_features(**{k: text[k] for k in ("input_ids", "attention_mask")})
    embedded = getattr(embedded, "pooler_output", embedded)
    queries = embedded.expand(len(features), -1, -1)
    logits, _ = detector.model.class_predictor(features, queries, torch.ones(queries.shape[:2]))
    covered = torch.isfinite(boxes[..., 0])  # (B, F, P)
    target = torch.zeros_like(logits)
    target[..., :-1] = covered.transpose(1, 2).float()
    wrong = (logits.sigmoid() - target).abs().detach()
    named = (wrong**2 * binary_cross_entropy_with_logits(logits, target, reduction="none")).sum() / target.sum()
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    smallest = area.nan_to_num(torch.inf).argmin(1)  # (B, P)
    somewhere = covered.any(1)
    wanted = boxes.gather(1, smallest[:, None, :, None].expand(-1, -1, -1, 4))[:, 0][somewhere]
    grid = features.unflatten(1, (_GRID, _GRID))
    found = box_convert(detector.model.box_predictor(features, grid)[somewhere], "cxcywh", "xyxy")
    return named, (found - wanted).abs().mean() * 5 + generalized_box_iou_loss(found, wanted, reduction="mean")


def measure(detector: Detector, count: int = 24) -> dict[str, float]:
    """Of unseen phantoms: mean IoU of the best box of every finding that is there.

    ``whole`` is that of the whole image, ``other`` that of the box found on another phantom that has the finding too.
    ``auroc`` says how well the best score tells the findings that are there from the others, pooled over findings.
    """
    best: dict[str, list[tuple[Any, Any]]] = {name: [] for name in FINDINGS}
    scores, present = [], []
    for seed in range(count):
        phantom = sample_phantom(_SEEDS - 1 - seed, size=(288, 256))
        image, there = Image.fromarray(phantom.image), {f.attribute: f.boxes for f in phantom.findings}
        for name in FINDINGS:
            (one,) = detector.find(image, [name], threshold=0.0, top=1)
            scores.append(one.score)
            present.append(name in there)
            if name in there:
                best[name].append((one.box, there[name]))
    right = np.array(present)
    area = auroc(np.array(scores)[right], np.array(scores)[~right])

    def overlap(box: Any, boxes: Any) -> float:
        return float(box_iou(torch.tensor([box]).float(), torch.tensor(boxes).float()).max())

    rows = [pair for found in best.values() if len(found) > 1 for pair in found]
    others = [found[k - 1][0] for found in best.values() if len(found) > 1 for k in range(len(found))]
    return {
        "iou": float(np.mean([overlap(box, wanted) for box, wanted in rows])),
        "other": float(np.mean([overlap(box, wanted) for box, (_, wanted) in zip(others, rows, strict=True)])),
        "whole": float(np.mean([overlap((0, 0, 288, 256), wanted) for _, wanted in rows])),
        "auroc": float(area),
    }


def main(argv: list[str] | None = None) -> int:
    def made(recipe: Recipe) -> tuple[list[Any], str]:
        detector = build(recipe.seed)
        train(detector, recipe, lambda line: print(line, flush=True))
        figures = ", ".join(f"{name} {value:.3f}" for name, value in measure(detector).items())
        print(figures)
        return [detector.model, detector.processor], figures

    about = "A small OWL-ViT trained on phantoms\n\nFor tests of `prompting_medsam`."
    return run(__doc__, Recipe, made, about, argv)


if __name__ == "__main__":
    sys.exit(main())
