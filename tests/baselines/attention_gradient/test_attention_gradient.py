"""The family and the tensors it stands on, against autograd through eager attention of the real classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.lvlm.whitebox import trace_attention  # noqa: E402
from tests.baselines.eager import Eager, build, eager_pass  # noqa: E402

QUESTION = "Is there evidence of pleural effusion in the image?"
RESPONSE = "The left costophrenic angle is blunted. The answer is yes."


@pytest.fixture(scope="module", params=[("qwen", None), ("gemma", 224)], ids=str)
def case(request: pytest.FixtureRequest) -> tuple[Any, Any, Eager]:
    """An LVLM with the fast kernel, its episode, and the eager pass of the same weights."""
    family, side = request.param
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (140, 224), dtype=np.uint8))
    fast = build(family, "sdpa")
    return (
        fast,
        fast.prepare(image, QUESTION, RESPONSE, side=side),
        eager_pass(family, image, QUESTION, RESPONSE, side),
    )


def heat(case: Any, name: str, **options: Any) -> np.ndarray:
    lvlm, episode, _ = case
    method = get_method(name)
    found = method.run(lvlm, episode, method.make_parameters(options)).heatmap
    assert found is not None
    return np.asarray(found, float)


def close(mine: Any, expected: Any) -> None:
    mine, expected = np.asarray(mine, float), np.asarray(expected.detach() if hasattr(expected, "detach") else expected)
    assert expected.std() > 0
    np.testing.assert_allclose(mine, expected.reshape(mine.shape), atol=1e-5 * np.abs(expected).max(), rtol=1e-4)


def heads(grouped: Any, queries: Any) -> Any:
    return grouped[0].repeat_interleave(queries.shape[1] // grouped.shape[1], dim=0)


def test_queries_keys_values_and_scores_are_the_models_own(case: Any) -> None:
    lvlm, episode, eager = case
    trace = trace_attention(lvlm, episode)
    rows = list(episode.rows)
    for layer in trace.layers:
        queries, scaling = eager.queries[layer], lvlm.layers[layer].self_attn.scaling
        keys = heads(eager.keys[layer], queries)
        close(trace.queries(layer, rows), queries[0][:, rows])
        close(trace.keys(layer), keys)
        close(trace.values(layer), heads(eager.values[layer], queries))
        scores = (queries[0] @ keys.transpose(1, 2) * scaling)[:, rows]
        visible = eager.visible(layer)[0][:, rows]
        mine = trace.scores(layer, rows)
        assert torch.equal(mine > float("-inf"), visible)
        close(mine[visible], scores[visible])


def test_lens_gradients_are_those_of_the_layers_own_logits(case: Any) -> None:
    lvlm, episode, eager = case
    trace = trace_attention(lvlm, episode)
    for layer in trace.layers:
        mine = trace.lens_gradient(layer, episode.rows, episode.token_ids)
        for t, row in enumerate(episode.rows):
            close(mine[:, t], eager.gradient(layer, eager.lens(layer, t))[:, row])
    assert all("self_attn" in dict(layer.named_children()) for layer in lvlm.layers)


def image_part(eager: Eager, values: Any) -> Any:
    return values[..., list(eager.episode.image_positions)]


def positive(eager: Eager, layer: int) -> Any:
    """ReLU(ds/dA) at the predicting rows, zero where hidden: (H, T, S)."""
    gradient = eager.gradient(layer).clamp(min=0) * eager.visible(layer)[0]
    return gradient[:, list(eager.episode.rows)]


def test_attention_x_gradient(case: Any) -> None:
    eager, rows = case[2], list(case[1].rows)
    layers = [positive(eager, n) * eager.attention[n][0][:, rows] for n in range(3)]
    expected = torch.stack([image_part(eager, x).mean((0, 1)) for x in layers])
    close(heat(case, "attention_x_gradient"), expected.mean(0))
    close(heat(case, "attention_x_gradient", layers="late"), expected[2])


def test_agcam(case: Any) -> None:
    eager, rows = case[2], list(case[1].rows)
    expected, weights = 0, 0
    for n in range(3):
        queries = eager.queries[n][0][:, rows]
        scores = queries @ heads(eager.keys[n], eager.queries[n]).transpose(1, 2) * case[0].layers[n].self_attn.scaling
        expected = expected + image_part(eager, positive(eager, n) * scores.sigmoid()).sum(0).mean(0)
        attention = eager.attention[n][0][:, rows]
        weights = weights + image_part(eager, positive(eager, n) * attention.sigmoid()).sum(0).mean(0)
    close(heat(case, "agcam"), expected)
    close(heat(case, "agcam", sigmoid_of="weights"), weights)


def test_grad_eclip(case: Any) -> None:
    eager, rows = case[2], list(case[1].rows)

    def layer(n: int) -> Any:
        queries = eager.queries[n][0][:, rows]
        keys = image_part(eager, heads(eager.keys[n], eager.queries[n]).transpose(1, 2))
        cosine = queries @ keys / (queries.norm(dim=-1)[..., None] * keys.norm(dim=1)[:, None])
        least, most = cosine.min(-1, keepdim=True).values, cosine.max(-1, keepdim=True).values
        return (image_part(eager, positive(eager, n)) * (cosine - least) / (most - least)).mean((0, 1))

    close(heat(case, "grad_eclip"), layer(2))
    close(heat(case, "grad_eclip", layers=2), (layer(1) + layer(2)) / 2)


def test_where_the_cosine_is_constant_grad_eclip_is_the_gradient() -> None:
    """Queries of zero: every cosine is the same, and its scaled form would be 0/0."""
    lvlm = build("qwen", "sdpa")
    with torch.no_grad():
        projection = lvlm.layers[-1].self_attn.q_proj
        projection.weight.zero_()
        projection.bias.zero_()
    pixels = np.random.default_rng(0).integers(0, 256, (84, 112), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(pixels), QUESTION, "Yes", side=None)
    gradient = trace_attention(lvlm, episode, [-1], gradients=True).gradient(-1, episode.rows).clamp(min=0)
    expected = gradient[..., list(episode.image_positions)].mean((0, 1))
    close(get_method("grad_eclip").run(lvlm, episode).heatmap, expected)


def lens_gradients(eager: Eager) -> Any:
    """ReLU(ds_lt/dA_l[r_t]), (T, L, H, S)."""
    return torch.stack(
        [
            torch.stack([eager.gradient(n, eager.lens(n, t))[:, row] * eager.visible(n)[0][:, row] for n in range(3)])
            for t, row in enumerate(eager.episode.rows)
        ]
    ).clamp(min=0)


def test_legrad(case: Any) -> None:
    close(heat(case, "legrad"), image_part(case[2], lens_gradients(case[2])).mean((0, 2)).sum(0))


def test_dex_ar(case: Any) -> None:
    lvlm, episode, eager = case
    found = lens_gradients(eager)
    seen, text = image_part(eager, found), found[..., max(episode.image_positions) + 1 :]
    total, deltas, largest = np.zeros(len(episode.grid)), [], float(found.max())
    for t in range(len(episode.rows)):
        delta = max(0.0, float(seen[t].max() - text[t].max()))
        deltas.append(delta)
        for n in range(3):
            for h in range(seen.shape[2]):
                weight = max(0.0, float(seen[t, n, h].max() - text[t, n, h].max()))
                total += delta * weight * seen[t, n, h].detach().double().numpy()
    method = get_method("dex_ar")
    result = method.run(lvlm, episode)
    np.testing.assert_allclose(result.token_scores, deltas, atol=1e-5 * max(largest, 1e-3))  # differences of two maxima
    if any(deltas):
        close(result.heatmap, total)
    else:
        assert result.fallback
        assert result.extras == {"reason": "no token is visual"}


def test_where_no_token_is_visual_dex_ar_says_so() -> None:
    """A model whose image tokens have no values: nothing that the image holds reaches an answer."""
    lvlm = build("qwen", "sdpa")
    image = Image.fromarray(np.full((112, 112), 128, np.uint8))
    episode = lvlm.prepare(image, QUESTION, "Yes", side=None)
    with torch.no_grad():
        for layer in lvlm.layers:
            layer.self_attn.o_proj.weight.zero_()
    result = get_method("dex_ar").run(lvlm, episode)
    assert result.fallback
    assert result.boxes == [(0.0, 0.0, 112.0, 112.0)]
