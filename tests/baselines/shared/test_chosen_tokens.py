"""Which tokens of a response are explained, and that methods explain those alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from baselines.shared.chosen_tokens import answer_tokens, chosen_tokens, opposite_verdict  # noqa: E402
from medground_bench.attribution.method import get_method  # noqa: E402
from medground_bench.core.errors import MethodError  # noqa: E402
from tests.baselines.kit import Player, quadrants, white_episode  # noqa: E402

REASONING = "The left costophrenic angle is blunted. The answer is yes."
METHODS = ("tam", "dex_ar", "eagle", "igos_plus", "ifr_two_hop")


def test_the_opposite_of_a_verdict() -> None:
    told = {"Yes": "No", " no.": " yes.", "NO": "YES", "No doubt: yes": "No doubt: no", "maybe, nowhere": None}
    assert {text: opposite_verdict(text) for text in told} == told


@pytest.mark.parametrize("name", METHODS)
def test_the_choice_is_checked(name: str) -> None:
    with pytest.raises(MethodError, match="tokens must be one of all, answer, keywords"):
        get_method(name).make_parameters({"tokens": "some"})


@pytest.fixture(scope="module")
def case() -> Any:
    from medground_bench.lvlm.testing import tiny_qwen

    lvlm = tiny_qwen(3)
    pixels = np.random.default_rng(0).integers(0, 256, (84, 112), dtype=np.uint8)
    return lvlm, lvlm.prepare(Image.fromarray(pixels), "Is there evidence of x in the image?", REASONING, side=None)


def run(case: Any, name: str, **options: Any) -> Any:
    lvlm, episode = case
    method = get_method(name)
    return method.run(lvlm, episode, method.make_parameters(options))


def test_keywords_are_those_of_the_blurred_frame(case: Any) -> None:
    from medground_bench.attribution.fills import fill_frame

    lvlm, episode = case
    full, blurred = lvlm.log_probs(episode, [episode.frame_array, fill_frame("blur", episode)])
    expected = np.flatnonzero(full - blurred > 1)
    if not len(expected):
        expected = np.array([np.argmax(np.exp(full) - np.exp(blurred))])
    assert chosen_tokens(lvlm, episode, "keywords") == expected.tolist()
    assert chosen_tokens(lvlm, episode, "all") == list(range(len(episode.tokens)))


def test_tam_averages_the_chosen_tokens(case: Any) -> None:
    """What all tokens sum to is what the verdict's and the others' sum to."""
    from dataclasses import replace

    lvlm, episode = case
    count, answer = len(episode.tokens), answer_tokens([t.text for t in episode.tokens])
    rest = [t for t in range(count) if t not in answer]
    whole, chosen = (np.asarray(run(case, "tam", tokens=w).heatmap) for w in ("all", "answer"))
    others = replace(episode, tokens=tuple(episode.tokens[t] for t in rest), rows=tuple(episode.rows[t] for t in rest))
    left = np.asarray(get_method("tam").run(lvlm, others).heatmap)
    np.testing.assert_allclose(count * whole, len(answer) * chosen + len(rest) * left, rtol=1e-4)


def test_dex_ar_weighs_the_chosen_tokens_alone(case: Any) -> None:
    answer = answer_tokens([t.text for t in case[1].tokens])
    whole, chosen = run(case, "dex_ar"), run(case, "dex_ar", tokens="answer")
    expected = np.where(np.isin(np.arange(len(case[1].tokens)), answer), whole.token_scores, 0)
    np.testing.assert_allclose(chosen.token_scores, expected)


def test_with_all_tokens_in_the_answer_there_is_one_hop(case: Any) -> None:
    one, two = (np.asarray(found.heatmap) for found in (run(case, "ifr"), run(case, "ifr_two_hop", tokens="all")))
    np.testing.assert_array_equal(one, two)
    assert not np.allclose(one, run(case, "ifr_two_hop").heatmap)


def test_eagle_searches_for_the_chosen_tokens() -> None:
    """Of two tokens the first looks at the upper left quadrant; the second, the verdict, at the lower right."""

    class Split(Player):
        def log_probs(self, episode: Any, images: Any, **_: Any) -> np.ndarray:
            z = np.array([quadrants(np.asarray(image, float)) / 255 for image in images])
            return np.stack([2 * z[:, 0] - 2, z[:, 3] - 1], axis=1)

    from dataclasses import replace

    from medground_bench.lvlm.episode import ResponseToken

    episode = replace(white_episode(), tokens=(ResponseToken(0, "So:"), ResponseToken(1, " yes")))
    method, player = get_method("eagle"), Split(lambda image: 0.0)
    first: list[int] = []
    for which in ("all", "answer"):
        parameters = method.make_parameters({"regions": "tiles:2x2", "tokens": which})
        found = method.run(player, episode, parameters)  # type: ignore[arg-type]
        first.append(found.extras["order"][0])
        # Each token's curve as quadrants appear: it jumps from exp(-2) (or exp(-1)) to 1 with its own one.
        order = found.extras["order"]
        expected = []
        for own, least in ((0, np.exp(-2)), (3, np.exp(-1))):
            curve = np.where(np.arange(5) > order.index(own), 1.0, least)
            expected.append(np.trapezoid(curve) / 4 - least)
        np.testing.assert_allclose(found.extras["image_influence"], expected, atol=1e-9)
    assert first == [0, 3]
