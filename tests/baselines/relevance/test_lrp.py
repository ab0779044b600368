"""The method ``lrp``: where relevance is read, which kernel and precision it takes, what its parameter does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.relevance.lrp import LrpParameters, lrp  # noqa: E402
from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen  # noqa: E402
from tests.baselines.shared.test_attnlrp import relevance  # noqa: E402

QUESTION = "Is there evidence of cardiomegaly in the image?"


def build(family: str, kernel: str) -> Any:
    if family == "qwen":
        return tiny_qwen(attention=kernel)
    return tiny_gemma(attention=kernel, image_size=112, tokens=16)


def prepare(lvlm: Any) -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, (84, 140), dtype=np.uint8)
    return lvlm.prepare(Image.fromarray(pixels), QUESTION, "Yes.", side=None)


@pytest.mark.parametrize("family", ["qwen", "gemma"])
@pytest.mark.parametrize("scores", [True, False])
def test_it_is_the_relevance_of_the_image_embeddings(family: str, scores: bool) -> None:
    lvlm = build(family, "eager")
    episode = prepare(lvlm)
    calls: list[dict[str, Any]] = []
    handle = lvlm.adapter.decoder(lvlm.model).register_forward_pre_hook(
        lambda m, a, k: calls.append(dict(k)), with_kwargs=True
    )
    with torch.no_grad():
        lvlm.model(**lvlm.model_inputs(episode), use_cache=False)
    handle.remove()
    lvlm.model.double()
    expected, _, _ = relevance(lvlm, episode, calls[0], attention_scores=scores)
    lvlm.model.float()
    mine = lrp.run(lvlm, episode, LrpParameters(attention_scores=scores)).heatmap
    values = expected[list(episode.image_positions)].sum(-1).numpy().reshape(mine.shape)
    np.testing.assert_allclose(mine, values, atol=1e-4 * np.abs(values).max())


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_the_attention_kernel_does_not_matter(family: str) -> None:
    maps = []
    for kernel in ("eager", "sdpa"):
        lvlm = build(family, kernel)
        maps.append(lrp.run(lvlm, prepare(lvlm), LrpParameters()).heatmap)
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-4 * np.abs(maps[0]).max())


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_it_is_not_plain_gradient_times_input_nor_rollout(family: str) -> None:
    from medground_bench.attribution.method import get_method
    from medground_bench.lvlm.whitebox import embedding_gradients

    lvlm = build(family, "sdpa")
    episode = prepare(lvlm)
    mine = lrp.run(lvlm, episode, LrpParameters()).heatmap
    states, gradients = embedding_gradients(lvlm, episode)
    plain = (states * gradients).sum(-1).numpy().reshape(mine.shape)
    rollout = np.asarray(get_method("rollout").run(lvlm, episode).heatmap)
    for other in (plain, rollout):
        assert abs(np.corrcoef(mine.ravel(), other.ravel())[0, 1]) < 0.95
    assert (mine < 0).any()
    assert (mine > 0).any()
