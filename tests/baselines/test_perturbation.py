"""Occlusion and RISE: known answers with a scorer that sees one place, and Captum as oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.masks import random_masks, tile_masks
from baselines.perturbation import OcclusionParameters, RiseParameters, occlusion, rise
from medground_bench.core.errors import MethodError
from tests.baselines.doubles import Scorer, plain_episode


def _cell(image: np.ndarray, row: int, col: int, cells: int = 8) -> np.ndarray:
    h, w = image.shape[:2]
    return image[row * h // cells : (row + 1) * h // cells, col * w // cells : (col + 1) * w // cells]


def test_tiles_cover_the_frame_once() -> None:
    masks = tile_masks(100, 61, 8, 3)
    assert masks.shape == (24, 100, 61)
    assert (masks.sum(axis=0) == 1).all()
    assert masks[0].sum() == 12 * 20  # round(100 / 8) = 12 rows, round(61 / 3) = 20 columns


def test_occlusion_is_the_drop_of_the_score() -> None:
    episode = plain_episode()
    lvlm: Any = Scorer(lambda image: image.sum() / 1000)
    values = occlusion.function(lvlm, episode, OcclusionParameters())
    expected = [[_cell(episode.frame_array.astype(float), r, c).sum() / 1000 for c in range(8)] for r in range(8)]
    np.testing.assert_allclose(values, expected)
    assert lvlm.images == 65


def test_occlusion_keeps_the_sign_of_evidence_against() -> None:
    lvlm: Any = Scorer(lambda image: -_cell(image, 2, 3).mean())
    values = occlusion.function(lvlm, plain_episode(), OcclusionParameters())
    assert values[2, 3] < 0
    assert np.count_nonzero(values) == 1


def test_occlusion_of_a_colour_frame_and_another_fill() -> None:
    from dataclasses import replace

    from PIL import Image

    episode = plain_episode()
    colour = np.stack([episode.frame_array, np.zeros((224, 224), np.uint8), np.zeros((224, 224), np.uint8)], axis=-1)
    episode = replace(episode, frame=Image.fromarray(colour))
    lvlm: Any = Scorer(lambda image: _cell(image, 0, 0)[..., 1].mean())
    values = occlusion.function(lvlm, episode, OcclusionParameters(fill=128))
    assert values[0, 0] == pytest.approx(-128)


@pytest.mark.parametrize("size", [(224, 224), (640, 448)])
@pytest.mark.parametrize("cell", [(2, 3), (5, 6), (3, 4)])
def test_occlusion_finds_the_planted_tile(size: tuple[int, int], cell: tuple[int, int]) -> None:
    episode = plain_episode(*size)
    lvlm: Any = Scorer(lambda image: _cell(image, *cell).mean())
    attribution = occlusion.run(lvlm, episode)
    assert attribution.heatmap is not None
    assert np.unravel_index(attribution.heatmap.argmax(), (8, 8)) == cell
    row, col = cell
    centre = episode.letterbox.to_native([(col * 28, row * 28, col * 28 + 28, row * 28 + 28)])[0]
    x, y = (centre[0] + centre[2]) / 2, (centre[1] + centre[3]) / 2
    x1, y1, x2, y2 = attribution.boxes[0]
    assert x1 <= x < x2
    assert y1 <= y < y2


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("size", [(224, 224), (640, 448)])
def test_rise_ranks_a_planted_cell_first(seed: int, size: tuple[int, int]) -> None:
    episode = plain_episode(*size, seed=seed)
    cell = (2 + seed % 4, (3 * seed) % 8)
    lvlm: Any = Scorer(lambda image: _cell(image, *cell).mean() / 255)
    values = rise.function(lvlm, episode, RiseParameters(seed=seed))
    cells = values.reshape(8, 28, 8, 28).mean(axis=(1, 3))
    assert np.unravel_index(cells.argmax(), (8, 8)) == cell
    assert lvlm.images == 256


def test_rise_equals_the_formula() -> None:
    episode = plain_episode()
    lvlm: Any = Scorer(lambda image: image[50:90, 100:130].mean() / 255)
    parameters = RiseParameters(masks=70, seed=3)
    values = rise.function(lvlm, episode, parameters)
    masks = random_masks(np.random.default_rng(3), 70, 224, 224, cells=8, keep=0.5).astype(float)
    frame = episode.frame_array
    scores = np.array([lvlm.score(np.round(frame * m).astype(np.uint8).astype(float)) for m in masks])
    expected = (scores[:, None, None] * masks).sum(axis=0) / masks.sum(axis=0)
    np.testing.assert_allclose(values + np.median(scores), expected, atol=1e-6)


@pytest.mark.parametrize("score", [-3.7, 0.0, 1 / 3])
def test_constant_scorers_name_no_evidence(score: float) -> None:
    episode = plain_episode(300, 200)
    lvlm: Any = Scorer(lambda image: score)
    for method in (occlusion, rise):
        attribution = method.run(lvlm, episode)
        assert attribution.degenerate
        assert attribution.boxes == [(0.0, 0.0, 300.0, 200.0)]


def test_rise_is_seeded() -> None:
    episode = plain_episode()
    lvlm: Any = Scorer(lambda image: _cell(image, 2, 2).mean())
    first, again, other = (rise.function(lvlm, episode, RiseParameters(masks=32, seed=s)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_masks_do_not_depend_on_how_many_are_drawn_at_once() -> None:
    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return random_masks(rng, n, 50, 70, cells=7, keep=0.5)

    whole = draw(np.random.default_rng(5), 7)
    rng = np.random.default_rng(5)
    np.testing.assert_array_equal(whole, np.concatenate([draw(rng, 3), draw(rng, 4)]))


def test_masks_have_the_mass_asked_for_and_no_preferred_place() -> None:
    masks = random_masks(np.random.default_rng(0), 2000, 56, 84, cells=7, keep=0.3)
    assert masks.min() >= 0
    assert masks.max() <= 1
    np.testing.assert_allclose(masks.mean(), 0.3, atol=0.01)
    assert np.abs(masks.mean(axis=0) - 0.3).max() < 0.06  # 5 standard errors of a pixel


def test_a_mask_is_the_bilinear_enlargement_of_its_cells() -> None:
    """Against Pillow's bilinear resize of the same grid, cut at the same shift."""
    from PIL import Image

    rng = np.random.default_rng(11)
    mask = random_masks(rng, 1, 224, 224, cells=8, keep=0.5)[0]
    rng = np.random.default_rng(11)
    grid = (rng.random((9, 9)) < 0.5).astype(np.float32)
    top, left = int(rng.integers(28)), int(rng.integers(28))
    large = np.asarray(Image.fromarray(grid).resize((252, 252), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(mask, large[top : top + 224, left : left + 224], atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OcclusionParameters(rows=0),
        lambda: OcclusionParameters(fill=300),
        lambda: RiseParameters(masks=1),
        lambda: RiseParameters(keep=1.0),
        lambda: RiseParameters(cells=0),
    ],
)
def test_impossible_parameters_are_refused(make: Any) -> None:
    with pytest.raises(MethodError, match="method"):
        make()


@pytest.mark.parametrize("family", ["tiny_qwen", "tiny_gemma"])
def test_occlusion_equals_captum(family: str, request: pytest.FixtureRequest) -> None:
    torch = pytest.importorskip("torch")
    captum = pytest.importorskip("captum.attr")
    from PIL import Image

    lvlm = request.getfixturevalue(family)
    pixels = np.random.default_rng(1).integers(0, 256, (200, 300), dtype=np.uint8)
    episode = lvlm.prepare(Image.fromarray(pixels), "Is there evidence of x in the image?", "Yes")
    frame = torch.from_numpy(episode.frame_array.astype(np.float32))[None]

    def score(batch: Any) -> Any:
        return torch.from_numpy(lvlm.log_probs(episode, batch.numpy().astype(np.uint8)).astype(np.float64).sum(axis=1))

    labels = tile_masks(224, 224, 4, 4).argmax(axis=0)
    oracle = captum.FeatureAblation(score).attribute(
        frame, baselines=0, feature_mask=torch.from_numpy(labels)[None], perturbations_per_eval=4
    )[0]
    values = occlusion.function(lvlm, episode, OcclusionParameters(rows=4, cols=4))
    np.testing.assert_allclose(values, oracle.numpy()[::56, ::56], atol=2e-5)
