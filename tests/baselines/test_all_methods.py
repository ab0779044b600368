"""What holds for every method: no trace left, both modes, random weights, the cost it declares."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.core.schema import question  # noqa: E402
from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

STATES = [
    *(
        "attention",
        "rollout",
        "rel_attention",
        "agcam",
        "attention_x_gradient",
        "legrad",
        "dex_ar",
        "grad_eclip",
        "lrp",
    ),
    *("grad_attention", "gradcam", "gradcam++", "integrated_gradients", "occlusion", "rise", "prompting"),
    *("token_patching", "atp", "relp", "gim", "logit_attribution", "ifr", "ifr_two_hop", "globenc", "alti_logit"),
    *("hirescam", "layercam", "xgradcam", "eigencam"),
    *("tam", "llava_cam", "saliency", "input_x_gradient", "iia", "glimpse", "dave"),
]
"""Methods that read states, attention or one gradient: precision and weights tell in their maps."""

LOCAL = [
    *STATES,
    *("smoothgrad", "expected_gradients", "xrai", "guided_ig", "blur_ig", "samp", "igos_plus", "igos_pp"),
    *("extremal_perturbation", "cem", "wcam", "tis", "craft", "msea", "ensemble_rank", "eagle", "smdl", "lima", "vps"),
    *("kernel_shap", "lime", "sobol", "hsic", "shap_kl", "scorecam"),
]
DEAR = ("extremal_perturbation", "cem", "wcam", "guided_ig", "blur_ig", "igos_plus", "igos_pp", "expected_gradients")
"""Their declared passes are counted by the heavy tests."""

FEWER = ("samp", "eagle", "smdl", "lima", "vps", "kernel_shap", "shap_kl", "prompting")
"""Not counted here: what they cost depends on the image, on how many superpixels it has or on sets drawn twice."""

QUICK = {
    "rise": {"masks": 8},
    "occlusion": {"rows": 3, "cols": 3},
    "integrated_gradients": {"steps": 4, "max_steps": 4},
    "smoothgrad": {"samples": 2},
    "expected_gradients": {"samples": 2, "pool": 1},
    "xrai": {"steps": 1, "scales": (250.0,)},
    "guided_ig": {"steps": 3},
    "blur_ig": {"steps": 2},
    "samp": {"steps": 2},
    "iia": {"outer": 2, "inner": 2},
    "igos_plus": {"points": 2, "iterations": 2},
    "igos_pp": {"points": 2, "iterations": 2},
    "extremal_perturbation": {"areas": (0.1,), "iterations": 2},
    "cem": {"donors": 1, "regions": "tiles:2x2"},
    "wcam": {"cells": 8, "points": 2},
    "tis": {"budget": 8},
    "craft": {"pool": 1, "concepts": 2, "points": 2},
    "msea": {"scales": (1.0, 1.25)},
    "ensemble_rank": {"methods": "grad_attention,relp"},
    **{name: {"regions": "tiles:2x2"} for name in ("eagle", "smdl", "lima", "vps")},
    **{name: {"budget": 12} for name in ("kernel_shap", "lime", "hsic")},
    "sobol": {"regions": "tiles:2x2", "points": 2},
    "scorecam": {"budget": 9},
    "shap_kl": {"budget": 16},
    "prompting": {"max_new_tokens": 8},
}
SEEDS = {"dex_ar": (0, 3)}
"""Weights for which the answer has a visual token at all, where a method asks for one."""
RESPONSES = {"direct": "Yes", "reason": "The left costophrenic angle is blunted. The answer is yes."}


@pytest.fixture(scope="module", params=["qwen", "gemma"])
def lvlm(request: pytest.FixtureRequest) -> Any:
    return tiny_qwen() if request.param == "qwen" else tiny_gemma(image_size=112, tokens=16)


def prepare(lvlm: Any, mode: str = "direct", size: tuple[int, int] = (200, 260), seed: int = 0) -> Any:
    pixels = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
    return lvlm.prepare(Image.fromarray(pixels), question("cardiomegaly", mode), RESPONSES[mode])


def run(lvlm: Any, episode: Any, name: str, options: dict[str, Any] | None = None) -> Any:
    method = get_method(name)
    return method.run(lvlm, episode, method.make_parameters(QUICK.get(name) if options is None else options))


def hook_count(model: Any) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


@pytest.mark.parametrize("mode", ["direct", "reason"])
@pytest.mark.parametrize("name", LOCAL)
def test_nothing_stays_behind(lvlm: Any, name: str, mode: str) -> None:
    """No hook, no gradient, no changed weight or buffer, and a plain forward gives the same bits as before."""
    episode = prepare(lvlm, mode)
    inputs = lvlm.model_inputs(episode)
    with torch.no_grad():
        before = lvlm.model(**inputs, use_cache=False).logits
    kernels = [m.config._attn_implementation for m in lvlm.model.modules() if hasattr(m, "config")]
    given = {k: v.clone() for k, v in episode.inputs.items()}
    attribution = run(lvlm, episode, name)
    assert hook_count(lvlm.model) == 0
    assert not any("forward" in vars(m) for m in lvlm.model.modules())
    assert all(p.grad is None for p in lvlm.model.parameters())
    assert not lvlm.model.training
    assert kernels == [m.config._attn_implementation for m in lvlm.model.modules() if hasattr(m, "config")]
    assert all(torch.equal(v, episode.inputs[k]) for k, v in given.items())
    with torch.no_grad():
        assert torch.equal(before, lvlm.model(**inputs, use_cache=False).logits)

    width, height = episode.image.size
    boxes = np.asarray(attribution.boxes, float).reshape(-1, 4)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= [width, height]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    if attribution.heatmap is not None:
        assert np.isfinite(attribution.heatmap).all()


@pytest.mark.parametrize("name", LOCAL)
def test_a_method_gives_the_same_twice(lvlm: Any, name: str) -> None:
    episode = prepare(lvlm)
    first, second = run(lvlm, episode, name), run(lvlm, episode, name)
    assert first.boxes == second.boxes
    if first.heatmap is not None:
        np.testing.assert_array_equal(first.heatmap, second.heatmap)


@contextmanager
def passes(lvlm: Any) -> Iterator[dict[str, int]]:
    """Count images that go forward through the model, and backward from its logits."""
    counts = {"F": 0, "B": 0}

    def forward(module: Any, args: Any, logits: Any) -> None:
        images = logits.shape[0]
        counts["F"] += images
        if logits.requires_grad:
            logits.register_hook(lambda gradient: counts.__setitem__("B", counts["B"] + images))

    handle = lvlm.model.lm_head.register_forward_hook(forward)
    try:
        yield counts
    finally:
        handle.remove()


def declared(cost: str) -> dict[str, int]:
    """``"32 (F + B) + 2 F; ..."`` -> {"F": 34, "B": 32}; D, the decoder alone, is a forward too."""
    counts = {"F": 0, "B": 0}
    for number, what in re.findall(r"(\d+) (F|B|D|\([FD] \+ B\))", cost.split(";")[0]):
        for kind in re.findall("[FBD]", what):
            counts[kind.replace("D", "F")] += int(number)
    return counts


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.heavy) if n in DEAR else n for n in LOCAL if n not in FEWER],
)
def test_the_declared_cost_is_the_real_one(name: str) -> None:
    lvlm = tiny_qwen()
    episode = prepare(lvlm)
    with passes(lvlm) as counts:
        run(lvlm, episode, name, {"tolerance": 1e9} if name == "integrated_gradients" else {})
    assert counts == declared(get_method(name).cost)


@pytest.mark.parametrize("name", [n for n in STATES if n != "prompting"])
def test_with_other_weights_the_map_is_another(name: str) -> None:
    """Sanity (Adebayo et al. 2018): what survives random weights explains the image, not the model."""
    from scipy.stats import spearmanr

    maps = []
    for seed in SEEDS.get(name, (0, 1)):
        lvlm = tiny_qwen(seed)
        episode = prepare(lvlm, size=(224, 224))
        maps.append(np.asarray(run(lvlm, episode, name, QUICK.get(name, {})).heatmap, float).ravel())
    # Rollout is known to depend on the causal mask (early tokens collect attention) more than on the weights.
    assert abs(spearmanr(*maps).statistic) < (0.95 if name == "rollout" else 0.7)


@pytest.mark.heavy
@pytest.mark.parametrize("family", ["qwen", "gemma"])
@pytest.mark.parametrize("name", STATES)
def test_at_the_published_geometry(published: dict[str, Any], family: str, name: str) -> None:
    """Gemma3 at 896 pixels and 256 tokens; Qwen2.5-VL on a frame that is not square."""
    lvlm, episode, grid = published[family]
    assert (episode.grid.rows, episode.grid.cols) == grid
    attribution = run(lvlm, episode, name)
    if attribution.heatmap is not None:
        assert attribution.heatmap.shape in {grid, (3, 3), (episode.frame.height, episode.frame.width)}
        assert np.isfinite(attribution.heatmap).all()
        # DEX-AR may find that no token is visual: a constant map that says so.
        assert attribution.heatmap.std() > 0 or (name == "dex_ar" and attribution.fallback)


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    qwen, gemma = tiny_qwen(), tiny_gemma(image_size=896, tokens=256)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (640, 512), dtype=np.uint8))
    ask = (question("cardiomegaly", "direct"), "Yes")
    return {
        "qwen": (qwen, qwen.prepare(image, *ask, side=None), (23, 18)),
        "gemma": (gemma, gemma.prepare(image, *ask), (16, 16)),
    }


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_bfloat16_weights_will_do(half: dict[str, Any], family: str, name: str) -> None:
    lvlm, full = half[family]
    attribution = run(lvlm, prepare(lvlm, size=(112, 112)), name)
    if attribution.heatmap is None:
        return
    exact = run(full, prepare(full, size=(112, 112)), name)
    assert np.isfinite(attribution.heatmap).all()
    assert (attribution.fallback, attribution.degenerate) == (exact.fallback, exact.degenerate)
    if exact.fallback or exact.degenerate or name in ("occlusion", "rise", "token_patching"):
        return  # no map, or one of scores that differ by less than bfloat16 resolves: the model is random
    # Sizes of normal variables that correlate at 0.8 correlate at 0.6.
    least = 0.6 if name == "saliency" else 0.8
    assert np.corrcoef(np.ravel(attribution.heatmap), np.ravel(exact.heatmap))[0, 1] > least


@pytest.fixture(scope="module")
def half() -> dict[str, Any]:
    pairs = {
        "qwen": (tiny_qwen(), tiny_qwen()),
        "gemma": (tiny_gemma(image_size=112, tokens=16), tiny_gemma(image_size=112, tokens=16)),
    }
    for lvlm, _ in pairs.values():
        lvlm.model.to(torch.bfloat16)
    return pairs
