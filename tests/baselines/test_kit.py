"""Every method through every game of the kit that applies to it. A new method joins with one line of a table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medground_bench.attribution.method import available_methods, get_method
from medground_bench.core.errors import MethodError
from medground_bench.sources.phantom import sample_phantom
from tests.baselines.kit import (
    ADDITIVE,
    AND,
    OR,
    WEIGHTS,
    Entry,
    Player,
    SoftPlayer,
    dead,
    left_only,
    linear_decoder,
    of_image,
    quadrants,
    soft_additive,
    soft_and,
    soft_dead,
    soft_left_only,
)
from tests.baselines.kit import white_episode as white

if TYPE_CHECKING:
    from pathlib import Path

HALVES = (0.5, 0.5, 0, 0)

BLACK_BOX = {
    "occlusion": Entry({"rows": 2, "cols": 2}, WEIGHTS, (1, 1, 0, 0), (0, 0, 0, 0), exact=True),
    "rise": Entry({"masks": 2048, "cells": 2}, finds_redundant=True),
    "eagle": Entry({"regions": "tiles:2x2"}, exact=True, finds_redundant=True),
    "lima": Entry({"regions": "tiles:2x2"}, exact=True, finds_redundant=True),
    "vps": Entry({"regions": "tiles:2x2"}, exact=True, finds_redundant=True),
    "kernel_shap": Entry({"regions": "tiles:2x2"}, WEIGHTS, HALVES, HALVES, finds_redundant=True),
    "shapley_anatomy": Entry({"regions": "tiles:2x2"}, WEIGHTS, HALVES, HALVES, finds_redundant=True),
    "lime": Entry({"regions": "tiles:2x2", "fill": "black"}, finds_redundant=True),
    "sobol": Entry({"regions": "tiles:2x2", "points": 64}, exact=True, finds_redundant=True),
    "hsic": Entry({"regions": "tiles:2x2"}, finds_redundant=True),
    "cem": Entry({"regions": "tiles:2x2", "references": "black"}, WEIGHTS, (1, 1, 0, 0), (0, 0, 0, 0), exact=True),
    "wcam": Entry({"points": 16}, finds_redundant=True),
    "medfocus": Entry({"refiner": "none"}, anatomy=True),
    "medfocus_multi_atlas": Entry({}, anatomy=True),
    "medfocus_minimal": Entry({}, anatomy=True),
}

WHITE_BOX = (
    "agcam",
    "attention_x_gradient",
    "dex_ar",
    "grad_attention",
    "grad_eclip",
    "gradcam",
    "gradcam++",
    "hirescam",
    "layercam",
    "xgradcam",
    "scorecam",
    "integrated_gradients",
    "legrad",
    "lrp",
    "token_patching",
    "atp",
    "relp",
    "gim",
    "logit_attribution",
    "alti_logit",
    "llava_cam",
    "iia",
    "tis",
    "craft",
    "glimpse",
    "dave",
)
"""They read gradients of the score, or of a layer's logits: with a dead head there is nothing to read."""

REFUSE = ("gradcam", "gradcam++", "hirescam", "layercam", "xgradcam")
"""They say so where there is no gradient."""

GRADIENT = {
    "saliency": Entry({}, WEIGHTS, HALVES, exact=True),
    "input_x_gradient": Entry({}, WEIGHTS, HALVES, exact=True),
    "smoothgrad": Entry({}, WEIGHTS, HALVES, exact=True),
    "expected_gradients": Entry({"references": "black"}, WEIGHTS, HALVES, exact=True),
    "guided_ig": Entry({"steps": 20}, WEIGHTS, exact=True),
    "samp": Entry({"steps": 16}, WEIGHTS, exact=True),
    "igos_plus": Entry({"fill": "black", "size": 8, "l1": 0.0, "l2": 0.0, "l3": 0.0}, WEIGHTS),
    "igos_pp": Entry({"fill": "black", "size": 8, "l1": 0.0, "l2": 0.0, "l3": 0.0}),
}
"""They read gradients at the frame. Exact means are those of a map that is scaled to add up to 1."""

LINEAR: dict[str, tuple[dict[str, Any], float]] = {
    "token_patching": ({"reference": "zero"}, 1.0),
    "atp": ({"reference": "zero"}, 1.0),
    "atp, repaired": ({"reference": "zero", "qk_fix": True}, 1.0),
    "relp": ({"reference": "zero"}, 1.0),
    "relp, attnlrp": ({"reference": "zero", "attention": "attnlrp"}, 0.5),
    "gim": ({"reference": "zero"}, 0.5),
    "lrp": ({}, 0.5),
    "lrp, frozen": ({"attention_scores": False}, 1.0),
    "logit_attribution": ({"contrast": "logit"}, 1.0),
    "logit_attribution, two hops": ({"contrast": "logit", "hops": 2}, 1.0),
}
"""What they find in a decoder that is linear in the image tokens, as a share of a token's exact effect: rules that let
attention and values share a product give the values half of it."""

APART = {
    "som_prompting": "asks for text",
    "msea": "shows another method other sizes",
    "ensemble_rank": "ranks what other methods find",
    "medfocus_guided": "chooses among the regions of another method's map",
    "extremal_perturbation": "blurs the image, and a white board does not change",
    "xrai": "cuts the image, and a white board has nothing to cut",
    "blur_ig": "blurs the image, and a white board does not change",
    "eigencam": "reads states alone, whatever the score",
    "tam": "reads the head at image tokens, whatever the score",
    "smdl": "is eagle with features of the tower",
    "shap_kl": "explains a distribution over answers, not the score",
    "ifr": "reads what flows into the rows, whatever the score",
    "ifr_two_hop": "reads what flows into the rows, whatever the score",
    "globenc": "reads what flows into the rows, whatever the score",
    "attention": "reads attention alone, whatever the score",
    "rollout": "reads attention alone, whatever the score",
    "rel_attention": "reads attention alone, whatever the score",
    "localization_heads": "reads attention alone, whatever the score",
    "prompting": "asks for text",
    "prompting_medsam": "asks for text",
    "similarity_map": "looks into two-tower models",
    "tower_gradcam": "looks into two-tower models",
    "tower_gradient_x_state": "looks into two-tower models",
    "random_map": "asks the LVLM nothing",
    "centre_prior": "asks the LVLM nothing",
    "sobel": "asks the LVLM nothing",
    "intensity": "asks the LVLM nothing",
    "lung_mask_prior": "asks the LVLM nothing",
    "population_prior": "asks the LVLM nothing",
}

ON_QUADRANTS = [name for name, entry in BLACK_BOX.items() if not entry.anatomy]
ON_ANATOMY = [name for name, entry in BLACK_BOX.items() if entry.anatomy]


def run(name: str, lvlm: Any, episode: Any, **more: Any) -> Any:
    method = get_method(name)
    return method.run(lvlm, episode, method.make_parameters(BLACK_BOX[name].options | more))


def heat(name: str, game: Any) -> np.ndarray:
    return np.asarray(run(name, Player(game), white()).heatmap, float)


def test_every_method_of_this_project_has_its_line() -> None:
    ours = {name for name in available_methods() if get_method(name).function.__module__.split(".")[0] in OURS}
    assert ours - {*BLACK_BOX, *WHITE_BOX, *GRADIENT, *APART} == set()


OURS = ("baselines", "medfocus")


@pytest.mark.parametrize("name", ON_QUADRANTS)
def test_additive(name: str) -> None:
    found, expected = quadrants(heat(name, ADDITIVE)), BLACK_BOX[name].additive
    if expected is not None:
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[0] > found[1] > max(found[2], found[3])


@pytest.mark.parametrize("name", ON_QUADRANTS)
def test_both_are_needed(name: str) -> None:
    found, expected = quadrants(heat(name, AND)), BLACK_BOX[name].both
    if expected is not None:
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert min(found[:2]) > max(found[2:])


@pytest.mark.parametrize("name", ON_QUADRANTS)
def test_either_will_do(name: str) -> None:
    entry = BLACK_BOX[name]
    found = quadrants(heat(name, OR))
    if entry.either is not None:
        np.testing.assert_allclose(found, entry.either, atol=1e-6)
    if entry.finds_redundant:
        assert min(found[:2]) > max(found[2:])


@pytest.mark.parametrize("name", ON_QUADRANTS)
def test_a_score_that_nothing_changes_names_no_evidence(name: str) -> None:
    assert run(name, Player(dead), white()).degenerate


@pytest.mark.parametrize("name", ON_QUADRANTS)
def test_left_only(name: str) -> None:
    values = heat(name, left_only)
    left, right = values[:, : values.shape[1] // 2], values[:, values.shape[1] // 2 :]
    if BLACK_BOX[name].exact:
        assert not right.any()
    assert left.min() > right.mean()


def soft_heat(name: str, game: Any) -> Any:
    method = get_method(name)
    return method.run(SoftPlayer(game), white(), method.make_parameters(GRADIENT[name].options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", GRADIENT)
def test_gradients_of_games(name: str) -> None:
    pytest.importorskip("torch")
    entry = GRADIENT[name]
    for game, expected in ((soft_additive, entry.additive), (soft_and, entry.both)):
        found = quadrants(np.asarray(soft_heat(name, game).heatmap, float))
        if expected is not None:
            np.testing.assert_allclose(found / found.sum(), expected, atol=0.03 if name.startswith("igos") else 1e-6)
        assert min(found[:2]) > max(found[2:])
    values = np.asarray(soft_heat(name, soft_left_only).heatmap, float)
    left, right = values[:, : values.shape[1] // 2], values[:, values.shape[1] // 2 :]
    assert left.mean() > 5 * np.abs(right).mean()  # masks are enlarged over the middle
    if entry.exact:
        assert not right.any()
    assert soft_heat(name, soft_dead).degenerate


@pytest.mark.parametrize("name", ON_ANATOMY)
def test_games_on_a_chest(name: str, tmp_path: Path) -> None:
    episode = of_image(sample_phantom(3, size=224).image)
    gone = run(name, Player(dead), episode, cache=str(tmp_path))
    assert gone.fallback
    assert gone.boxes == [(0.0, 0.0, 224.0, 224.0)]
    found = run(name, Player(left_only), episode, cache=str(tmp_path))
    assert not found.fallback
    assert all(x1 < 112 for x1, _, _, _ in found.boxes) or found.concept.startswith("both")
    # What lies on the right alone has no effect at all: not a little, none.
    boxes = found.extras["concept_boxes"]
    right = [concept for concept, box in boxes.items() if box[0] >= 113]
    assert right
    assert all(found.concept_scores[concept] == 0 for concept in right)


@pytest.mark.parametrize("name", WHITE_BOX)
def test_a_dead_head_names_no_evidence(name: str) -> None:
    torch = pytest.importorskip("torch")
    from PIL import Image

    from medground_bench.lvlm.testing import tiny_qwen

    lvlm = tiny_qwen()
    pixels = np.random.default_rng(1).integers(0, 256, (112, 112), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(pixels), "Is there evidence of x in the image?", "Yes", side=None)
    with torch.no_grad():
        lvlm.model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(lvlm.model.lm_head.weight))
    if name in REFUSE:
        with pytest.raises(MethodError, match="is exactly zero"):
            get_method(name).run(lvlm, episode)
        return
    found = get_method(name).run(lvlm, episode)
    assert found.degenerate or found.fallback
    assert found.boxes == [(0.0, 0.0, 112.0, 112.0)]


@pytest.fixture(scope="module", params=["qwen", "gemma"])
def linear(request: pytest.FixtureRequest) -> Any:
    pytest.importorskip("torch")
    return linear_decoder(request.param)


@pytest.mark.parametrize("line", LINEAR)
def test_in_a_linear_decoder_a_token_is_worth_its_effect(linear: Any, line: str) -> None:
    lvlm, episode, effects, score = linear
    options, share = LINEAR[line]
    method = get_method(line.split(",")[0])
    found = method.run(lvlm, episode, method.make_parameters(options))
    np.testing.assert_allclose(np.ravel(found.heatmap), share * effects, atol=1e-3 * np.abs(effects).max())
    if "direct_share" in found.extras:
        assert found.extras["direct_share"] == pytest.approx(effects.sum() / score, rel=1e-3)


def test_the_docstring_says_what_the_table_says() -> None:
    """Signed or not, and whether the question counts, in words, where a method gives a map."""
    for name in available_methods():
        method = get_method(name)
        if method.function.__module__.split(".")[0] != "baselines" or method.family == "prompting":
            continue
        said = " ".join((method.function.__doc__ or "").split())
        assert re.search(r"\bSigned\b" if method.signed else r"\bUnsigned\b", said), name
        aware = r"[Qq]uestion-aware|knows the question" if method.question_aware else r"blind to the question"
        assert re.search(aware, said), name
        assert method.cost, name
        assert method.reference, name
