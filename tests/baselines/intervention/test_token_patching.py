"""Patching and its estimates: a decoder that is linear, redundant evidence, and the real classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.shared.attnlrp import attnlrp_rules  # noqa: E402
from baselines.shared.patching import one_key_changed, patching_estimate  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.core.errors import MethodError  # noqa: E402
from medground_bench.lvlm.embeddings import score_embeddings  # noqa: E402
from medground_bench.lvlm.tempered import tempered_attention  # noqa: E402
from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen  # noqa: E402
from medground_bench.lvlm.whitebox import merged_embeddings, trace_attention  # noqa: E402
from tests.baselines.kit import linear_decoder  # noqa: E402


def build(family: str, **options: Any) -> Any:
    return tiny_qwen(**options) if family == "qwen" else tiny_gemma(image_size=112, tokens=16, **options)


def prepare(lvlm: Any) -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, (84, 140), dtype=np.uint8)
    return lvlm.prepare(Image.fromarray(pixels), "Is there evidence of cardiomegaly in the image?", "Yes.", side=None)


def heat(name: str, lvlm: Any, episode: Any, **options: Any) -> np.ndarray:
    method = get_method(name)
    return np.asarray(method.run(lvlm, episode, method.make_parameters(options)).heatmap, float)


def with_decoder(decoder: Any) -> tuple[Any, Any]:
    """An LVLM whose score is a function of its merged embeddings (N, S, D)."""
    lvlm = tiny_qwen()
    lvlm.response_log_probs = lambda episode, inputs: decoder(inputs["inputs_embeds"])[:, None]
    return lvlm, prepare(lvlm)


@pytest.mark.parametrize("reference", ["token_mean", "zero", "black", "blur"])
def test_on_a_linear_decoder_estimate_and_effect_are_exact(reference: str) -> None:
    weight = torch.randn(4000, generator=torch.Generator().manual_seed(0))

    def decoder(embeddings: Any) -> Any:
        flat = embeddings.flatten(1)
        return flat @ weight.repeat(flat.shape[1] // 4000 + 1)[: flat.shape[1]]

    lvlm, episode = with_decoder(decoder)
    effect, estimate = (heat(n, lvlm, episode, reference=reference) for n in ("token_patching", "atp"))
    np.testing.assert_allclose(effect, estimate, atol=2e-4 * np.abs(effect).max())
    assert np.ptp(effect) > 0
    whole = get_method("token_patching")
    found = whole.run(lvlm, episode, whole.make_parameters({"reference": reference}))
    np.testing.assert_allclose(found.extras["all"], effect.sum(), rtol=1e-3, atol=1e-4)


def test_redundant_evidence_has_no_effect_alone() -> None:
    """Two tokens, either of which will do: patching one does nothing, patching both does."""
    lvlm = tiny_qwen()
    episode = prepare(lvlm)
    own = merged_embeddings(lvlm, episode)[0].detach()
    one, two = episode.image_positions[2], episode.image_positions[3]  # neighbours in a row
    lvlm.response_log_probs = lambda episode, inputs: torch.maximum(
        *(-(inputs["inputs_embeds"][:, p] - own[p]).norm(dim=-1) for p in (one, two))
    )[:, None]
    assert not heat("token_patching", lvlm, episode).any()
    assert heat("token_patching", lvlm, episode, neighbourhood=3).max() > 0


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_it_is_the_effect_of_one_token(family: str) -> None:
    lvlm = build(family)
    episode = prepare(lvlm)
    found = heat("token_patching", lvlm, episode, reference="zero").ravel()
    own = merged_embeddings(lvlm, episode).detach()
    for k in (0, 3, len(found) - 1):
        changed = own.clone()
        changed[0, episode.image_positions[k]] = 0
        with torch.no_grad():
            one, other = (float(score_embeddings(lvlm, episode, e).double().sum()) for e in (own, changed))
        assert found[k] == pytest.approx(one - other, abs=1e-5)


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_many_steps_are_complete(family: str) -> None:
    lvlm = build(family)
    episode = prepare(lvlm)
    whole = get_method("token_patching").run(lvlm, episode).extras["all"]
    assert heat("atp", lvlm, episode, steps=64).sum() == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_relp_from_zero_by_all_rules_is_lrp(family: str) -> None:
    lvlm = build(family)
    episode = prepare(lvlm)
    mine = heat("relp", lvlm, episode, reference="zero", attention="attnlrp")
    np.testing.assert_allclose(mine, heat("lrp", lvlm, episode), atol=1e-5 * np.abs(mine).max())


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_relp_in_one_layer_of_attention_is_direct_attribution(family: str) -> None:
    """No MLP, no biases, frozen attention: relevance of a token is what it writes into the logit."""
    lvlm = build(family, layers=1)
    with torch.no_grad():
        layer: Any = lvlm.layers[0]
        layer.mlp.down_proj.weight.zero_()
        if layer.self_attn.v_proj.bias is not None:
            layer.self_attn.v_proj.bias.zero_()
    episode = prepare(lvlm)
    mine = heat("relp", lvlm, episode, reference="zero")
    np.testing.assert_allclose(mine, heat("logit_attribution", lvlm, episode), atol=1e-5 * np.abs(mine).max())


@pytest.mark.parametrize("family", ["qwen", "gemma"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_softmax_of_the_backward_pass(family: str, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the eager kernel with a straight-through softmax written into it."""
    import sys

    mine_lvlm, eager = build(family), build(family, attention="eager")
    with tempered_attention(mine_lvlm, temperature):
        mine = patching_estimate(mine_lvlm, prepare(mine_lvlm), "zero")
    home = sys.modules[type(eager.layers[0].self_attn).__module__]

    def straight_through(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        scores = query @ key.transpose(2, 3) * scaling
        scores = scores if mask is None else scores + mask[..., : key.shape[2]]
        soft = (scores / temperature).softmax(-1)
        weights = soft + (scores.softmax(-1) - soft).detach()
        return (weights @ value).transpose(1, 2), weights

    original = home.eager_attention_forward
    inner = {id(layer.self_attn) for layer in eager.layers}
    monkeypatch.setattr(
        home,
        "eager_attention_forward",
        lambda module, *a, **k: (straight_through if id(module) in inner else original)(module, *a, **k),
    )
    expected = patching_estimate(eager, prepare(eager), "zero")
    np.testing.assert_allclose(mine, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_gim_differs_from_atp_and_leaves_the_score_alone(family: str) -> None:
    lvlm = build(family)
    episode = prepare(lvlm)
    own = merged_embeddings(lvlm, episode).detach()
    with torch.no_grad():
        before = score_embeddings(lvlm, episode, own)
        with tempered_attention(lvlm, 2.0):
            assert torch.equal(before, score_embeddings(lvlm, episode, own))
    mine, plain = heat("gim", lvlm, episode), heat("atp", lvlm, episode)
    assert abs(np.corrcoef(mine.ravel(), plain.ravel())[0, 1]) < 0.999


OFF = {"temperature": 1.0, "freeze_norms": False, "share": False}


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_gim_without_its_rules_is_attribution_patching(family: str) -> None:
    lvlm = build(family)
    episode = prepare(lvlm)
    plain = heat("atp", lvlm, episode)
    np.testing.assert_allclose(heat("gim", lvlm, episode, **OFF), plain, atol=1e-4 * np.abs(plain).max())
    for rule in OFF:  # and each of the three does something
        one = heat("gim", lvlm, episode, **{name: value for name, value in OFF.items() if name != rule})
        assert np.abs(one - plain).max() > 1e-2 * np.abs(plain).max(), rule


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_relp_without_its_rules_is_attribution_patching(family: str) -> None:
    lvlm = build(family)
    episode = prepare(lvlm)
    with attnlrp_rules(lvlm.adapter.decoder(lvlm.model), activations=False, norms=False, products=False):
        mine = patching_estimate(lvlm, episode, "token_mean")
    np.testing.assert_array_equal(mine, heat("atp", lvlm, episode))


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_the_halves_of_a_gate_add_up_to_its_output(family: str) -> None:
    """By input times gradient the two factors are worth the product: once with the rule, twice without it."""
    lvlm = build(family, layers=1)
    mlp: Any = lvlm.layers[0].mlp
    read = torch.randn(mlp.down_proj.in_features, generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, mlp.down_proj.out_features, generator=torch.Generator().manual_seed(1))
    seen: dict[str, Any] = {}
    hooks = [
        mlp.act_fn.register_forward_hook(lambda m, a, out: seen.update(gate=out)),
        mlp.up_proj.register_forward_hook(lambda m, a, out: seen.update(up=out)),
    ]
    for products, expected in ((True, 1.0), (False, 2.0)):
        with attnlrp_rules(lvlm.adapter.decoder(lvlm.model), activations=False, products=products):
            last = mlp.down_proj.register_forward_pre_hook(lambda m, a: seen.update(product=a[0]))
            mlp(x)
            last.remove()
        whole = (seen["product"] * read).sum()
        factors = [seen["gate"], seen["up"]]
        shares = sum((f * g).sum() for f, g in zip(factors, torch.autograd.grad(whole, factors), strict=True))
        assert (shares / whole).item() == pytest.approx(expected, rel=1e-4)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", ["token_patching", "atp", "relp", "gim"])
def test_to_replace_a_token_by_itself_does_nothing(name: str) -> None:
    """A black image, and the reference of a black frame."""
    lvlm = build("qwen")
    black = Image.fromarray(np.zeros((84, 84), np.uint8))
    episode = lvlm.prepare(black, "Is there evidence of cardiomegaly in the image?", "Yes.", side=None)
    assert np.abs(heat(name, lvlm, episode, reference="black")).max() < 1e-6
    assert np.abs(heat(name, lvlm, episode, reference="zero")).max() > 1e-5


@pytest.mark.parametrize("family", ["qwen", "gemma"])
@pytest.mark.parametrize("reference", ["token_mean", "black"])
def test_a_hidden_state_is_patched_in_its_own_layer(family: str, reference: str) -> None:
    """Against a plain forward of the model whose second layer is given another state at one token."""
    lvlm = build(family)
    episode = prepare(lvlm)
    found = heat("token_patching", lvlm, episode, layer=1, reference=reference).ravel()
    seen: list[Any] = []

    def score(image: Any, change: Any = None) -> float:
        def enter(module: Any, args: Any, kwargs: Any) -> Any:
            states = (args[0] if args else kwargs["hidden_states"]).clone()
            seen.append(states[0].clone())
            if change is not None:
                change(states[0])
            return ((states, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": states})

        hook = lvlm.layers[1].register_forward_pre_hook(enter, with_kwargs=True)
        whole = float(lvlm.log_probs(episode, [image])[0].astype(np.float64).sum())
        hook.remove()
        return whole

    full = score(episode.frame)
    own = seen[0]
    black = own
    if reference == "black":
        score(np.zeros_like(episode.frame_array))
        black = seen[1]
    for k in (0, len(found) - 1):
        place = episode.image_positions[k]
        wanted = black[place] if reference == "black" else own[list(episode.image_positions)].mean(0)
        changed = score(episode.frame, lambda states, place=place, wanted=wanted: states[place].copy_(wanted))
        assert found[k] == pytest.approx(full - changed, abs=2e-5)
    assert not np.allclose(found, heat("token_patching", lvlm, episode, reference=reference).ravel(), atol=1e-4)
    assert not lvlm.layers[1]._forward_pre_hooks


def test_dropped_gradients_show_effects_that_cancel() -> None:
    """The mean size over passes without one layer's gradient, by the layers' own plain gradients."""
    lvlm = build("qwen")
    episode = prepare(lvlm)
    own = merged_embeddings(lvlm, episode).detach()
    position = list(episode.image_positions)
    difference = own[0, position] - own[0, position].mean(0)
    sizes = []
    for k in range(len(lvlm.layers)):
        leaf = own.clone().requires_grad_(True)

        def without(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            entered = args[0] if args else kwargs["hidden_states"]
            return output.detach() - entered.detach() + entered

        hook = lvlm.layers[k].register_forward_hook(without, with_kwargs=True)
        (gradient,) = torch.autograd.grad(score_embeddings(lvlm, episode, leaf).sum(), leaf)
        hook.remove()
        sizes.append((gradient[0, position] * difference).sum(-1).abs())
    found = heat("atp", lvlm, episode, drop=True)
    np.testing.assert_allclose(found.ravel(), torch.stack(sizes).mean(0), rtol=1e-3, atol=1e-6)
    assert (found >= 0).all()
    assert not any(layer._forward_hooks for layer in lvlm.layers)


def saturating(family: str, size: float) -> tuple[Any, Any]:
    """The kit's linear decoder, but with queries: the softmax is all that is not linear."""
    lvlm, episode, _, _ = linear_decoder(family)
    attention: Any = lvlm.layers[-1].self_attn
    other: Any = build(family, layers=1, seed=5).layers[0].self_attn
    with torch.no_grad():
        attention.q_proj.weight.copy_(size * other.q_proj.weight)
    return lvlm, episode


@pytest.mark.parametrize(("family", "size"), [("qwen", 1e6), ("gemma", 300.0)])
def test_effects_through_saturated_attention_are_seen(family: str, size: float) -> None:
    lvlm, episode = saturating(family, size)
    assert float(trace_attention(lvlm, episode, [0]).weights(0, episode.rows).max()) > 0.99
    effect, plain = heat("token_patching", lvlm, episode), heat("atp", lvlm, episode)
    fixed = heat("atp", lvlm, episode, qk_fix=True)
    np.testing.assert_allclose(fixed, effect, atol=1e-4 * np.abs(effect).max())
    assert np.abs(plain - effect).max() > 0.5 * np.abs(effect).max()
    assert np.corrcoef(plain.ravel(), effect.ravel())[0, 1] < 0.9


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_where_the_softmax_is_linear_the_repair_changes_nothing(family: str) -> None:
    lvlm, episode = saturating(family, 1e-3)
    plain, fixed = heat("atp", lvlm, episode), heat("atp", lvlm, episode, qk_fix=True)
    np.testing.assert_allclose(fixed, plain, atol=1e-4 * np.abs(plain).max())


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_the_repair_comes_near_patching_in_a_random_decoder(family: str) -> None:
    lvlm = build(family)
    episode = prepare(lvlm)
    effect = heat("token_patching", lvlm, episode)
    plain, fixed = (heat("atp", lvlm, episode, qk_fix=on) for on in (False, True))
    assert np.linalg.norm(fixed - effect) < 0.4 * np.linalg.norm(plain - effect)
    assert np.corrcoef(fixed.ravel(), effect.ravel())[0, 1] > 0.99
    assert not any(vars(layer.self_attn)["_forward_hooks"] for layer in lvlm.layers)
    for options in ({"steps": 2}, {"drop": True}):
        with pytest.raises(MethodError, match="neither steps nor drop"):
            get_method("atp").make_parameters({"qk_fix": True, **options})


@pytest.mark.parametrize("size", [1.0, 40.0])
def test_one_changed_key_is_a_new_softmax(size: float) -> None:
    """By a softmax for each column, also where a weight is all but 1 (40: e^-100 is left to the others)."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    scores, slope, moved, bent = size * draw(2, 3, 5), draw(2, 3, 5), size * draw(2, 3, 2), draw(2, 3, 2)
    scores[0, 0, 4] = -float("inf")
    found = one_key_changed(scores, slope, [1, 3], moved, bent)
    before = (scores.softmax(-1) * slope).sum(-1)
    for k, column in enumerate((1, 3)):
        new, bend = scores.clone(), slope.clone()
        new[..., column] += moved[..., k]
        bend[..., column] += bent[..., k]
        np.testing.assert_allclose(found[..., k], (new.softmax(-1) * bend).sum(-1) - before, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_a_token_alone_has_the_keys_that_patching_gives_it(family: str) -> None:
    """In causal attention exactly those of a pass in which it alone is patched; where the image sees itself, nearly."""
    lvlm = build(family)
    episode = prepare(lvlm)
    own, image = merged_embeddings(lvlm, episode).detach(), list(episode.image_positions)
    patched = own.clone()
    patched[0, image[5]] = own[0, image].mean(0)
    trace = trace_attention(lvlm, episode, embeddings=own)
    passed = trace_attention(lvlm, episode, embeddings=patched)
    layers = 0
    for layer, keys, values in trace.alone(image, own[0, image].mean(0).expand(len(image), -1)):
        for found, expected, before in (
            (keys[:, 5], passed.keys(layer)[:, image[5]], trace.keys(layer)[:, image[5]]),
            (values[:, 5], passed.values(layer)[:, image[5]], trace.values(layer)[:, image[5]]),
        ):
            least = 1e-4 if family == "qwen" or layer == 0 else 0.1
            np.testing.assert_allclose(found, expected, atol=least * float((expected - before).abs().max()))
        layers += 1
    assert layers == len(lvlm.layers)
    for layer, keys, _ in trace.alone(image, own[0, image]):  # nothing patched, nothing changed
        np.testing.assert_allclose(keys, trace.keys(layer)[:, image], atol=1e-4 * float(keys.abs().max()))
