"""TAM by hand and on the real classes; LLaVA-CAM against autograd through a copied layer."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.activation.llava_cam import cam, mlp_inputs  # noqa: E402
from baselines.activation.tam import rank_gaussian, without_interference  # noqa: E402
from baselines.shared.rank_weights import rank_weights  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.core.errors import MethodError  # noqa: E402
from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen  # noqa: E402


def build(family: str) -> Any:
    return tiny_qwen() if family == "qwen" else tiny_gemma(image_size=112, tokens=16)


def prepare(lvlm: Any, question: str = "Is there evidence of cardiomegaly in the image?") -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, (84, 140), dtype=np.uint8)
    return lvlm.prepare(Image.fromarray(pixels), question, "Yes.", side=None)


def heat(name: str, lvlm: Any, episode: Any, **options: Any) -> np.ndarray:
    method = get_method(name)
    return np.asarray(method.run(lvlm, episode, method.make_parameters(options)).heatmap, float)


def test_interference_by_hand() -> None:
    raw = np.array([4.0, 1, 0, 3])
    one = np.array([[2.0, 1, 0, 2]])
    for weight in (0.5, 3.0):  # sigma is 5/3 of the mixture whatever its weight
        np.testing.assert_allclose(without_interference(raw, one, np.array([weight])), [2 / 3, 0, 0, 0], atol=1e-6)
    two = np.array([[2.0, 0, 0, 2], [0, 1, 1, 0]])
    found = without_interference(raw, two, np.array([3.0, 1.0]))
    np.testing.assert_allclose(found, [0.51351, 0.41892, 0, 0], atol=1e-5)
    np.testing.assert_array_equal(without_interference(raw, 0 * one, np.array([1.0])), raw)


def test_the_rank_filter_by_hand() -> None:
    assert rank_gaussian(np.arange(1.0, 10).reshape(3, 3), 3)[1, 1] == pytest.approx(5)
    spike = np.zeros((3, 3))
    spike[0, 2] = 9
    assert rank_gaussian(spike, 3)[1, 1] == pytest.approx(0.52456, abs=1e-5)
    assert (rank_gaussian(np.full((3, 4), 2.5), 3) == 2.5).all()  # where the released code gives NaN
    assert (rank_gaussian(np.zeros((3, 3)), 3) == 0).all()


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_without_context_and_filter_it_is_the_logit_lens(family: str) -> None:
    lvlm = build(family)
    episode = prepare(lvlm)
    with torch.no_grad():
        logits = lvlm.model(**lvlm.model_inputs(episode), use_cache=False).logits[0]
    expected = logits[list(episode.image_positions)][:, list(episode.token_ids)].clamp(min=0).mean(1)
    found = heat("tam", lvlm, episode, context=False, window=1)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-4, atol=1e-5)


def test_logits_are_capped_where_the_configuration_says_so() -> None:
    lvlm = build("gemma")
    episode = prepare(lvlm)
    with torch.no_grad():
        logits = lvlm.model(**lvlm.model_inputs(episode), use_cache=False).logits[0]
    plain = logits[list(episode.image_positions)][:, list(episode.token_ids)]
    lvlm.model.config.text_config.final_logit_softcapping = 0.3
    found = heat("tam", lvlm, episode, context=False, window=1).ravel()
    np.testing.assert_allclose(found, (0.3 * torch.tanh(plain / 0.3)).clamp(min=0).mean(1), rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, plain.clamp(min=0).mean(1), rtol=1e-2)


def test_only_the_context_knows_the_question() -> None:
    lvlm = build("qwen")
    other = "Does this radiograph show a pneumothorax?"
    blind = [heat("tam", lvlm, prepare(lvlm, *q), context=False) for q in ((), (other,))]
    np.testing.assert_allclose(*blind, rtol=1e-4, atol=1e-5)
    aware = [heat("tam", lvlm, prepare(lvlm, *q)) for q in ((), (other,))]
    assert not np.allclose(*aware, rtol=1e-3)


def test_ranks_by_hand() -> None:
    row = torch.tensor([4.0, 3, 2, 1])
    places = torch.stack([row**3, -row, torch.tensor([1.0, 1, 1, 1]), torch.tensor([3.0, 4, 2, 1])])
    # The same order, the reverse (below 0), none, and two neighbours exchanged: 1 - 6 * 2 / (4 * 15).
    np.testing.assert_allclose(rank_weights(places, row, torch.eye(4)), [1, 0, 0, 0.8])


def test_arc_weighs_the_context_by_what_is_predicted_there() -> None:
    """From the model's own logits, by scipy; a response of one token, whose context is the prompt's text."""
    from scipy.stats import spearmanr

    lvlm = build("qwen")
    episode = prepare(lvlm)
    with torch.no_grad():
        logits = lvlm.model(**lvlm.model_inputs(episode), use_cache=False).logits[0].double()
    ids, row, token = episode.inputs["input_ids"][0].tolist(), episode.rows[0], episode.token_ids[0]
    skipped = {*lvlm.processor.tokenizer.all_special_ids, token, *(ids[p] for p in episode.image_positions)}
    before = [p for p in range(row + 1) if ids[p] not in skipped]
    maps = logits[list(episode.image_positions)].clamp(min=0).numpy()
    top = logits[row].topk(50).indices
    weights = np.array([max(spearmanr(logits[p, top], logits[row, top]).statistic, 0) for p in before])
    mixture = weights @ maps[:, [ids[p] for p in before]].T / weights.sum()
    raw = maps[:, token]
    expected = np.maximum(raw - raw @ mixture / (mixture @ mixture) * mixture, 0)
    method = get_method("tam")
    one = dataclasses.replace(episode, tokens=episode.tokens[:1], rows=episode.rows[:1])
    found = method.run(lvlm, one, method.make_parameters({"weights": "arc", "window": 1})).heatmap
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-3, atol=1e-4 * expected.max())
    assert not np.allclose(found, heat("tam", lvlm, one, window=1), rtol=1e-2)


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_the_cam_reads_what_the_mlp_reads(family: str) -> None:
    """The gradient that goes through the MLP alone: an MLP fed with a leaf, the residual stream past it fixed."""
    lvlm = build(family)
    episode = prepare(lvlm)
    layer: Any = lvlm.layers[1]
    leaf: dict[str, Any] = {}

    def feed(module: Any, args: Any) -> Any:
        leaf["z"] = args[0].detach().clone().requires_grad_(True)
        return (leaf["z"],)

    hook = layer.mlp.register_forward_pre_hook(feed)
    logits = lvlm.model(**lvlm.model_inputs(episode), use_cache=False).logits[0, list(episode.rows)]
    hook.remove()
    target = logits[range(len(episode.rows)), list(episode.token_ids)].sum()
    (expected,) = torch.autograd.grad(target, leaf["z"])
    states, gradients = mlp_inputs(lvlm, episode, 1)
    positions = list(episode.image_positions)
    np.testing.assert_allclose(states, leaf["z"].detach()[0, positions], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gradients, expected[0, positions], rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    np.testing.assert_allclose(heat("llava_cam", lvlm, episode, layer=1).ravel(), cam(states, gradients), rtol=1e-6)


def test_the_cam_by_hand_and_its_layer() -> None:
    states, gradients = np.array([[1.0, 2], [-1, 4]]), np.array([[2.0, -8], [4, 2]])
    # alpha = (3, 1): mean over positions of the positive parts.
    np.testing.assert_allclose(cam(states, gradients), [(3 + 2) / 2, (-3 + 4) / 2])
    lvlm = build("qwen")
    with pytest.raises(MethodError, match="below"):
        heat("llava_cam", lvlm, prepare(lvlm), layer=-1)


def test_iia_of_one_point_each_is_gradient_times_attention_of_the_last_layer() -> None:
    from medground_bench.lvlm.whitebox import trace_attention

    lvlm = build("qwen")
    episode = prepare(lvlm)
    trace, rows = trace_attention(lvlm, episode, [-1], gradients=True), list(episode.rows)
    product = (trace.weights(-1, rows) * trace.gradient(-1, rows)).clamp(min=0).double().mean((0, 1))
    found = heat("iia", lvlm, episode, outer=1, inner=1)
    np.testing.assert_allclose(found.ravel(), product[list(episode.image_positions)], rtol=1e-5)
    # At no attention the product is zero: two inner points are half of their far end.
    two = heat("iia", lvlm, episode, outer=1, inner=2)
    np.testing.assert_allclose(2 * two, found, rtol=1e-5)
