"""White-box access against eager attention and plain autograd, on both families."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.core.schema import question
from medground_bench.lvlm import Episode, Lvlm, testing, whitebox

RESPONSE = "The left costophrenic angle is blunted.\nThe answer is yes."


@pytest.fixture(scope="module", params=["tiny_qwen", "tiny_gemma"])
def case(request: pytest.FixtureRequest) -> tuple[Lvlm, Episode]:
    lvlm = request.getfixturevalue(request.param)
    noise = np.random.default_rng(3).integers(0, 255, (120, 96), dtype=np.uint8)
    return lvlm, lvlm.prepare(Image.fromarray(noise), question("pleural effusion", "reason"), RESPONSE)


@pytest.fixture(scope="module")
def eager(case: tuple[Lvlm, Episode]) -> Lvlm:
    """The same weights with eager attention."""
    return getattr(testing, case[0].key)(attention="eager")


def eager_pass(eager: Lvlm, episode: Episode) -> dict[str, list[torch.Tensor]]:
    """Oracle: the model's own attentions and hidden states with gradients kept by autograd."""
    out = eager.model(**episode.inputs, output_attentions=True, output_hidden_states=True, use_cache=False)
    for tensor in (*out.attentions, *out.hidden_states):
        tensor.retain_grad()
    logp = out.logits[0].float().log_softmax(-1)
    sum(logp[r, t] for r, t in zip(episode.rows, episode.token_ids, strict=True)).backward()
    eager.model.zero_grad()
    return {"attention": list(out.attentions), "hidden": list(out.hidden_states)}


def hook_count(lvlm: Lvlm) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) + len(m._backward_pre_hooks)
        for m in lvlm.model.modules()
    )


def test_attention_weights_equal_eager(case: tuple[Lvlm, Episode], eager: Lvlm) -> None:
    lvlm, episode = case
    oracle = eager_pass(eager, episode)["attention"]
    trace = whitebox.trace_attention(lvlm, episode)
    assert trace.layers == tuple(range(len(oracle)))
    for layer, expected in enumerate(oracle):
        weights = trace.weights(layer)
        assert weights.shape == expected[0].shape
        torch.testing.assert_close(weights, expected[0].detach(), rtol=0, atol=2e-6)
        torch.testing.assert_close(trace.weights(layer, episode.rows), weights[:, list(episode.rows)])
    assert weights.max() > 2 * weights.mean()  # the models attend to something, so the comparison says something


def test_attention_gradients_equal_eager(case: tuple[Lvlm, Episode], eager: Lvlm) -> None:
    lvlm, episode = case
    oracle = eager_pass(eager, episode)["attention"]
    trace = whitebox.trace_attention(lvlm, episode, gradients=True)
    for layer, expected in enumerate(oracle):
        assert expected.grad is not None
        scale = float(expected.grad.abs().max())
        assert scale > 0
        torch.testing.assert_close(trace.gradient(layer), expected.grad[0], rtol=0, atol=1e-4 * scale)
        rows = trace.gradient(layer, episode.rows[:2])
        torch.testing.assert_close(rows, expected.grad[0][:, list(episode.rows[:2])], rtol=0, atol=1e-4 * scale)


def test_eager_and_sdpa_traces_agree(case: tuple[Lvlm, Episode], eager: Lvlm) -> None:
    lvlm, episode = case
    mine, other = (whitebox.trace_attention(m, episode, [-1]) for m in (lvlm, eager))
    torch.testing.assert_close(mine.weights(-1), other.weights(-1), rtol=0, atol=2e-6)


def test_hidden_states_and_gradients_equal_autograd(case: tuple[Lvlm, Episode], eager: Lvlm) -> None:
    lvlm, episode = case
    oracle = eager_pass(eager, episode)["hidden"]
    depth = len(lvlm.layers)
    got = whitebox.hidden_gradients(lvlm, episode)
    plain = whitebox.hidden_states(lvlm, episode)
    assert sorted(got) == sorted(plain) == list(range(depth + 1))
    for layer in range(depth):  # transformers' last entry is the normed one: checked below
        states, gradients = got[layer]
        torch.testing.assert_close(states, oracle[layer][0].detach(), rtol=0, atol=2e-5)
        torch.testing.assert_close(states, plain[layer], rtol=0, atol=2e-5)
        scale = float(oracle[layer].grad.abs().max())
        torch.testing.assert_close(gradients, oracle[layer].grad[0], rtol=0, atol=2e-4 * scale)
    final = lvlm.adapter.decoder(lvlm.model).norm(got[depth][0])
    torch.testing.assert_close(final, oracle[depth][0].detach(), rtol=0, atol=2e-4)
    # Only predicting rows of the last state reach the score.
    reached = got[depth][1].abs().sum(-1).nonzero()[:, 0].tolist()
    assert reached == list(episode.rows)


def test_embedding_gradients_are_the_image_rows(case: tuple[Lvlm, Episode]) -> None:
    lvlm, episode = case
    states, gradients = whitebox.embedding_gradients(lvlm, episode)
    both = whitebox.hidden_gradients(lvlm, episode, [0])[0]
    image = list(episode.image_positions)
    assert torch.equal(states, both[0][image])
    assert torch.equal(gradients, both[1][image])
    assert gradients.abs().sum() > 0


def test_merged_embeddings_score_like_the_plain_pass(case: tuple[Lvlm, Episode]) -> None:
    lvlm, episode = case
    variants = np.stack([episode.frame_array, 255 - episode.frame_array])
    images = lvlm.pixel_inputs(episode, variants)
    with torch.no_grad():
        scores = whitebox.score_embeddings(lvlm, episode, whitebox.merged_embeddings(lvlm, episode, images, 2))
    np.testing.assert_allclose(scores.numpy(), lvlm.log_probs(episode, variants), rtol=0, atol=1e-6)


def test_pixel_gradients_equal_autograd(case: tuple[Lvlm, Episode], eager: Lvlm) -> None:
    lvlm, episode = case
    leaf = episode.inputs["pixel_values"].clone().requires_grad_(True)
    logits = eager.model(**{**episode.inputs, "pixel_values": leaf}, use_cache=False).logits[0].log_softmax(-1)
    sum(logits[r, t] for r, t in zip(episode.rows, episode.token_ids, strict=True)).backward()
    scores, gradients = whitebox.pixel_gradients(lvlm, episode)
    scale = float(leaf.grad.abs().max())
    assert scale > 0
    torch.testing.assert_close(gradients, leaf.grad, rtol=0, atol=5e-4 * scale)
    np.testing.assert_allclose(scores, lvlm.log_probs(episode, [episode.frame]), atol=1e-5)


def test_pixel_gradients_of_several_images(case: tuple[Lvlm, Episode]) -> None:
    lvlm, episode = case
    one = episode.inputs["pixel_values"]
    scores, gradients = whitebox.pixel_gradients(lvlm, episode, torch.cat([one, 0.3 * one, one]), batch_size=2)
    alone, alone_gradient = whitebox.pixel_gradients(lvlm, episode, 0.3 * one)
    np.testing.assert_allclose(scores[1], alone[0], atol=1e-5)
    scale = float(alone_gradient.abs().max())
    middle = gradients[one.shape[0] : 2 * one.shape[0]]
    torch.testing.assert_close(middle, alone_gradient, rtol=0, atol=5e-4 * scale)
    with pytest.raises(LvlmError, match="per image"):
        whitebox.pixel_gradients(lvlm, episode, one[..., :-1])


def test_pixel_map_puts_values_in_image_order(case: tuple[Lvlm, Episode]) -> None:
    lvlm, episode = case
    image = whitebox.pixel_map(lvlm, episode, episode.inputs["pixel_values"])
    width, height = lvlm.adapter.processed_size(lvlm.processor, *episode.frame.size)
    assert image.shape == (3, height, width)
    resized = np.asarray(episode.frame.resize((width, height), Image.Resampling.BILINEAR), np.float64)[..., 0]
    assert np.corrcoef(resized.ravel(), image[0].numpy().ravel())[0, 1] > 0.999


def test_variants_are_traced_as_themselves(case: tuple[Lvlm, Episode]) -> None:
    lvlm, episode = case
    black = np.zeros_like(episode.frame_array)
    trace = whitebox.trace_attention(lvlm, episode, [0], image=black)
    np.testing.assert_allclose(trace.log_probs, lvlm.log_probs(episode, black[None])[0], atol=1e-6)
    states = whitebox.hidden_states(lvlm, episode, [0], image=black)[0]
    assert not torch.allclose(states, whitebox.hidden_states(lvlm, episode, [0])[0])


def test_hooks_are_gone_and_the_model_unchanged(case: tuple[Lvlm, Episode], monkeypatch: pytest.MonkeyPatch) -> None:
    lvlm, episode = case
    before = lvlm.model(**episode.inputs).logits
    count = hook_count(lvlm)
    whitebox.trace_attention(lvlm, episode, gradients=True).gradient(0)
    whitebox.hidden_gradients(lvlm, episode)
    whitebox.pixel_gradients(lvlm, episode)
    assert hook_count(lvlm) == count
    assert torch.equal(lvlm.model(**episode.inputs).logits, before)
    assert all(p.grad is None for p in lvlm.model.parameters())

    def fail(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lvlm, "response_log_probs", fail)
    for call in (whitebox.trace_attention, whitebox.hidden_gradients, whitebox.hidden_states):
        with pytest.raises(KeyboardInterrupt):
            call(lvlm, episode)
    assert hook_count(lvlm) == count


def test_refusals(case: tuple[Lvlm, Episode]) -> None:
    lvlm, episode = case
    trace = whitebox.trace_attention(lvlm, episode, [-1])
    with pytest.raises(LvlmError, match="not traced"):
        trace.weights(0)
    with pytest.raises(LvlmError, match="no layer 99"):
        trace.weights(99)
    with pytest.raises(LvlmError, match="no gradients"):
        trace.gradient(-1)
    with pytest.raises(LvlmError, match="outside the sequence"):
        trace.weights(-1, [episode.length])


def test_a_kernel_that_cannot_be_rebuilt_is_noticed(
    case: tuple[Lvlm, Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    lvlm, episode = case
    trace = whitebox.trace_attention(lvlm, episode, [1])
    monkeypatch.setattr(lvlm.layers[1].self_attn, "scaling", 3.0)
    with pytest.raises(LvlmError, match="does not reproduce"):
        trace.weights(1)


def test_bfloat16(case: tuple[Lvlm, Episode]) -> None:
    reference, _ = case
    lvlm = getattr(testing, reference.key)()
    lvlm.model.to(torch.bfloat16)
    noise = np.random.default_rng(3).integers(0, 255, (120, 96), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(noise), question("pleural effusion", "reason"), RESPONSE)
    trace = whitebox.trace_attention(lvlm, episode, gradients=True)
    full = whitebox.trace_attention(reference, case[1])
    for layer in trace.layers:
        weights = trace.weights(layer, episode.rows)
        assert weights.dtype == torch.float32
        assert (weights - full.weights(layer, episode.rows)).abs().mean() < 0.02
        assert torch.isfinite(trace.gradient(layer, episode.rows)).all()
    _, gradients = whitebox.pixel_gradients(lvlm, episode)
    assert gradients.dtype == torch.float32
    assert gradients.abs().sum() > 0
