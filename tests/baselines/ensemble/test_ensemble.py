"""Methods made of methods, and those whose papers leave things open."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from baselines.attention_gradient.glimpse import fused_heads  # noqa: E402
from baselines.ensemble.ensemble_rank import ranks  # noqa: E402
from baselines.relevance.dave import shifted  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.core.errors import MethodError  # noqa: E402
from medground_bench.imaging import resize_heatmap  # noqa: E402
from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen  # noqa: E402
from medground_bench.lvlm.whitebox import trace_attention  # noqa: E402
from tests.baselines.test_all_methods import prepare  # noqa: E402


def heat(name: str, lvlm: Any, episode: Any, **options: Any) -> np.ndarray:
    method = get_method(name)
    return np.asarray(method.run(lvlm, episode, method.make_parameters(options)).heatmap, float)


def test_ranks_by_hand() -> None:
    np.testing.assert_allclose(ranks(np.array([[5.0, -1], [2, 2]])), [[1, 0], [0.5, 0.5]])


def test_an_ensemble_of_one_is_its_ranks() -> None:
    lvlm = tiny_qwen()
    episode = prepare(lvlm)
    found = heat("ensemble_rank", lvlm, episode, methods="grad_attention")
    alone = resize_heatmap(heat("grad_attention", lvlm, episode), (224, 224))
    np.testing.assert_allclose(found, ranks(alone))
    with pytest.raises(MethodError, match="must name other methods"):
        get_method("ensemble_rank").make_parameters({"methods": "ensemble_rank"})


def test_one_scale_is_the_inner_method() -> None:
    lvlm = tiny_qwen()
    episode = prepare(lvlm)
    found = heat("msea", lvlm, episode, scales=(1.0,), inner="grad_attention")
    alone = resize_heatmap(heat("grad_attention", lvlm, episode), (224, 224))
    np.testing.assert_allclose(found, (alone - alone.min()) / np.ptp(alone), atol=1e-6)
    several = heat("msea", lvlm, episode, scales=(1.0, 1.5), inner="grad_attention")
    assert not np.allclose(found, several)
    weighed = resize_heatmap(heat("tam", lvlm, episode, weights="arc"), (224, 224))
    np.testing.assert_allclose(
        heat("msea", lvlm, episode, scales=(1.0,), arc=True), (weighed - weighed.min()) / np.ptp(weighed), atol=1e-6
    )


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_without_shifts_dave_is_relp(family: str) -> None:
    lvlm = tiny_qwen() if family == "qwen" else tiny_gemma(image_size=112, tokens=16)
    episode = prepare(lvlm)
    expected = episode.grid.to_frame(heat("relp", lvlm, episode))
    still = heat("dave", lvlm, episode, shifts=0)
    np.testing.assert_allclose(still, expected, atol=1e-4 * np.abs(expected).max())
    assert not np.allclose(still, heat("dave", lvlm, episode))


def test_shifts_come_back() -> None:
    image = np.arange(20.0).reshape(4, 5)
    np.testing.assert_array_equal(shifted(image, 1, -2)[1:, :3], image[:-1, 2:])
    np.testing.assert_array_equal(shifted(shifted(image, 1, -1), -1, 1)[:-1, 1:], image[:-1, 1:])


def test_heads_that_put_their_gradient_where_they_look_count_more() -> None:
    """Against a plain loop over heads of the real class."""
    lvlm = tiny_qwen()
    episode = prepare(lvlm)
    trace, rows = trace_attention(lvlm, episode, gradients=True), list(episode.rows)
    attention, slope = trace.weights(1, rows).double(), trace.gradient(1, rows).double()
    slope = torch.where(trace.scores(1, rows) == float("-inf"), 0.0, slope.clamp(min=0))
    ratios = np.array([float((a * g).sum() / g.sum()) for a, g in zip(attention, slope, strict=True)])
    share = np.exp(ratios / 0.5) / np.exp(ratios / 0.5).sum()
    expected = sum(float(w) * a * g for w, a, g in zip(share, attention, slope, strict=True))
    torch.testing.assert_close(fused_heads(trace, 1, rows, 0.5), expected)


def test_in_one_layer_glimpse_is_its_fused_heads() -> None:
    lvlm = tiny_qwen(layers=1)
    episode = prepare(lvlm)
    trace, rows = trace_attention(lvlm, episode, gradients=True), list(episode.rows)
    fused = fused_heads(trace, 0, rows, 0.5)
    image = list(episode.image_positions)
    delta = np.exp(trace.log_probs) * (fused[:, image].sum(1) / fused.sum(1)).numpy()
    found = get_method("glimpse").run(lvlm, episode)
    np.testing.assert_allclose(np.ravel(found.heatmap), delta @ fused[:, image].numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.token_scores, delta, rtol=1e-5)
