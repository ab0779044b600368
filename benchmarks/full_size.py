"""The LVLMs of the paper at full size without their weights: memory on meta, time and precision on a device.

    python benchmarks/full_size.py                                        # memory of all six, no memory used
    python benchmarks/full_size.py --lvlm qwen2_5_vl_3b --device cuda --dtype bfloat16
    python benchmarks/full_size.py --lvlm qwen2_5_vl_3b --device cpu --layers 1

On ``meta`` the real classes run forward and back with tensors that have shapes only, and the bytes that are alive at
the same time are counted. On a device the published configuration gets random weights (so the times are those of the
real model, the answers are not): per method passes, seconds a record, peak memory, hours for the benchmark's 3,940
records; the batch; tokens a second; how far bfloat16 is from float32. ``--layers`` cuts both stacks to so
many layers.
"""

from __future__ import annotations

import argparse
import resource
import time
import weakref
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from medground_bench.attribution.method import get_method
from medground_bench.attribution.plan import count_passes
from medground_bench.core.schema import question
from medground_bench.lvlm import Lvlm, testing
from medground_bench.lvlm.batching import batch_size, bytes_per_image, default_budget
from medground_bench.lvlm.published import PUBLISHED, Published

RECORDS = 3940
SIDE = 224
METHODS = ["attention", "rollout", "grad_attention", "lrp", "gradcam", "occlusion", "rise", "integrated_gradients"]


class Alive(TorchDispatchMode):
    """Counts the bytes of storages that live at the same time, those made within it (views of weights are none)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)

        def gone() -> None:
            self._known.discard(key)
            self.now -= size

        weakref.finalize(storage, gone)


def image_tokens(facts: Published) -> tuple[int, int]:
    """Image tokens in the decoder and patches in the vision tower of a 224-pixel frame."""
    return (64, 256) if facts.family == "qwen2_5_vl" else (256, 4096)


def on_meta(key: str) -> dict[str, float]:
    """Bytes: weights, and the activations of one scored image and of one gradient."""
    facts = PUBLISHED[key]
    model = facts.build(dtype=torch.bfloat16)
    tokens, patches = image_tokens(facts)
    length, rows = tokens + 60, 2  # a question of the benchmark, its template and a short answer
    width = model.config.get_text_config().hidden_size
    found: dict[str, float] = {"parameters": facts.count(model), "weights": 2 * facts.count(model)}

    def decode(embeddings: torch.Tensor) -> torch.Tensor:
        positions = torch.zeros(1, length, dtype=torch.long, device="meta")
        if facts.family == "qwen2_5_vl":
            positions = positions.expand(3, 1, length)
        masks = {"full_attention": None, "sliding_attention": None}  # causal by the kernel's own means
        out = model.model.language_model(
            inputs_embeds=embeddings, position_ids=positions, attention_mask=masks, use_cache=False
        )
        return model.lm_head(out.last_hidden_state[:, -rows:]).float().log_softmax(-1)

    def embeddings() -> torch.Tensor:
        return torch.empty(1, length, width, dtype=torch.bfloat16, device="meta")

    with torch.no_grad(), Alive(model) as alive:
        decode(embeddings())
    found["decoder forward"] = alive.peak
    with Alive(model) as alive:
        leaf = embeddings().requires_grad_(True)
        decode(leaf).sum().backward()
    found["decoder gradient"] = alive.peak
    found["estimate"] = bytes_per_image(model.config, length, rows, patches, 2)
    return found


def meta_table(keys: list[str]) -> None:
    print("bfloat16, one image of a 224-pixel frame, a short answer; GB of 1e9 bytes, measured on the meta device\n")
    print(
        f"{'LVLM':16} {'parameters':>15} {'weights':>8} {'forward':>8} {'gradient':>9} {'planned':>8}  fits 24 / 80 GB"
    )
    for key in keys:
        f = on_meta(key)
        assert f["parameters"] == PUBLISHED[key].parameters, key
        least = f["weights"] + f["decoder gradient"]
        fits = " / ".join("yes" if least < 0.92e9 * size else "no" for size in (24, 80))
        gb = [f[name] / 1e9 for name in ("weights", "decoder forward", "decoder gradient", "estimate")]
        print(f"{key:16} {f['parameters']:15,} {gb[0]:8.2f} {gb[1]:8.3f} {gb[2]:9.3f} {gb[3]:8.3f}  {fits}")
    print("\nforward, gradient: most bytes alive at once in decoder and head beside the weights; planned: what batches")
    print("are made by (lvlm.batching), vision tower included. A batch takes half of the memory that is free.")


def measured(key: str, device: str, dtype: torch.dtype, layers: int | None, names: list[str], seed: int) -> None:
    facts = PUBLISHED[key]
    start = time.perf_counter()
    model = facts.build(device, dtype, layers=layers, seed=seed)
    if facts.family == "qwen2_5_vl":
        tiny, processor = testing.tiny_qwen_parts()
    else:
        tiny, processor = testing.tiny_gemma_parts(image_size=896, tokens=256)
    for name in (
        "image_token_id",
        "video_token_id",
        "vision_start_token_id",
        "vision_end_token_id",
        "image_token_index",
    ):
        if hasattr(tiny.config, name):
            setattr(model.config, name, getattr(tiny.config, name))
    lvlm = Lvlm.from_parts(model, processor, key=key)
    weights = sum(p.numel() * p.element_size() for p in {id(p): p for p in model.parameters()}.values())
    print(
        f"{key} on {device}, {dtype}, {layers or 'all'} layers: {weights / 1e9:.2f} GB, "
        f"made in {time.perf_counter() - start:.0f} s"
    )
    pixels = np.random.default_rng(seed).integers(0, 256, (1024, 1024), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(pixels), question("pleural effusion", "direct"), "Yes")
    patches = lvlm.adapter.vision_tokens(lvlm.config, lvlm.image_inputs(episode), 1)
    one = bytes_per_image(lvlm.config, episode.length, len(episode.rows), patches, dtype.itemsize)
    print(f"{episode.length} tokens; batch {batch_size(default_budget(lvlm.device), one)}\n")
    print(f"{'method':22} {'F':>5} {'B':>5} {'s/record':>9} {'peak GB':>8} {'hours, 3,940':>13}")
    for name in names:
        method = get_method(name)
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        with count_passes(lvlm) as counts:
            method.run(lvlm, episode)
        seconds = time.perf_counter() - start
        on_gpu = device.startswith("cuda")
        peak = (
            torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )
        f, b = counts["forwards"], counts["backwards"]
        print(f"{name:22} {f:5} {b:5} {seconds:9.2f} {peak / 1e9:8.2f} {seconds * RECORDS / 3600:13.2f}")
    start = time.perf_counter()
    model.generation_config.eos_token_id = None
    lvlm.generate([Image.fromarray(pixels)], [episode.question], max_new_tokens=16)
    print(f"\ngeneration: {16 / (time.perf_counter() - start):.1f} tokens a second, one answer at a time")
    frames = [episode.frame, Image.fromarray(255 - np.asarray(episode.frame))]
    half = lvlm.log_probs(episode, frames)
    model.float()
    full = lvlm.log_probs(episode, frames)
    print(f"{dtype} against float32: log-probabilities at most {np.abs(half - full).max():.4f} nats apart")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lvlm", nargs="*", default=sorted(PUBLISHED), choices=sorted(PUBLISHED))
    parser.add_argument("--device", default="meta")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--layers", type=int, default=None)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.device == "meta":
        meta_table(args.lvlm)
        return
    for key in args.lvlm:
        measured(key, args.device, getattr(torch, args.dtype), args.layers, args.methods.split(","), args.seed)


if __name__ == "__main__":
    main()
