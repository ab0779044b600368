from __future__ import annotations

import pytest

from medground_bench.core.errors import MedGroundError
from medground_bench.core.settings import parse_settings_for, parse_settings_of, require_same


def test_what_went_through_json_is_the_same() -> None:
    require_same("the parts", {"side": 224, "box": [1, 2]}, {"box": (1, 2), "side": 224}, where="run.json")


def test_every_difference_is_named_with_both_values() -> None:
    with pytest.raises(MedGroundError, match="the parts were made with other settings") as caught:
        require_same("the parts", {"side": 224, "gone": 1, "same": 0}, {"side": None, "new": "x", "same": 0}, where="r")
    assert "gone was 1, is None; new was None, is 'x'; side was 224, is None" in str(caught.value)
    assert "same" not in str(caught.value).replace("same options", "")
    assert caught.value.where == "r"


OWNERS = {"occlusion": ["rows", "cols"], "rise": ["seed", "masks"], "lime": ["seed"]}


def test_a_setting_for_all_goes_to_those_that_have_it() -> None:
    given = ["seed=3", "rise.seed=4", "occlusion.rows=2", 'rise.masks="many"']
    assert parse_settings_of(OWNERS, given) == {
        "occlusion": {"rows": 2},
        "rise": {"seed": 4, "masks": "many"},
        "lime": {"seed": 3},
    }
    assert parse_settings_of(OWNERS, ["rise.seed=4", "seed=3"])["rise"] == {"seed": 4}, "the order does not matter"
    assert parse_settings_for("radedit", ["steps=50", "radedit.dtype=float16"]) == {"steps": 50, "dtype": "float16"}


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("sed=3", "did you mean 'seed'"),
        ("oclusion.rows=3", "did you mean 'occlusion'"),
        ("rows", "NAME=VALUE"),
        ("=3", "NAME=VALUE"),
    ],
)
def test_what_is_meant_is_guessed(pair: str, said: str) -> None:
    with pytest.raises(MedGroundError) as caught:
        parse_settings_of(OWNERS, [pair])
    assert said in str(caught.value)


def test_the_settings_of_one() -> None:
    with pytest.raises(MedGroundError, match="no 'inpaint' runs here"):
        parse_settings_for("radedit", ["inpaint.steps=50"])
