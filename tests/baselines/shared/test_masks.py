"""Random masks: mass, seeds, Pillow as oracle."""

from __future__ import annotations

import numpy as np

from baselines.shared.masks import random_masks


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
