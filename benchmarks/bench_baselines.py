"""Speed and cost of the baselines, measured in one run on one LVLM.

Claims measured:

1. ``occlusion`` and ``rise`` are at least 1.5x faster than the obvious loop (for every masked image: chat template,
   processor, full forward, log-softmax over the whole sequence), with the same scores.
2. Their speed beside Captum's LLM attribution on the same masks: ``LLMAttribution(FeatureAblation)`` on 8 x 8 image
   segments for occlusion, ``LLMAttribution(ShapleyValueSampling)`` with about as many masked images for RISE, both with
   the response in one forward pass (Captum's fast mode).
3. Every method makes the forward and backward passes it declares, counted by hooks on the output head.

    python benchmarks/bench_baselines.py --lvlm toy_qwen
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from baselines.perturbation.occlusion import OcclusionParameters
from baselines.perturbation.rise import RiseParameters
from baselines.shared.masks import random_masks
from medground_bench.attribution.method import available_methods, get_method
from medground_bench.attribution.regions import region_masks, tile_labels
from medground_bench.core.schema import question
from medground_bench.lvlm.passes import count_passes

RESPONSES = {"direct": "Yes", "reason": "The left costophrenic angle is blunted. The answer is yes."}


def load(name: str) -> Any:
    """A registered LVLM, or one of the random ones of the tests (``tiny_qwen``, ``tiny_gemma``)."""
    if name.startswith("tiny_"):
        from medground_bench.lvlm import testing

        return getattr(testing, name)()
    from medground_bench.lvlm import load_lvlm

    return load_lvlm(name, device="cpu")


def timed(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Least wall-clock seconds of several calls, and the result."""
    best, out = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        out = function()
        best = min(best, time.perf_counter() - start)
    return best, out


@torch.no_grad()
def loop_scores(lvlm: Any, episode: Any, variants: np.ndarray) -> np.ndarray:
    """The obvious way: one image at a time through chat template, processor and a full forward."""
    tokenizer = lvlm.processor.tokenizer
    scores = []
    for variant in variants:
        content = [{"type": "image"}, {"type": "text", "text": episode.question}]
        prompt = lvlm.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        image = Image.fromarray(variant).convert("RGB")
        # A template that writes the begin-of-sequence token itself must not get a second one.
        once = {"add_special_tokens": False} if tokenizer.bos_token and prompt.startswith(tokenizer.bos_token) else {}
        inputs = lvlm.processor(text=[prompt + episode.response], images=[[image]], return_tensors="pt", **once)
        inputs.pop("num_crops", None)
        logits = lvlm.model(**inputs, use_cache=False).logits[0].float().log_softmax(-1)
        ids = tokenizer(episode.response, add_special_tokens=False)["input_ids"]
        rows = range(logits.shape[0] - len(ids) - 1, logits.shape[0] - 1)
        scores.append(float(sum(logits[row, token] for row, token in zip(rows, ids, strict=True))))
    return np.array(scores)


def occlusion_loop(lvlm: Any, episode: Any) -> np.ndarray:
    frame = episode.frame_array
    masks = region_masks("tiles:8x8", episode)
    scores = loop_scores(lvlm, episode, np.stack([frame, *(np.where(mask, 0, frame) for mask in masks)]))
    return (scores[0] - scores[1:]).reshape(8, 8)


def rise_loop(lvlm: Any, episode: Any, count: int) -> np.ndarray:
    frame = episode.frame_array
    masks = random_masks(np.random.default_rng(0), count, *frame.shape[:2], cells=8, keep=0.5)
    scores = loop_scores(lvlm, episode, np.round(frame * masks).astype(np.uint8))
    return np.tensordot(scores, masks, axes=1) / masks.sum(axis=0)


class _TypeIds(torch.nn.Module):
    """Captum appends the response to ``input_ids`` alone: the type ids must follow, or the model refuses."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model
        self.device = model.device
        self.config = model.config

    def forward(self, **inputs: Any) -> Any:
        length = inputs["input_ids"].shape[1]
        for name in ("token_type_ids", "mm_token_type_ids"):
            if name in inputs:
                inputs[name] = torch.nn.functional.pad(inputs[name], (0, length - inputs[name].shape[1]))
        return self.inner(**inputs, use_cache=False)


def captum_map(lvlm: Any, episode: Any, algorithm: str, **options: Any) -> np.ndarray:
    """Captum's LLM attribution of 8 x 8 image segments."""
    from captum.attr import FeatureAblation, ImageMaskInput, LLMAttribution, ShapleyValueSampling

    frame = episode.frame_array
    segments = tile_labels(frame.shape[0], frame.shape[1], 8, 8)

    def processor(image: Image.Image) -> Any:
        content = [{"type": "image"}, {"type": "text", "text": episode.question}]
        prompt = lvlm.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        bos = lvlm.processor.tokenizer.bos_token
        once = {"add_special_tokens": False} if bos and prompt.startswith(bos) else {}
        inputs = dict(lvlm.processor(text=[prompt], images=[[image]], return_tensors="pt", **once))
        inputs.pop("num_crops", None)
        return inputs

    wrapped = ImageMaskInput(
        image=episode.frame, mask=torch.from_numpy(segments), baseline=(0, 0, 0), processor_fn=processor
    )
    base = (FeatureAblation if algorithm == "ablation" else ShapleyValueSampling)(_TypeIds(lvlm.model))
    target = torch.tensor(episode.token_ids)
    result = LLMAttribution(base, lvlm.processor.tokenizer).attribute(
        wrapped, target=target, forward_in_tokens=False, **options
    )
    return result.seq_attr.detach().numpy().reshape(8, 8)


def declared(cost: str) -> dict[str, int]:
    """``"32 (F + B) + 2 F; ..."`` -> {"F": 34, "B": 32}."""
    counts = {"F": 0, "B": 0}
    for number, what in re.findall(r"(\d+) (F|B|\(F \+ B\))", cost.split(";")[0]):
        for kind in re.findall("[FB]", what):
            counts[kind] += int(number)
    return counts


def report(name: str, ours: float, loop: float, other: float, gaps: str) -> None:
    print(f"{name:24}{ours:9.2f}{loop:9.2f}{other:10.2f}{loop / ours:11.2f}{other / ours:13.2f}  {gaps}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lvlm", default="toy_qwen", help="key or folder; tiny_qwen and tiny_gemma are random")
    parser.add_argument("--mode", choices=sorted(RESPONSES), default="direct")
    parser.add_argument("--masks", type=int, default=64, help="masks of RISE in the comparison")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lvlm = load(args.lvlm)
    pixels = np.random.default_rng(0).integers(0, 256, (512, 448), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(pixels), question("cardiomegaly", args.mode), RESPONSES[args.mode])
    occlusion, rise = get_method("occlusion"), get_method("rise")
    few = RiseParameters(masks=args.masks)
    occlusion.function(lvlm, episode, OcclusionParameters(rows=1, cols=1))  # warm up

    print(f"{lvlm.key}, {args.mode} mode, {episode.length} tokens, one thread; best of {args.repeats}")
    print(f"{'':24}{'ours s':>9}{'loop s':>9}{'Captum s':>10}{'loop/ours':>11}{'Captum/ours':>13}  largest difference")
    ours, mine = timed(lambda: occlusion.function(lvlm, episode, OcclusionParameters()), args.repeats)
    loop, slow = timed(lambda: occlusion_loop(lvlm, episode), args.repeats)
    other, third = timed(lambda: captum_map(lvlm, episode, "ablation"), args.repeats)
    gaps = f"loop {np.abs(mine - slow).max():.1e}, Captum {np.abs(mine - third).max():.1e}"
    report("occlusion (65 images)", ours, loop, other, gaps)

    ours, mine = timed(lambda: rise.function(lvlm, episode, few), args.repeats)
    loop, slow = timed(lambda: rise_loop(lvlm, episode, args.masks), args.repeats)
    trials = max(1, args.masks // 64)
    other, _ = timed(lambda: captum_map(lvlm, episode, "shapley", n_samples=trials), args.repeats)
    centred = (mine - mine.mean()) - (slow - slow.mean())  # ours is relative to the median score
    report(f"rise ({args.masks} images)", ours, loop, other, f"loop {np.abs(centred).max():.1e}")

    print(f"\n{'method':24}{'declared':>28}{'counted F':>11}{'counted B':>11}")
    wrong = []
    for name in available_methods():
        method = get_method(name)
        expected = declared(method.cost)
        if not any(expected.values()):  # prompting methods declare generations
            continue
        options = {"tolerance": 1e9} if name == "integrated_gradients" else {}
        with count_passes(lvlm) as passes:
            method.run(lvlm, episode, method.make_parameters(options))
        counts = {"F": passes.forward, "B": passes.backward}
        cost = method.cost.split(";")[0]
        print(f"{name:24}{cost:>28}{counts['F']:11}{counts['B']:11}{'' if counts == expected else '   DIFFERS'}")
        if counts != expected:
            wrong.append(name)
    if wrong:
        raise SystemExit(f"declared and counted passes differ for {', '.join(wrong)}")


if __name__ == "__main__":
    main()
