"""CAMs that weigh a state place by place, by components or by scores: by hand, by grad-cam and in games."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.activation.eigencam import first_component  # noqa: E402
from baselines.gradient.gradcam import cam_weights  # noqa: E402
from baselines.gradient.hirescam import hirescam_values  # noqa: E402
from baselines.gradient.layercam import layercam_values  # noqa: E402
from baselines.gradient.xgradcam import xgradcam_weights  # noqa: E402
from baselines.perturbation.scorecam import channel_masks, score_weights  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.core.errors import LvlmError, MethodError  # noqa: E402
from medground_bench.lvlm import whitebox  # noqa: E402
from tests.baselines.kit import ADDITIVE, AND, OR, WEIGHTS, Player, dead, linear_decoder, of_image, white_episode  # noqa: E402

STATES = np.array([[1.0, 2], [3, -1], [-2, 2]])
SLOPES = np.array([[0.5, -1.0], [-1, 2], [1, 1]])
NAMES = ("hirescam", "layercam", "xgradcam")


@pytest.fixture(scope="module")
def golden() -> Any:
    found = json.loads((Path(__file__).parents[1] / "goldens" / "cams.json").read_text())
    return {key: np.array(value) if isinstance(value, list) else value for key, value in found.items()}


def heat(name: str, lvlm: Any, episode: Any, **options: Any) -> np.ndarray:
    method = get_method(name)
    return np.asarray(method.run(lvlm, episode, method.make_parameters(options)).heatmap, float)


def unit(values: np.ndarray) -> np.ndarray:
    """As grad-cam shows a map: its positive part, from 0 to 1."""
    shown = np.maximum(values, 0)
    return (shown - shown.min()) / np.ptp(shown)


def test_values_by_hand() -> None:
    np.testing.assert_allclose(hirescam_values(STATES, SLOPES), [-1.5, -5, 0])
    np.testing.assert_allclose(layercam_values(STATES, SLOPES), [0.5, -2, 0])
    # Channel sums 2 and 3, of products -4.5 and -2.
    np.testing.assert_allclose(xgradcam_weights(STATES, SLOPES, 1e-9), [-2.25, -2 / 3])
    # At least 0.4 of 6, so 2.4, in place of 2; 3 is more than 0.4 of 5.
    np.testing.assert_allclose(xgradcam_weights(STATES, SLOPES, 0.4), [-4.5 / 2.4, -2 / 3])
    np.testing.assert_allclose(xgradcam_weights(-STATES, SLOPES, 0.4), [-4.5 / 2.4, -2 / 3])
    assert not xgradcam_weights(0 * STATES, SLOPES, 0.4).any()


def test_where_the_gradient_is_everywhere_the_same_it_is_gradcam() -> None:
    rng = np.random.default_rng(0)
    states, slope = rng.normal(size=(30, 7)), np.repeat(rng.normal(size=(1, 7)), 30, axis=0)
    expected = states @ cam_weights(slope)
    np.testing.assert_allclose(hirescam_values(states, slope), expected)
    np.testing.assert_allclose(states @ xgradcam_weights(states, slope, 1e-9), expected)
    np.testing.assert_allclose(layercam_values(states, np.abs(slope)), states @ cam_weights(np.abs(slope)))


def test_a_channel_has_its_gradient_times_input() -> None:
    rng = np.random.default_rng(0)
    states, slopes = rng.normal(size=(2, 30, 7))
    given = states.sum(0) * xgradcam_weights(states, slopes, 1e-9)
    np.testing.assert_allclose(given, (states * slopes).sum(0))


@pytest.mark.parametrize("name", ["GradCAM", "HiResCAM", "LayerCAM", "XGradCAM"])
def test_maps_are_those_of_grad_cam(golden: Any, name: str) -> None:
    states, slopes = golden["states"], golden["gradients"]
    mine = {
        "GradCAM": lambda: states @ cam_weights(slopes),
        "HiResCAM": lambda: hirescam_values(states, slopes),
        "LayerCAM": lambda: layercam_values(states, slopes),
        "XGradCAM": lambda: states @ xgradcam_weights(states, slopes, 1e-9),
    }[name]()
    expected = np.array(golden["maps"].item()[name] if isinstance(golden["maps"], np.ndarray) else golden["maps"][name])
    assert np.ptp(expected) > 0.9
    np.testing.assert_allclose(unit(mine), expected.ravel(), atol=1e-5)


def test_the_component_is_that_of_grad_cam_and_of_eigenvectors(golden: Any) -> None:
    values, share = first_component(golden["states"], centred=True)
    theirs = golden["projection"].ravel()
    np.testing.assert_allclose(values, theirs * np.sign(values @ theirs), atol=1e-6 * np.abs(values).max())
    for centred in (True, False):
        states = np.random.default_rng(3).normal(1, 1, (20, 6))
        given = states - centred * states.mean(0)
        sizes, vectors = np.linalg.eigh(given.T @ given)  # another decomposition
        values, share = first_component(states, centred)
        np.testing.assert_allclose(np.abs(values), np.abs(given @ vectors[:, -1]))
        assert share == pytest.approx(sizes[-1] / sizes.sum())
        assert values[np.argmax(np.abs(values))] > 0
        np.testing.assert_allclose(first_component(-states, centred)[0], values)  # no sign of its own
    assert not first_component(np.full((5, 3), 0.1), True)[0].any()


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_another_question_another_map_but_for_the_components(family: str) -> None:
    """Blind to the question: across questions it correlates at 1, and the others do not."""
    from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen

    lvlm = tiny_qwen() if family == "qwen" else tiny_gemma(image_size=112, tokens=16)
    pixels = np.random.default_rng(0).integers(0, 256, (84, 140), dtype=np.uint8)
    asked = ("Is there evidence of cardiomegaly in the image?", "Does this radiograph show a pneumothorax?")
    episodes = [
        lvlm.prepare(Image.fromarray(pixels), q, a, side=None) for q, a in zip(asked, ("Yes", "No"), strict=True)
    ]
    maps = {
        name: [heat(name, lvlm, episode, **options).ravel() for episode in episodes]
        for name, options in {"eigencam": {}, "scorecam": {"channels": 8}, **{name: {} for name in NAMES}}.items()
    }
    assert np.corrcoef(*maps["eigencam"])[0, 1] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(*maps["eigencam"], rtol=1e-4, atol=1e-5 * np.max(maps["eigencam"]))
    for name in ("scorecam", *NAMES):
        assert not np.allclose(*maps[name], rtol=1e-3, atol=1e-3 * np.max(maps[name])), name


@pytest.mark.parametrize("family", ["qwen", "gemma"])
def test_in_a_linear_decoder_hirescam_is_the_effect(family: str) -> None:
    lvlm, episode, effects, _ = linear_decoder(family)
    found = heat("hirescam", lvlm, episode).ravel()
    np.testing.assert_allclose(found, np.maximum(effects, 0), atol=1e-3 * np.abs(effects).max())
    assert (effects < 0).any()


def test_maps_equal_autograd(lvlm: Any, episode: Any) -> None:
    """Of what attention reads, caught at the norm by another hook; and before the norm there is nothing to see."""
    seen = []
    handle = lvlm.layers[-1].input_layernorm.register_forward_hook(lambda m, a, out: seen.append(out))
    score = lvlm.response_log_probs(episode, lvlm.model_inputs(episode)).sum()
    (gradient,) = torch.autograd.grad(score, seen)
    handle.remove()
    positions = list(episode.image_positions)
    h, g = seen[0][0, positions].detach().double().numpy(), gradient[0, positions].double().numpy()
    shape, last = (episode.grid.rows, episode.grid.cols), len(lvlm.layers) - 1
    share = np.divide((g * h).sum(0), h.sum(0))
    kept = np.abs(h.sum(0)) > 0.01 * np.abs(h).sum(0)
    for name, expected in (
        ("hirescam", np.einsum("pd,pd->p", h, g)),
        ("layercam", np.einsum("pd,pd->p", h, np.where(g > 0, g, 0))),
        ("xgradcam", h[:, kept] @ share[kept]),
    ):
        if name == "xgradcam" and not kept.all():
            continue
        found = heat(name, lvlm, episode, normed=True)
        assert expected.max() > 0
        np.testing.assert_allclose(found, np.maximum(expected, 0).reshape(shape), atol=1e-4 * np.abs(expected).max())
    raw, slopes = (t[positions].double().numpy() for t in whitebox.hidden_gradients(lvlm, episode, [last])[last])
    sizes = np.linalg.norm(raw, axis=1) * np.linalg.norm(slopes, axis=1)
    assert np.abs(hirescam_values(raw, slopes)).max() < 0.01 * sizes.max()
    assert np.abs(np.einsum("pd,pd->p", h, g)).max() > 0.01 * sizes.max()


def test_a_state_that_nothing_reads_is_refused(lvlm: Any, episode: Any) -> None:
    last = len(lvlm.layers)
    for name in NAMES:
        for layer in (last, -1):
            with pytest.raises(MethodError, match="exactly zero"):
                heat(name, lvlm, episode, layer=layer)
    with pytest.raises(LvlmError, match="no layer"):
        whitebox.hidden_gradients(lvlm, episode, [last], read=True)


def test_masks_are_the_channels_that_vary_most() -> None:
    states = np.array([[0.0, 5, 1, -3], [1, 5, 9, -5], [2, 5, 5, -1]])  # variances 2/3, 0, 32/3, 8/3
    np.testing.assert_allclose(channel_masks(states, 2), [[0, 0.5], [1, 0], [0.5, 1]])
    assert channel_masks(states, 9).shape == (3, 3)  # what does not vary is no mask


def quadrant_masks() -> np.ndarray:
    """The four quadrants of the kit's 8 x 8 board as channels, (64, 4)."""
    board = np.kron(np.arange(4).reshape(2, 2), np.ones((4, 4), int)).ravel()
    return np.eye(4)[board]


def test_scores_weigh_the_channels_in_games() -> None:
    """Masks are enlarged bilinearly: a quadrant keeps 31/32 of its side and shows 1/32 of the next."""
    masks, board = quadrant_masks(), white_episode()
    own = np.array([[31, 1], [1, 31]]) / 32
    shown = np.kron(own, own)  # how much of each quadrant shows through each mask

    def weights(game: Any) -> np.ndarray:
        return score_weights(Player(game), board, masks, "black")  # type: ignore[arg-type]

    raised = np.exp(shown @ WEIGHTS)
    np.testing.assert_allclose(weights(ADDITIVE), raised / raised.sum(), atol=1e-3)
    both, either = np.exp(shown[:, 0] * shown[:, 1]), np.exp(shown[:, :2].max(1))
    np.testing.assert_allclose(weights(AND), both / both.sum(), atol=1e-3)
    np.testing.assert_allclose(weights(OR), either / either.sum(), atol=1e-3)
    assert weights(OR)[:2].min() > weights(OR)[2:].max()  # it finds what either of two regions would do
    assert not weights(dead).any()


def test_scores_weigh_as_in_grad_cam(golden: Any) -> None:
    """Its network on eight by eight grey levels; ours are rounded to whole ones under the masks."""
    kernel, head = torch.as_tensor(golden["kernel"]), torch.as_tensor(golden["head"])

    def second(image: np.ndarray) -> float:
        grey = torch.as_tensor(image if image.ndim == 2 else image[..., 0])[None, None] / 255
        layer = torch.nn.functional.conv2d(grey, kernel, torch.as_tensor(golden["bias"]), padding=1)
        return float(head[1] @ torch.tanh(2 * layer).flatten() + golden["head_bias"][1])

    states = golden["states"]
    episode = of_image(golden["image"].astype(np.uint8))
    order = np.argsort(-states.var(0), kind="stable")
    found = score_weights(Player(second), episode, channel_masks(states, 9), "black")  # type: ignore[arg-type]
    expected = golden["score_weights"][order]
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_newlines_are_no_component() -> None:
    """Tokens between tiles that see nothing lie farther out than any other, and would be all that is found."""
    from medground_bench.lvlm.model import Lvlm
    from medground_bench.lvlm.testing import generic_parts

    lvlm = Lvlm.from_parts(*generic_parts("llava_next"), key="llava_next")
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(pixels), "Is there evidence of cardiomegaly in the image?", "Yes")
    blind = [k for k, box in enumerate(episode.grid.boxes) if box is None]
    ((_, states),) = whitebox.hidden_states(lvlm, episode, [-2]).items()
    held = states[list(episode.image_positions)].double().numpy()
    everything, _ = first_component(held, True)
    assert int(np.argmax(everything)) in blind
    seen, _ = first_component(np.delete(held, blind, axis=0), True)
    expected = np.zeros(len(held))
    expected[np.delete(np.arange(len(held)), blind)] = np.maximum(seen, 0)
    found = heat("eigencam", lvlm, episode)
    np.testing.assert_allclose(found, episode.grid.as_map(expected), atol=1e-6 * expected.max())
    assert np.ptp(found) > 0
