"""What SALib, shap and saliency say where their definitions are ours: makes ``packages.json``.

In an environment of its own:

    python -m venv env && env/bin/pip install SALib==1.6.0 shap==0.51.0 saliency==0.2.1 "numpy<2.4" scikit-image
    env/bin/python tests/baselines/goldens/make_packages.py

Jansen's total indices by SALib, whose variance is that of A and B together: the factor between the two is stored.
Shapley values by shap's exact and kernel explainers. Guided IG and XRAI's covering by saliency, on a function whose
gradient is written down here.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import saliency.core as saliency
import shap
from SALib.analyze import sobol
from scipy.stats.qmc import Sobol

COUNT, POINTS, SIDE = 5, 64, 16


def curved(x: np.ndarray) -> np.ndarray:
    """A game of five inputs in [0, 1] with interactions, (N, 5) -> (N,)."""
    return 3 * x[:, 0] + 2 * x[:, 1] * x[:, 2] + np.sin(3 * x[:, 3]) - x[:, 0] * x[:, 4] ** 2


def total_indices() -> dict[str, Any]:
    halves = Sobol(2 * COUNT, scramble=False).random(POINTS)
    first, second = halves[:, :COUNT], halves[:, COUNT:]
    rows = []
    for a, b in zip(first, second, strict=True):  # SALib's order: A, A with one of B ..., B
        rows += [a, *(np.where(np.arange(COUNT) == i, b, a) for i in range(COUNT)), b]
    values = curved(np.array(rows))
    problem = {"num_vars": COUNT, "names": [str(i) for i in range(COUNT)], "bounds": [[0, 1]] * COUNT}
    found = sobol.analyze(problem, values, calc_second_order=False, num_resamples=2)
    pooled = np.r_[curved(first), curved(second)].var()
    return {"ST": found["ST"].tolist(), "factor": float(pooled / curved(first).var(ddof=1))}


def shapley() -> dict[str, Any]:
    background, one = np.zeros((1, COUNT)), np.ones((1, COUNT))
    exact = shap.explainers.Exact(curved, shap.maskers.Independent(background))(one)
    kernel = shap.KernelExplainer(curved, background).shap_values(one, nsamples=10_000, silent=True)
    return {"exact": exact.values[0].tolist(), "kernel": np.asarray(kernel).ravel().tolist()}


def gradients() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    weights, image = np.round(rng.normal(size=(SIDE, SIDE)), 2), np.round(rng.random((SIDE, SIDE)), 2)

    def call(x: Any, call_model_args: Any = None, expected_keys: Any = None) -> dict[str, Any]:
        # s(x) = sum tanh(w x): the gradient is w (1 - tanh^2 (w x))
        return {saliency.INPUT_OUTPUT_GRADIENTS: weights * (1 - np.tanh(weights * np.asarray(x)) ** 2)}

    guided = {
        f"{fraction} {band}": saliency.GuidedIG()
        .GetMask(image, call, None, x_baseline=np.zeros_like(image), x_steps=20, fraction=fraction, max_dist=band)
        .tolist()
        for fraction, band in ((0.25, 0.02), (0.5, 0.2), (0.25, 1.0))
    }
    blocks = np.kron(np.arange(16).reshape(4, 4), np.ones((4, 4), int))
    stripes = np.repeat(np.arange(4), 4)[:, None] * np.ones((1, SIDE), int)
    segments = [blocks == k for k in range(16)] + [stripes == k for k in range(4)]
    heat = np.round(rng.normal(size=(SIDE, SIDE)), 3)
    covered = {}
    for smallest in (1, 13):
        parameters = saliency.XRAIParameters(algorithm="full")
        parameters.experimental_params["min_pixel_diff"] = smallest
        found = saliency.XRAI().GetMaskWithDetails(
            np.repeat(image[..., None], 3, -1),
            call,
            None,
            base_attribution=np.repeat(heat[..., None], 3, -1),
            segments=[s.copy() for s in segments],
            extra_parameters=parameters,
        )
        covered[str(smallest)] = np.asarray(found.attribution_mask).tolist()
    return {
        "weights": weights.tolist(),
        "image": image.tolist(),
        "guided": guided,
        "heat": heat.tolist(),
        "covered": covered,
    }


def main() -> None:
    versions = {name: version(name) for name in ("SALib", "shap", "saliency")}
    out = {"versions": versions, "sobol": total_indices(), "shapley": shapley(), **gradients()}
    (Path(__file__).parent / "packages.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
