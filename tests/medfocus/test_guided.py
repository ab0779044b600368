"""Regions of a relevance map, chosen by what removing them does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medfocus.guided import medfocus_guided
from medground_bench.attribution.fills import remove
from medground_bench.attribution.method import Attribution, get_method, method
from medground_bench.attribution.regions import box_masks
from medground_bench.core.errors import MedGroundError, MethodError
from medground_bench.imaging.levels import level_regions
from tests.medfocus.test_minimal import Planted, area, episode_of

if TYPE_CHECKING:
    from medfocus import ReferencePool


@pytest.fixture(scope="module")
def folder(small_pool: ReferencePool, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_pool.to_folder(tmp_path_factory.mktemp("pools") / "small"))


def hill(episode: Any, x: float, y: float, width: float) -> np.ndarray:
    rows, cols = np.mgrid[: episode.frame_array.shape[0], : episode.frame_array.shape[1]]
    return np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / (2 * width**2))


@pytest.fixture
def maps(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Method -> map: what the relevance method of a test says."""
    given: dict[str, Any] = {}

    @method("given", family="test")
    def say(lvlm: Any, episode: Any, parameters: Any) -> Any:
        found = given["map"]
        return Attribution(boxes=[], heatmap=found) if found is not None else Attribution(boxes=[(0, 0, 9, 9)])

    monkeypatch.setattr("medfocus.guided.get_method", lambda name: say if name == "given" else get_method(name))
    return given


def run(folder: str, lvlm: Any, episode: Any, **settings: Any) -> Any:
    still = {
        "relevance": "given",
        "fills": ("black",),
        "temperature": 0.0,
        "pool": folder,
        "cache": "none",
    }
    options = {**still, **settings}
    return medfocus_guided.run(lvlm, episode, medfocus_guided.make_parameters(options))


def test_is_registered() -> None:
    assert get_method("medfocus_guided") is medfocus_guided
    assert medfocus_guided.signed  # as the maps that it passes on: what has heat is their positive part


def test_the_smallest_level_that_is_needed_is_taken(folder: str, chest: np.ndarray, maps: dict[str, Any]) -> None:
    """Evidence of 30 x 30 under a hill: too high a level leaves some of it, too low a one pays for its area."""
    episode, box = episode_of(chest), (95, 100, 125, 130)
    maps["map"] = hill(episode, 110, 115, 14)
    lvlm = Planted(box)
    result = run(folder, lvlm, episode)
    (found,) = episode.letterbox.to_frame(result.boxes)
    scores = {
        level: level_regions(maps["map"], [level], 0.3)[0][0] for level in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65)
    }
    smallest = min((b for b in scores.values() if b[0] <= box[0] and b[2] >= box[2]), key=lambda b: area([b]))
    assert found == pytest.approx(smallest)
    assert lvlm.images == result.extras["passes"] == 2 + len(result.extras["candidates"])
    for boxes, (needed,) in result.extras["candidates"]:
        (candidate,) = episode.letterbox.to_frame(boxes)
        assert (needed == pytest.approx(1)) == (candidate[0] <= box[0] and candidate[2] >= box[2])
    first, second = result.token_scores
    assert (second, first + second) == (pytest.approx(3 * first), pytest.approx(lvlm.weight))
    assert result.concept == max(result.concept_scores, key=result.concept_scores.__getitem__)
    assert 0 < max(result.concept_scores.values()) <= lvlm.weight + 1e-9
    assert result.heatmap is maps["map"]
    assert area(run(folder, Planted(box), episode, price=100.0).boxes) < area(result.boxes)
    middle = run(folder, Planted(box), episode, temperature=1e9)  # all count the same: nested, so one between them
    sizes = [area([tuple(b) for b in boxes]) for boxes, _ in result.extras["candidates"]]
    assert min(sizes) < area(middle.boxes) < max(sizes)


def test_every_fill_counts_the_same(folder: str, chest: np.ndarray, maps: dict[str, Any]) -> None:
    """By black alone the smaller of two regions is as needed; a continuation leaves less of it where more is gone."""
    episode, box = episode_of(chest), (95, 100, 125, 130)
    maps["map"] = hill(episode, 110, 115, 14)
    lvlm = Planted(box)
    result = run(folder, lvlm, episode, fills=("black", "around"), levels=(0.05, 0.3))
    assert lvlm.images == result.extras["passes"] == 2 + 2 * 2
    for boxes, (black, around) in result.extras["candidates"]:
        (frame_box,) = episode.letterbox.to_frame(boxes)
        mask = box_masks([frame_box], *episode.frame_array.shape[:2])
        left = lvlm.log_probs(episode, remove("around", episode, mask)).sum()
        assert black == pytest.approx(1)
        assert around == pytest.approx(np.clip(-left / lvlm.weight, 0, 1))
        assert around < 0.5
    assert sum(result.token_scores) == pytest.approx(lvlm.weight)  # by the first
    two = {"levels": (0.3, 0.5), "price": 0.1}
    both = run(folder, lvlm, episode, fills=("black", "around"), **two)
    (larger, needed), (smaller, less) = both.extras["candidates"]
    saved = 0.1 * np.log(area([tuple(larger[0])]) / area([tuple(smaller[0])]))
    assert needed[0] == pytest.approx(less[0])
    assert np.mean(needed) - np.mean(less) > saved > 0
    assert [list(b) for b in both.boxes] == larger
    assert [list(b) for b in run(folder, lvlm, episode, fills=("black",), **two).boxes] == smaller


def test_the_maps_own_parameters(folder: str, chest: np.ndarray, maps: dict[str, Any]) -> None:
    episode = episode_of(chest)
    maps["map"] = hill(episode, 110, 115, 14)
    with pytest.raises(MethodError, match="no parameter shifts"):
        run(folder, Planted((95, 100, 125, 130)), episode, relevance="given shifts=2")
    with pytest.raises(MedGroundError, match="NAME=VALUE"):
        run(folder, Planted((95, 100, 125, 130)), episode, relevance="given shifts")


def test_two_parts_may_belong_together(folder: str, chest: np.ndarray, maps: dict[str, Any]) -> None:
    episode = episode_of(chest)
    maps["map"] = hill(episode, 60, 110, 8) + 0.8 * hill(episode, 170, 110, 8)
    boxes = (50, 100, 70, 120), (160, 100, 180, 120)  # redundant: the answer stays while one of them is there
    assert len(run(folder, Planted(*boxes), episode).boxes) == 2
    assert len(run(folder, Planted(boxes[0]), episode, together=1.0).boxes) == 1


def test_maps_that_say_nothing(folder: str, chest: np.ndarray, maps: dict[str, Any]) -> None:
    episode = episode_of(chest)
    whole = (0.0, 0.0, float(episode.letterbox.width), float(episode.letterbox.height))
    maps["map"] = np.zeros((16, 16))
    empty = run(folder, Planted((1, 1, 9, 9)), episode)
    assert (empty.degenerate, list(empty.boxes)) == (True, [whole])
    maps["map"] = hill(episode, 110, 110, 9)
    blind = run(folder, Planted((95, 100, 125, 130), weight=0.0), episode)
    assert (blind.fallback, list(blind.boxes)) == (True, [whole])
    maps["map"] = None
    with pytest.raises(MethodError, match="makes no heat map"):
        run(folder, Planted((1, 1, 9, 9)), episode)


@pytest.mark.parametrize(
    "wrong",
    [
        {"relevance": " "},
        {"levels": ()},
        {"levels": (0.0, 0.5)},
        {"levels": (1.0,)},
        {"together": 0.0},
        {"price": -1},
        {"fills": ()},
        {"fills": ("blur", "x")},
        {"fills": ("around",)},
        {"temperature": -1},
    ],
)
def test_wrong_parameters(wrong: dict[str, Any]) -> None:
    with pytest.raises(MethodError):
        medfocus_guided.make_parameters(wrong)
