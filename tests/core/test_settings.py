from __future__ import annotations

import pytest

from medground_bench.core.errors import MedGroundError
from medground_bench.core.settings import require_same


def test_what_went_through_json_is_the_same() -> None:
    require_same("the parts", {"side": 224, "box": [1, 2]}, {"box": (1, 2), "side": 224}, where="run.json")


def test_every_difference_is_named_with_both_values() -> None:
    with pytest.raises(MedGroundError, match="the parts were made with other settings") as caught:
        require_same("the parts", {"side": 224, "gone": 1, "same": 0}, {"side": None, "new": "x", "same": 0}, where="r")
    assert "gone was 1, is None; new was None, is 'x'; side was 224, is None" in str(caught.value)
    assert "same" not in str(caught.value).replace("same options", "")
    assert caught.value.where == "r"
