"""Set-of-Mark prompting with scripted replies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("medfocus")

from baselines.shared.marks import draw_marks, read_numbers
from medground_bench.attribution.method import get_method
from medground_bench.lvlm import Generated
from medground_bench.sources.phantom import sample_phantom
from tests.baselines.prompting.conversation import QUESTION


def chest(lvlm: Any) -> Any:
    image = Image.fromarray(np.asarray(sample_phantom(3, size=300).image))
    return lvlm.prepare(image, QUESTION, "Yes")


def scripted(monkeypatch: pytest.MonkeyPatch, lvlm: Any, again: str, reply: str) -> list[Any]:
    asked: list[Any] = []

    def generate(images: Any, questions: Any, max_new_tokens: int, *, side: Any) -> list[Generated]:
        asked.append((images, questions))
        return [Generated(again if len(asked) == 1 else reply)]

    monkeypatch.setattr(lvlm, "generate", generate)
    return asked


def test_named_regions_become_boxes_in_order(monkeypatch: pytest.MonkeyPatch, qwen: Any) -> None:
    episode = chest(qwen)
    asked = scripted(monkeypatch, qwen, "Yes", "[6, 1, 6, 99]")
    found = get_method("som_prompting").run(qwen, episode)
    assert found.extras["named"] == ["left lung, lower third", "right lung, upper third"]
    assert (found.extras["ignored"], found.extras["answer_kept"]) == (2, True)
    first, second = found.boxes
    assert first[0] > 150 > second[2] - 20  # the patient's left is on the right of the picture
    assert first[1] > second[3]
    ((again,), (question,)), ((marked,), (turns,)) = asked
    assert question == QUESTION
    assert again is marked
    assert turns[:2] == [QUESTION, "Yes"]
    assert "from 1 to 7" in turns[2]
    changed = (np.array(marked) != np.array(episode.frame)).any(-1)
    assert 0.005 < changed.mean() < 0.2


@pytest.mark.parametrize("reply", ["I cannot tell.", "[]", "[0, 40]", "<think>1 or 2?</think> []"])
def test_no_known_number_is_a_fallback(monkeypatch: pytest.MonkeyPatch, qwen: Any, reply: str) -> None:
    episode = chest(qwen)
    scripted(monkeypatch, qwen, "No", reply)
    found = get_method("som_prompting").run(qwen, episode)
    assert found.fallback
    assert found.boxes == [(0.0, 0.0, 300.0, 300.0)]
    assert not found.extras["answer_kept"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("[2, 1]", ([2, 1], 0)),
        ("Regions 3 and 1, mostly 3.", ([3, 1], 1)),
        ("Of the 7 regions: [2]", ([2], 0)),
        ("[5, 2]", ([2], 1)),
        ("0.25 of it", ([], 0)),
    ],
)
def test_numbers(reply: str, expected: Any) -> None:
    assert read_numbers(reply, 4) == expected


def test_marks_outline_and_leave_the_inside() -> None:
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True
    drawn = np.array(draw_marks(Image.new("RGB", (60, 60), (9, 9, 9)), [mask]))
    assert (drawn[10, 10:50] == (255, 210, 0)).all()
    assert (drawn[12:18, 12:18] == 9).all()
    assert (drawn[:9] == 9).all()
    assert (drawn[25:35, 25:35] != 9).any()  # the number
