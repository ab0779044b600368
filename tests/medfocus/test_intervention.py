"""Interventions and what follows from them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from medfocus.intervention import effects, groups, variants
from medfocus.result import FRAME, Found
from medground_bench.core.anatomy import COMPOSITES, CONCEPTS
from medground_bench.core.errors import MethodError
from medground_bench.imaging import Letterbox


def episode_of(width: int = 400, height: int = 200, side: int | None = 224, colour: bool = False) -> SimpleNamespace:
    """What the interventions read of an episode: native image, frame and letterbox."""
    rng = np.random.default_rng(0)
    shape = (height, width, 3) if colour else (height, width)
    image = Image.fromarray(rng.integers(1, 255, shape).astype(np.uint8))
    letterbox = Letterbox.identity(width, height) if side is None else Letterbox.fit(width, height, side)
    frame = letterbox.apply(image).convert("RGB")
    array = np.asarray(frame)
    return SimpleNamespace(
        image=image, frame=frame, letterbox=letterbox, frame_array=array if colour else array[..., 0].copy()
    )


def found(box: tuple[float, float, float, float], mask: np.ndarray | None = None) -> Found:
    return Found(box, np.zeros((FRAME, FRAME), bool) if mask is None else mask)


class TestEffects:
    def test_golden(self, shared_data: Path):
        case = json.loads((shared_data / "golden/delta.json").read_text())
        masked = {name: np.array(values) for name, values in case["masked"].items()}
        result = effects(np.array(case["original"]), masked, case["tau"])
        assert result.deltas == pytest.approx(case["deltas"], abs=1e-12)
        assert (result.best, result.fallback) == (case["best"], case["fallback"])
        assert result.ratios == pytest.approx({name: np.exp(-delta) for name, delta in case["deltas"].items()})

    def test_rises_do_not_count(self):
        result = effects(np.array([-1.0, -1.0]), {"a": np.array([0.0, -1.5]), "b": np.array([-1.0, -1.0])})
        assert result.deltas == {"a": 0.5, "b": 0.0}
        np.testing.assert_allclose(result.drops["a"], [0, 0.5])

    def test_fallback_at_and_above_tau(self):
        drop = -np.log(0.75)
        base = np.zeros(1)
        assert effects(base, {"a": np.array([-drop + 1e-9])}).fallback
        assert not effects(base, {"a": np.array([-drop - 1e-9])}).fallback
        assert not effects(base, {"a": np.array([-1e-6])}, tau=1.0).fallback
        assert effects(base, {"a": np.array([-50.0])}, tau=0.0).fallback

    def test_ties_go_to_the_first(self):
        assert effects(np.zeros(2), {"b": -np.ones(2), "a": -np.ones(2)}).best == "b"

    @pytest.mark.parametrize(
        ("base", "masked"),
        [
            (np.zeros(2), {}),
            (np.zeros(2), {"a": np.zeros(3)}),
            (np.zeros(2), {"a": np.array([0.0, np.nan])}),
            (np.array([-np.inf]), {"a": np.zeros(1)}),
            (np.zeros((1, 2)), {"a": np.zeros((1, 2))}),
        ],
    )
    def test_refusals(self, base: np.ndarray, masked: dict):
        with pytest.raises(MethodError):
            effects(base, masked)


class TestGroups:
    def test_all(self):
        members = groups(CONCEPTS)
        assert len(members) == 15
        assert members["both lungs"] == ("left lung", "right lung")
        assert members["mediastinum"] == ("mediastinum",)

    def test_composites_need_all_members(self):
        assert set(groups(("left lung", "left clavicle", "right clavicle"))) == {
            "left lung", "left clavicle", "right clavicle", "both clavicles",
        }  # fmt: skip
        assert not set(groups(CONCEPTS, composites=False)) & set(COMPOSITES)


class TestVariants:
    def test_box_is_zeroed_and_nothing_else(self):
        episode = episode_of()
        located = {"left lung": found((200.0, 50.0, 300.0, 150.0)), "right lung": found((50.0, 50.0, 150.0, 150.0))}
        one, two, both = variants(episode, located, groups(tuple(located)))
        original = episode.frame_array
        # 400 x 200 on 224: scale 0.56, 56 rows of padding above.
        region = np.zeros((224, 224), bool)
        region[84:140, 112:168] = True
        assert (one[region] == 0).all()
        np.testing.assert_array_equal(one[~region], original[~region])
        np.testing.assert_array_equal((one == 0) | (two == 0), both == 0)
        assert original[region].min() >= 0
        np.testing.assert_array_equal(episode.frame_array, original)

    def test_whole_image(self):
        episode = episode_of()
        (variant,) = variants(episode, {"left lung": found((0, 0, 400, 200))}, {"left lung": ("left lung",)})
        assert variant.max() == 0

    @pytest.mark.parametrize("colour", [False, True])
    def test_mean_fill_is_that_of_the_image_not_the_padding(self, colour: bool):
        episode = episode_of(colour=colour)
        (variant,) = variants(episode, {"left lung": found((0, 0, 400, 200))}, {"a": ("left lung",)}, fill="mean")
        content = episode.frame_array[56:168]
        want = np.rint(content.mean((0, 1))).astype(np.uint8)
        np.testing.assert_array_equal(variant[56:168], np.broadcast_to(want, content.shape))
        assert variant[:56].max() == 0

    def test_thin_box_takes_a_pixel(self):
        episode = episode_of()
        (variant,) = variants(episode, {"left lung": found((10.0, 10.0, 10.5, 12.0))}, {"a": ("left lung",)})
        assert (variant != episode.frame_array).sum() in (1, 2)

    def test_mask_zeroes_pixels_only(self):
        mask = np.zeros((FRAME, FRAME), bool)
        mask[100:110, 50:60] = True
        episode = episode_of()
        located = {"left lung": found((0, 0, 400, 200), mask)}
        (variant,) = variants(episode, located, groups(("left lung",)), "mask")
        np.testing.assert_array_equal(variant == 0, mask | (episode.frame_array == 0))

    def test_mask_without_pixels_is_its_box(self):
        episode = episode_of()
        located = {"left lung": found((200.0, 50.0, 300.0, 150.0))}
        by_mask, by_box = (variants(episode, located, groups(("left lung",)), how)[0] for how in ("mask", "box"))
        np.testing.assert_array_equal(by_mask, by_box)

    @pytest.mark.parametrize("side", [112, 448, None])
    def test_mask_on_another_frame(self, side: int | None):
        mask = np.zeros((FRAME, FRAME), bool)
        mask[84:140, 112:168] = True  # native (200, 50)-(300, 150)
        episode = episode_of(side=side)
        located = {"left lung": found((200.0, 50.0, 300.0, 150.0), mask)}
        by_mask, by_box = (variants(episode, located, groups(("left lung",)), how)[0] == 0 for how in ("mask", "box"))
        assert (by_mask ^ by_box).sum() <= 0.03 * by_box.sum()

    def test_editor_sees_the_native_image_and_the_box(self):
        seen = []

        class Editor:
            def edit(self, image, mask, prompt, seed):
                seen.append((image.size, mask, prompt, seed))
                pixels = np.asarray(image).copy()
                pixels[mask] = 0
                return Image.fromarray(pixels)

        episode = episode_of()
        located = {"left lung": found((200.0, 50.0, 300.0, 150.0)), "right lung": found((50.0, 50.0, 150.0, 150.0))}
        out = variants(episode, located, groups(tuple(located)), "edit", editor=Editor(), prompt="No effusion", seed=3)
        assert len(out) == 3
        size, mask, prompt, seed = seen[2]
        assert (size, prompt, seed) == ((400, 200), "No effusion", 3)
        assert mask.sum() == 2 * 100 * 100
        assert mask[50:150, 200:300].all()
        boxed = variants(episode, located, groups(tuple(located)))[0]
        inner = np.s_[88:136, 116:164]
        np.testing.assert_array_equal(out[0][inner][..., 0], boxed[inner])

    def test_refusals(self):
        episode, located = episode_of(), {"left lung": found((0, 0, 9, 9))}
        for options in ({"intervention": "blur"}, {"fill": "noise"}, {"intervention": "edit"}):
            with pytest.raises(MethodError):
                variants(episode, located, groups(("left lung",)), **options)

        class Crops:
            def edit(self, image, mask, prompt, seed):
                return image.crop((0, 0, 5, 5))

        with pytest.raises(MethodError, match="gave back 5x5"):
            variants(episode, located, groups(("left lung",)), "edit", editor=Crops())
