"""Claims: scoring variants of an image costs less here than in the obvious loop, and white-box memory stays flat.

1. Preparation of masked variants is at least 2x cheaper than one chat template and processor call per image, on the
   geometries of Qwen2.5-VL (224-pixel frame) and Gemma3 (896 pixels); the total is at least 1.5x faster on
   ``toy_qwen`` and not slower on Gemma3's geometry, where the vision tower dominates on a CPU.
2. Reading one attention layer's weights and gradients takes memory for one layer's attention; asking the model for
   its attentions takes memory for all of them.

Both ways run in the same process on the same images with one thread, repetitions interleaved, best of each, in CPU
time (so that a busy machine does not decide); their scores must agree to 1e-4, else the script fails. Memory is each
child process's peak above its state before the measured call.

Run: ``python benchmarks/bench_lvlm.py`` (about a minute of CPU time).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RESPONSES = {
    "direct": "Yes",
    "reason": "There is an opacity at the base of the left lung that hides the costophrenic angle. The answer is yes.",
}


def load(name: str) -> Any:
    """A toy LVLM, or a random one of the real class and resolution."""
    import torch

    from medground_bench.lvlm import load_lvlm, testing

    torch.set_num_threads(1)
    if name == "toy_qwen":
        try:
            return load_lvlm("toy_qwen")
        except Exception as error:
            print(f"toy_qwen cannot be loaded, a random Qwen2.5-VL takes its place: {error}", file=sys.stderr)
            return testing.tiny_qwen()
    if name == "gemma_896":
        return testing.tiny_gemma(image_size=896)
    return load_lvlm(name)


def variants(episode: Any, count: int) -> np.ndarray:
    """The frame with one black rectangle each, as a perturbation method makes them."""
    rng = np.random.default_rng(0)
    stack = np.stack([episode.frame_array] * count)
    for frame in stack:
        y, x = rng.integers(0, frame.shape[0] - 60, 2)
        frame[y : y + 60, x : x + 60] = 0
    return stack


def loop_inputs(lvlm: Any, question: str, response: str, frame: np.ndarray) -> tuple[Any, int]:
    """What a first version does per image: chat template, processor, response's tokens after the prompt."""
    import torch
    from PIL import Image

    image = Image.fromarray(frame).convert("RGB")
    chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]
    inputs = lvlm.processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ids = lvlm.processor.tokenizer(response, add_special_tokens=False, return_tensors="pt")["input_ids"]
    start = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in inputs:
            inputs[name] = torch.cat([inputs[name], torch.zeros_like(ids, dtype=inputs[name].dtype)], dim=1)
    return inputs, start


def loop_scores(lvlm: Any, inputs: Any, start: int) -> list[float]:
    """Full forward of one image, all logits, the response's log-probabilities read off."""
    import torch

    with torch.no_grad():
        logp = lvlm.model(**inputs).logits[0].float().log_softmax(-1)
    ids = inputs["input_ids"][0, start:].tolist()
    return [float(logp[start - 1 + t, i]) for t, i in enumerate(ids)]


def compare(name: str, mode: str, count: int, repeats: int) -> dict[str, float]:
    """Best times per image in ms of both ways, preparation and total."""
    from PIL import Image

    from medground_bench.core.schema import question as ask

    lvlm = load(name)
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (300, 260), dtype=np.uint8))
    question, response = ask("pleural effusion", mode), RESPONSES[mode]
    episode = lvlm.prepare(image, question, response)
    stack = variants(episode, count)
    best = dict.fromkeys(("loop_prep", "loop_total", "ours_prep", "ours_total"), float("inf"))
    for _ in range(repeats):
        prep = 0.0
        begin = time.process_time()
        expected = []
        for frame in stack:
            inner = time.process_time()
            inputs, start = loop_inputs(lvlm, question, response, frame)
            prep += time.process_time() - inner
            expected.append(loop_scores(lvlm, inputs, start))
        best["loop_total"] = min(best["loop_total"], time.process_time() - begin)
        best["loop_prep"] = min(best["loop_prep"], prep)

        begin = time.process_time()
        lvlm.prepare(image, question, response)  # the text is ours to encode, too: once
        scores = lvlm.log_probs(episode, stack)
        best["ours_total"] = min(best["ours_total"], time.process_time() - begin)
        begin = time.process_time()
        lvlm.prepare(image, question, response)
        lvlm.pixel_inputs(episode, stack)
        best["ours_prep"] = min(best["ours_prep"], time.process_time() - begin)
        worst = float(np.abs(scores - np.array(expected)).max())
        if worst > 1e-4:
            raise SystemExit(f"{name}: the two ways disagree by {worst}")
    return {key: value / count * 1e3 for key, value in best.items()}


# -- memory -----------------------------------------------------------------------------------------------------------


def peak_above(call: Callable[[], Any]) -> float:
    """MB that ``call`` adds at its peak to this process (Linux; elsewhere the process's whole peak)."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def field(name: str) -> float:
        line = next(text for text in status.read_text().splitlines() if text.startswith(name))
        return int(line.split()[1]) / 1024

    if not reset.exists():
        call()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    reset.write_text("5")
    before = field("VmRSS")
    call()
    return field("VmHWM") - before


def _memory_child(task: tuple[str, str, int]) -> float:
    what, name, amount = task
    import torch
    from PIL import Image

    from medground_bench.lvlm import testing

    torch.set_num_threads(1)
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (300, 260), dtype=np.uint8))
    if what == "score":
        lvlm = load(name)
        episode = lvlm.prepare(image, "Is there an effusion?", "Yes")
        stack = variants(episode, amount)
        lvlm.log_probs(episode, stack[:1])
        return peak_above(lambda: lvlm.log_probs(episode, stack))
    # All layers' attention (x gradient) of a decoder with `amount` layers over 900 tokens.
    kept, gradients = what.startswith("kept"), what.endswith("gradients")
    lvlm = testing.tiny_qwen(layers=amount)
    lvlm.model.requires_grad_(False)
    if kept:
        lvlm.model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
    episode = lvlm.prepare(image.resize((780, 780)), "Is there an effusion?", RESPONSES["reason"], side=None)
    lvlm.log_probs(episode, [episode.frame])
    return peak_above(lambda: (all_kept if kept else one_at_a_time)(lvlm, episode, gradients))


def one_at_a_time(lvlm: Any, episode: Any, gradients: bool) -> None:
    """Each layer's attention (x gradient) from a trace."""
    from medground_bench.lvlm.whitebox import trace_attention

    trace = trace_attention(lvlm, episode, gradients=gradients)
    for layer in trace.layers:
        weights = trace.weights(layer)
        (weights * trace.gradient(layer) if gradients else weights).mean(0)


def all_kept(lvlm: Any, episode: Any, gradients: bool) -> None:
    """The same from the model's own list of attentions, from the same embeddings on."""
    import torch

    from medground_bench.lvlm.whitebox import merged_embeddings

    with torch.no_grad():
        embeddings = merged_embeddings(lvlm, episode)
    inputs = lvlm.adapter.batch(lvlm.model, episode.inputs, {}, 1)
    inputs.pop("input_ids")
    embeddings.requires_grad_(gradients)
    with torch.set_grad_enabled(gradients):
        out = lvlm.model(**inputs, inputs_embeds=embeddings, output_attentions=True, use_cache=False)
        found = [None] * len(out.attentions)
        if gradients:
            logp = out.logits[0].log_softmax(-1)
            score = sum(logp[r, t] for r, t in zip(episode.rows, episode.token_ids, strict=True))
            found = list(torch.autograd.grad(score, out.attentions))
    for attention, gradient in zip(out.attentions, found, strict=True):
        (attention if gradient is None else attention * gradient)[0].mean(0)


def memory(task: tuple[str, str, int]) -> float:
    """Peak of a task in a process of its own, MB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_memory_child, (task,)))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48, help="variants per run on the 224-pixel frame")
    parser.add_argument("--gemma-images", type=int, default=16, help="variants per run at 896 pixels")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", choices=("speed", "memory"))
    options = parser.parse_args()
    if options.only != "memory":
        speed(options)
    if options.only != "speed":
        peaks(options)


def speed(options: argparse.Namespace) -> None:
    """Print the table of times."""
    header = (
        f"{'LVLM':12} {'mode':7} {'loop prep':>10} {'ours':>8} {'ratio':>7} {'loop total':>11} {'ours':>8} {'ratio':>7}"
    )
    print("ms of CPU time per masked variant, one thread, best of", options.repeats)
    print(header)
    for name, count in (("toy_qwen", options.images), ("gemma_896", options.gemma_images)):
        for mode in RESPONSES:
            t = compare(name, mode, count, options.repeats)
            print(
                f"{name:12} {mode:7} {t['loop_prep']:10.2f} {t['ours_prep']:8.2f} "
                f"{t['loop_prep'] / t['ours_prep']:6.1f}x {t['loop_total']:11.2f} {t['ours_total']:8.2f} "
                f"{t['loop_total'] / t['ours_total']:6.2f}x"
            )


def peaks(options: argparse.Namespace) -> None:
    """Print the tables of memory."""
    print("\npeak memory of scoring, MB above the loaded model")
    for name, count in (("toy_qwen", options.images), ("gemma_896", options.gemma_images)):
        print(f"{name:12} {count:4d} variants {memory(('score', name, count)):8.0f}")
    print("\npeak memory of all layers' attention, 4 heads, 900 tokens, MB with 4 and 16 layers, and per further layer")
    for what in ("weights", "gradients"):
        for how in ("kept", "one at a time"):
            few, many = (memory((f"{how} {what}", "", layers)) for layers in (4, 16))
            print(f"{what:10} {how:14} {few:8.0f} {many:8.0f} {(many - few) / 12:8.1f}")


if __name__ == "__main__":
    main()
