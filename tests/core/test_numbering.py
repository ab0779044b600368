from __future__ import annotations

import random

from medground_bench.core.numbering import Numbering


def test_it_is_a_dict() -> None:
    rng = random.Random(0)
    texts = [f"{rng.randrange(3000)}/ö\0{'x' * rng.randrange(3)}" for _ in range(8000)]
    mine, known = Numbering(), dict[str, int]()
    for text in texts:
        assert mine.get(text) == known.get(text)
        assert mine.number(text) == known.setdefault(text, len(known))
    assert len(mine) == len(known) > 2000  # the table has grown, twice
    assert [mine.get(text) for text in known] == list(known.values())
    assert mine.get("other") is None


def test_a_number_of_ones_own() -> None:
    lines = Numbering(["a", "b"])
    assert lines.number("c", 70) == 70
    assert lines.number("c", 71) == 70
    assert lines.number("d") == 3
    assert (lines.get("a"), lines.get("b"), lines.get("c")) == (0, 1, 70)


def test_half_a_character_is_an_id_too() -> None:
    assert Numbering(["\ud800"]).get("\ud800") == 0


def test_texts_of_one_slot_are_told_apart() -> None:
    full = Numbering(str(k) for k in range(600))
    slots = {low & 1023 for low in full._low if low}
    assert len(slots) < 600  # some share the slot that they would like to have
    assert [full.get(str(k)) for k in range(600)] == list(range(600))
