"""A toy behind a real HTTP server against the same toy here: are the numbers the same, and what does the way cost?

    python benchmarks/bench_server.py [--lvlm toy_qwen] [--frames 64] [--requests 16] [--faults]

Run from the repository: the server is that of the tests, one full forward a request, in this process.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from PIL import Image

from medground_bench.attribution.method import get_method
from medground_bench.core.schema import question
from medground_bench.lvlm import load_lvlm
from medground_bench.lvlm.server.client import Limits
from medground_bench.lvlm.server.model import ServerLvlm
from tests.lvlm.toy_server import serving

FAULTS = ("slow", "429", "500", "dropped", "wrong count", "truncated", "cut short")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lvlm", default="toy_qwen")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--faults", action="store_true", help="Every third request goes wrong in one of seven ways.")
    args = parser.parse_args()
    local = load_lvlm(args.lvlm, device="cpu")
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (300, 260), dtype=np.uint8))
    asked = question("lung opacity", "direct")
    with serving(local, args.lvlm) as server:
        remote = ServerLvlm.connect(server.address, limits=Limits(args.requests, 120, 6, 0.01), local=local)
        here, there = local.prepare(image, asked, "Yes"), remote.prepare(image, asked, "Yes")
        frames = rng.integers(0, 256, (args.frames, *here.frame_array.shape[:2]), dtype=np.uint8)
        local.log_probs(here, frames[:16])
        start = time.perf_counter()
        a = local.log_probs(here, frames)
        alone = time.perf_counter() - start
        if args.faults:
            server.fault = lambda n, body: FAULTS[n // 3 % len(FAULTS)] if n % 3 == 0 else None
        server.seen.clear()
        start = time.perf_counter()
        b = remote.log_probs(there, frames)
        served = time.perf_counter() - start
        print(f"{args.lvlm}, {args.frames} frames, at most {server.most} requests in flight, {dict(server.seen)}")
        print(f"log-probabilities at most {np.abs(a - b).max():.2e} apart")
        print(
            f"frames a second: {args.frames / alone:.1f} here in batches, {args.frames / served:.1f} through the server"
        )
        print(f"ratio {alone / served:.2f}")
        options: dict[str, dict[str, Any]] = {"rise": {"masks": 32}, "medfocus_multi_atlas": {}}
        for name, given in options.items():
            method = get_method(name)
            models: list[tuple[Any, Any]] = [(local, here), (remote, there)]
            one, two = (method.run(m, e, method.make_parameters(given)) for m, e in models)
            if one.heatmap is not None and two.heatmap is not None:
                apart = float(np.abs(one.heatmap - two.heatmap).max())
            else:
                apart = max(abs(two.concept_scores[c] - value) for c, value in one.concept_scores.items())
            print(f"{name}: at most {apart:.2e} apart, boxes {'equal' if one.boxes == two.boxes else 'differ'}")


if __name__ == "__main__":
    main()
