"""What Google's saliency says of performance information curves: makes ``saliency.json``, in an environment of its own.

    python -m venv env && env/bin/pip install saliency==0.2.1
    env/bin/python tests/scoring/protocols/goldens/make_saliency.py

Its measure of information, the size of a lossless WebP file, is replaced by ours; all else is the package's.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from saliency.metrics import pic

if not hasattr(np, "trapz"):  # the package is older than numpy 2
    vars(np)["trapz"] = np.trapezoid

SIDE = 24
SHARES = (0.01, 0.05, 0.1, 0.21, 0.34, 0.5, 0.75)


def packed(image: np.ndarray) -> int:
    return len(zlib.compress(np.diff(image, axis=1, prepend=np.uint8(0)).tobytes(), 9))


def main() -> None:
    pic.estimate_image_entropy = packed
    rng = np.random.default_rng(11)
    y, x = np.mgrid[:SIDE, :SIDE]
    out: list[dict[str, Any]] = []
    for k in range(5):
        image = np.clip(60 + 40 * np.sin(x / 5) + rng.normal(0, 6, (SIDE, SIDE)), 0, 190).astype(np.uint8)
        image[6:14, 12:20] = 250
        seeds = rng.random((SIDE, SIDE)) < 0.02
        seeds[4:16, 10:22] = False
        place = (10, 16) if k % 2 else tuple(int(v) for v in rng.integers(3, 21, 2))
        heat = np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 60) + 0.05 * rng.random((SIDE, SIDE))
        if k == 4:
            heat = np.kron(rng.random((8, 8)), np.ones((3, 3)))  # ties
        heat = heat.round(4)
        areas = []
        for game in (
            lambda b: [0.05 + 0.9 * (i > 230).sum() / 64 for i in b],
            lambda b: [float((i > 230).sum() > 32) for i in b],
        ):
            areas.append(pic.compute_pic_metric(image, heat, seeds, game, SHARES).auc)
        pictures = [pic.create_blurred_image(image, seeds | (heat >= np.quantile(heat, 1 - s))) for s in SHARES]
        out.append(
            {"image": image.tolist(), "seeds": np.argwhere(seeds).tolist(), "heat": heat.tolist()}
            | {
                "areas": areas,
                "information": [packed(p) for p in pictures],
                "sums": [int(p.astype(int).sum()) for p in pictures],
            }
        )
    data = {"made_with": {"saliency": "0.2.1", "zlib": zlib.ZLIB_RUNTIME_VERSION}, "shares": SHARES, "cases": out}
    (Path(__file__).parent / "saliency.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
