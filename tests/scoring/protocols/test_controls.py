"""Evidence as a submission is near the top of every protocol on faithfulness; what knows nothing is at chance.

The world is one in which the answer rests on a bright spot of each record and on nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medground_bench.scoring.protocols.protocol import get_protocol
from tests.scoring.protocols.kit import SIDE, World, run, world
from tests.scoring.protocols.test_necessity import Black

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.result import ProtocolResult

RECORDS, SIZE = 16, 14  # patients; pixels of the spot, two tiles of seven

CLAIMS: Mapping[str, tuple[str, float, dict[str, Any]]] = {
    "necessity": ("necessity_gain_blur", 0.8, {"draws": 5}),
    "necessity_edited": ("flip_gain", 0.8, {"draws": 5}),
    "deletion": ("skill", 0.85, {"steps": 16, "randoms": 2}),
    "road": ("gap", 0.9, {"shares": (0.1, 0.3, 0.5)}),
    "sensitivity_n": ("correlation", 0.95, {"sets": 40, "sizes": (4, 16)}),
    "infidelity": ("infidelity", 0.05, {"sets": 40}),
    "hallucination": ("share", 0.1, {"steps": 16}),
}
"""Protocol -> the measure in front, what the evidence must reach, and settings that are cheap."""

SILENT = {"completeness": "it judges the sum of a signed map, which boxes do not have"}


def place(k: int) -> tuple[int, int]:
    rng = np.random.default_rng(100 + k)
    return 7 * int(rng.integers(1, 5)), 7 * int(rng.integers(1, 5))


def spot(k: int) -> np.ndarray:
    pixels = np.random.default_rng(k).integers(20, 60, (SIDE, SIDE), dtype=np.uint8)
    x, y = place(k)
    pixels[y : y + SIZE, x : x + SIZE] = 250
    return pixels


def seen(frame: np.ndarray, question: str) -> float:
    """How much of the spot is left, from one in twenty to nineteen."""
    return 0.05 + 0.9 * min(1.0, float((frame > 230).sum()) / SIZE**2)


def evidence(k: int) -> list[list[float]]:
    x, y = place(k)
    return [[float(x), float(y), float(x + SIZE), float(y + SIZE)]]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("controls"), seen, n=RECORDS, image=spot, boxes=evidence)


@pytest.fixture(scope="module")
def submissions(board: World) -> dict[str, Path]:
    rng = np.random.default_rng(7)

    def inside(record: Any) -> np.ndarray:
        heat = np.zeros((8, 8))
        x1, y1, x2, y2 = (int(v) // 7 for v in record.boxes[0])
        heat[y1:y2, x1:x2] = 1
        return heat

    def anywhere(record: Any) -> list[list[float]]:
        x, y = rng.uniform(0, SIDE - SIZE, 2)
        return [[x, y, x + SIZE, y + SIZE]]

    return {
        "truth": board.submit("truth", lambda r: r.boxes, inside),
        # Signed, so that it does not know how many cells a set has.
        "random": board.submit("random", anywhere, lambda r: rng.normal(size=(8, 8)), signed=True),
        "constant": board.submit("constant", lambda r: [[0, 0, SIDE, SIDE]], lambda r: np.ones((8, 8))),
    }


def found(board: World, path: Path, name: str) -> ProtocolResult:
    return run(board, path, name, CLAIMS[name][2], editor=Black())


def test_none_is_forgotten() -> None:
    """Those of the guide's sections on faithfulness, and the least share that turns an answer."""
    guide = (Path(__file__).parents[3] / "docs" / "protocols.md").read_text()
    sections = guide[guide.index("## Is the region needed") : guide.index("## Would the map be there")]
    named = set(re.findall(r"^\*\*`(\w+)`\*\*", sections, re.M))
    assert named | {"hallucination"} == set(CLAIMS) | set(SILENT)
    assert all(get_protocol(name).measures[0].name == measure for name, (measure, _, _) in CLAIMS.items())


@pytest.mark.parametrize("name", CLAIMS)
def test_evidence_is_near_the_top(board: World, submissions: dict[str, Path], name: str) -> None:
    measure, reached, _ = CLAIMS[name]
    whole = found(board, submissions["truth"], name).find()
    assert whole is not None
    assert whole.records == RECORDS
    low = get_protocol(name).measures[0].better == "low"
    assert (whole.values[measure].value <= reached) if low else (whole.values[measure].value >= reached)


@pytest.mark.parametrize("name", CLAIMS)
def test_random_is_at_chance(board: World, submissions: dict[str, Path], name: str) -> None:
    measure = get_protocol(name).measures[0]
    result = found(board, submissions["random"], name)
    if isinstance(measure.chance, str):  # a measure beside it, of the same records
        differences = result.values[measure.name] - result.values[measure.chance]
        assert abs(differences.mean()) < 3 * differences.std(ddof=1) / np.sqrt(RECORDS)
        return
    whole = result.find()
    assert whole is not None
    value, low, high = whole.values[measure.name]
    assert measure.chance is not None
    if name == "infidelity":  # the scale fits best: a little is always explained
        assert 0.9 < value <= measure.chance
    else:
        assert low <= measure.chance <= high
        assert abs(value - measure.chance) < 0.15


@pytest.mark.parametrize("name", CLAIMS)
def test_constant_is_at_chance_or_says_nothing(board: World, submissions: dict[str, Path], name: str) -> None:
    measure = get_protocol(name).measures[0]
    result = found(board, submissions["constant"], name)
    if "heatmaps" in get_protocol(name).needs:
        assert result.find() is None
        assert result.skipped == {"a constant heat map, or one that is not finite": RECORDS}
    else:
        whole = result.find()
        assert whole is not None
        assert whole.values[measure.name].value == pytest.approx(measure.chance, abs=1e-9)
