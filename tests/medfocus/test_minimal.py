"""The minimal causal region on LVLMs with planted evidence: what is found, what it costs, what it returns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medfocus import AnatomyLocalizer, ReferencePool
from medfocus.minimal import MinimalParameters, RegionSearch, medfocus_minimal, shrunk, trimmed
from medground_bench.attribution.method import get_method
from medground_bench.core.anatomy import CONCEPTS
from medground_bench.core.errors import MethodError
from medground_bench.imaging import Letterbox

_WRONG: list[dict[str, Any]] = [
    {"share": 0.0},
    {"share": 1.2},
    {"enlarge": 0.9},
    {"budget": -1},
    {"boxes": 0},
    {"margin": 0.5},
    {"starts": 0},
    {"search": "random"},
    {"vocabulary": "organs"},
]


class Planted:
    """Two tokens; the log-probability falls with the share of the boxes' brightness that is gone, of the worst box."""

    def __init__(self, *boxes: tuple[int, int, int, int], weight: float = 6.0) -> None:
        self.boxes, self.weight, self.images = boxes, weight, 0

    def log_probs(self, episode: Any, images: Any) -> np.ndarray:
        self.images += len(images)
        left = []
        for x1, y1, x2, y2 in self.boxes:
            whole = episode.frame_array[y1:y2, x1:x2].astype(float).sum()
            left.append([np.asarray(image)[y1:y2, x1:x2].astype(float).sum() / whole for image in images])
        gone = 1 - np.max(left, axis=0)  # a box that is left speaks for all: they are redundant
        return -self.weight * gone[:, None] * np.array([0.25, 0.75])


def episode_of(pixels: np.ndarray) -> Any:
    image = Image.fromarray(pixels)
    letterbox = Letterbox.fit(*image.size)
    frame = letterbox.apply(image)
    return SimpleNamespace(image=image, frame=frame, letterbox=letterbox, frame_array=np.asarray(frame))


@pytest.fixture
def flat() -> Any:
    """A grey 224-pixel image, where brightness is area."""
    return episode_of(np.full((224, 224), 100, np.uint8))


def search_for(lvlm: Any, episode: Any, budget: int = 500) -> RegionSearch:
    return RegionSearch(lvlm, episode, np.zeros(2), "black", budget)


def covered(region: Any, box: tuple[int, int, int, int]) -> float:
    """Share of a box under the region's first box."""
    x1, y1, x2, y2 = region[0]
    width, height = min(x2, box[2]) - max(x1, box[0]), min(y2, box[3]) - max(y1, box[1])
    return max(width, 0) * max(height, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


def area(region: Any) -> float:
    return sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in region)


class TestSearch:
    @pytest.mark.parametrize("box", [(60, 80, 100, 110), (20, 20, 50, 90), (140, 150, 180, 200)])
    def test_what_is_left_covers_the_evidence_and_little_else(self, flat: Any, box: Any):
        search = search_for(Planted(box), flat)
        region = trimmed(search, ((0.0, 0.0, 224.0, 224.0),), 0.9 * 6)
        assert covered(region, box) >= 0.85  # pixels count whole
        assert area(region) < 2.0 * area([box])
        # Nothing more can be cut: every cut of the last batch loses too much.
        assert all(effect < 0.9 * 6 for _, effect in search.trace[-4:])

    def test_the_budget_is_kept_and_more_of_it_never_gives_a_larger_region(self, flat: Any):
        box, areas = (60, 80, 100, 110), []
        for budget in (0, 3, 4, 12, 30, 60, 500):
            lvlm = Planted(box)
            region = trimmed(search_for(lvlm, flat, budget), ((0.0, 0.0, 224.0, 224.0),), 5.4)
            assert lvlm.images <= budget
            areas.append(area(region))
        assert areas == sorted(areas, reverse=True)
        assert areas[0] == areas[1] == 224**2 > areas[2] > areas[-1]

    def test_a_box_that_adds_nothing_is_dropped(self, flat: Any):
        start = ((20.0, 40.0, 90.0, 180.0), (130.0, 40.0, 200.0, 180.0))
        region = trimmed(search_for(Planted((30, 60, 60, 90)), flat), start, 5.4)
        assert len(region) == 1
        assert covered(region, (30, 60, 60, 90)) >= 0.85  # pixels count whole

    def test_redundant_evidence_on_both_sides_keeps_both_boxes(self, flat: Any):
        left, right = (30, 60, 60, 90), (150, 100, 180, 130)
        start = ((20.0, 40.0, 90.0, 180.0), (130.0, 40.0, 200.0, 180.0))
        region = trimmed(search_for(Planted(left, right), flat), start, 5.4)
        assert len(region) == 2
        assert covered(region[:1], left) >= 0.85
        assert covered(region[1:], right) >= 0.85  # pixels count whole
        assert area(region) < 0.3 * area(start)

    def test_the_heat_map_is_highest_on_the_evidence(self, flat: Any):
        box = (60, 80, 100, 110)
        search = search_for(Planted(box), flat)
        assert not search.heatmap(0.5).any()
        trimmed(search, ((0.0, 0.0, 224.0, 224.0),), 5.4)
        heat = search.heatmap(0.9)
        assert heat.shape == (224, 224)
        inside = heat[85:105, 65:95]
        assert inside.min() > 0.8 * heat.max()
        assert heat[:20].max() < 0.5 * heat.max()

    @pytest.mark.parametrize("rule", [trimmed, shrunk])
    def test_no_region_is_seen_twice(self, flat: Any, rule: Any):
        lvlm = Planted((60, 80, 100, 110))
        search = search_for(lvlm, flat)
        rule(search, ((0.0, 0.0, 224.0, 224.0),), 5.4)
        assert len({region for region, _ in search.trace}) == len(search.trace) == lvlm.images
        assert search.effects([search.trace[0][0]] * 2).tolist() == [search.trace[0][1]] * 2  # type: ignore[union-attr]
        assert lvlm.images == len(search.trace)

    def test_the_queue_ends_at_about_as_small_a_region(self, flat: Any):
        box = (60, 80, 100, 110)
        start = ((0.0, 0.0, 224.0, 224.0),)
        one = trimmed(search_for(Planted(box), flat), start, 0.9 * 6)
        two = shrunk(search_for(Planted(box), flat), start, 0.9 * 6)
        assert covered(two, box) >= 0.85
        assert area(two) <= 1.1 * area(one)

    @pytest.mark.parametrize("rule", [trimmed, shrunk])
    def test_progress_tells_the_best_region_at_every_budget(self, flat: Any, rule: Any):
        box, start = (60, 80, 100, 110), ((0.0, 0.0, 224.0, 224.0),)
        whole = search_for(Planted(box), flat)
        rule(whole, start, 5.4)
        areas = [area(region) for _, region in whole.progress]
        assert areas == sorted(areas, reverse=True)
        for budget in (0, 10, 25):
            cut_short = rule(search_for(Planted(box), flat, budget), start, 5.4)
            assert cut_short == [region for passes, region in whole.progress if passes <= budget][-1]


@pytest.fixture(scope="module")
def folder(small_pool: ReferencePool, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_pool.to_folder(tmp_path_factory.mktemp("pools") / "small"))


class TestMethod:
    @pytest.fixture
    def planted(self, chest: np.ndarray, small_pool: ReferencePool) -> Any:
        """An episode, and evidence in the middle of the lower zone of the left lung."""
        episode = episode_of(chest)
        box = episode.letterbox.to_frame([AnatomyLocalizer(small_pool).localise(chest).boxes["left lung"]])[0]
        x, y = (box[0] + box[2]) / 2, box[1] + (box[3] - box[1]) * 5 / 6
        return episode, (round(x - 7), round(y - 6), round(x + 7), round(y + 6))

    def run(self, folder: str, lvlm: Any, episode: Any, **settings: Any) -> Any:
        given = {"pool": folder, "cache": "none", **settings}
        return medfocus_minimal.run(lvlm, episode, medfocus_minimal.make_parameters(given))

    def test_is_registered(self):
        assert get_method("medfocus_minimal") is medfocus_minimal

    def test_finds_the_evidence(self, folder: str, planted: Any):
        episode, box = planted
        lvlm = Planted(box)
        result = self.run(folder, lvlm, episode, margin=0.0)
        (found,) = episode.letterbox.to_frame(result.boxes)
        assert covered([found], box) >= 0.85
        assert area([found]) < 4 * area([box])
        assert result.boxes[0] == pytest.approx(tuple(result.extras["minimal"][0]))
        assert result.concept in CONCEPTS
        assert result.concept == max(result.concept_scores, key=lambda name: result.concept_scores[name])
        assert result.extras["start"] in ("left lower lung zone", "left costophrenic angle")
        assert result.extras["passes"] == lvlm.images
        assert len(result.extras["trace"]) == lvlm.images - 16
        assert set(result.extras["deltas"]) >= set(CONCEPTS) >= set(result.concept_scores)
        first, second = result.token_scores
        assert second == pytest.approx(3 * first)
        assert first + second >= 0.9 * max(result.extras["deltas"].values())
        assert first + second >= max(result.concept_scores.values()) > 0.5 * (first + second)
        passes, boxes = result.extras["progress"][-1]
        assert passes <= lvlm.images
        assert boxes == [list(box) for box in result.boxes]
        large = self.run(folder, Planted(box), episode)
        for inner, outer in zip(result.boxes[0], large.boxes[0], strict=True):
            assert abs(inner - outer) == pytest.approx(8 * 256 / 224)
        factor = self.run(folder, Planted(box), episode, margin=0.0, enlarge=1.5)
        assert area(factor.boxes) / area(result.boxes) == pytest.approx(1.5**2, rel=0.02)

    def test_without_a_budget_the_concept_is_the_region(self, folder: str, planted: Any):
        episode, box = planted
        result = self.run(folder, Planted(box), episode, budget=0, margin=0.0)
        assert result.heatmap is None
        assert result.extras["trace"] == []
        named = result.extras["concept_boxes"][result.extras["start"]]
        assert result.boxes[0] == pytest.approx(tuple(named), abs=1e-6)

    @pytest.mark.parametrize(
        "settings",
        [
            {"search": "best_first"},
            {"starts": 3, "budget": 200},
            {"vocabulary": "zones"},
            {"preset": "paper"},
            {"fill": "mean"},
        ],
    )
    def test_every_way_finds_the_evidence(self, folder: str, planted: Any, settings: dict[str, Any]):
        episode, box = planted
        if settings.get("fill"):  # the mean is not dark: what is bright beside it must be
            episode.frame_array = episode.frame_array.copy()
            episode.frame_array[box[1] : box[3], box[0] : box[2]] = 255
        lvlm = Planted(box)
        result = self.run(folder, lvlm, episode, **settings)
        if result.fallback:
            pytest.skip("the published transfer put no concept on the evidence")
        (found,) = episode.letterbox.to_frame(result.boxes)
        assert covered([found], box) >= 0.8
        assert area([found]) < 16 * area([box])
        assert result.extras["passes"] == lvlm.images

    def test_two_boxes_start_from_pairs(self, folder: str, chest: np.ndarray, small_pool: ReferencePool):
        episode = episode_of(chest)
        boxes = AnatomyLocalizer(small_pool).localise(chest).boxes
        evidence = []
        for lung in ("left lung", "right lung"):
            x1, y1, x2, y2 = episode.letterbox.to_frame([boxes[lung]])[0]
            x, y = (x1 + x2) / 2, y1 + (y2 - y1) * 0.4
            evidence.append((round(x - 8), round(y - 8), round(x + 8), round(y + 8)))
        result = self.run(folder, Planted(*evidence), episode, boxes=2, budget=200, margin=0.0)
        assert result.extras["start"] == "both lungs"
        assert len(result.boxes) == 2
        for found, box in zip(episode.letterbox.to_frame(result.boxes), evidence, strict=True):
            assert covered([found], box) >= 0.85

    def test_an_answer_that_rests_on_nothing_is_not_searched(self, folder: str, planted: Any):
        episode, _ = planted
        lvlm = Planted((0, 0, 4, 4), weight=0.01)
        episode.frame_array = episode.frame_array.copy()
        episode.frame_array[:4, :4] = 50
        result = self.run(folder, lvlm, episode)
        assert result.fallback
        assert lvlm.images == 16
        assert result.boxes == [(0.0, 0.0, 256.0, 256.0)]

    @pytest.mark.parametrize("bad", _WRONG)
    def test_impossible_parameters_are_refused(self, bad: dict[str, Any]):
        with pytest.raises(MethodError):
            MinimalParameters(**bad)

    def test_on_a_real_lvlm(self, folder: str, chest: np.ndarray):
        pytest.importorskip("torch")
        from medground_bench.lvlm.testing import tiny_qwen

        lvlm = tiny_qwen()
        episode = lvlm.prepare(Image.fromarray(chest[:200]), "Is there evidence of pleural effusion?", "Yes.")
        result = self.run(folder, lvlm, episode, budget=4, zones=False)
        width, height = episode.image.size
        for x1, y1, x2, y2 in result.boxes:
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
        assert result.token_scores.shape == (len(episode.tokens),)
