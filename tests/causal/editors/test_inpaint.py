"""The classical editor and the registry."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medground_bench.causal.editors import Editor, available_editors, image_digest, load_editor
from medground_bench.core.errors import EditorError


def gradient(width: int, height: int) -> Image.Image:
    x, y = np.meshgrid(np.linspace(40, 120, width), np.linspace(0, 80, height))
    return Image.fromarray(np.rint(x + y).astype(np.uint8))


def test_a_blob_on_a_smooth_ramp_is_removed() -> None:
    clean = np.asarray(gradient(300, 200), np.int64)
    spoiled = clean.copy()
    spoiled[80:120, 130:180] = 255
    mask = np.zeros(clean.shape, bool)
    mask[75:125, 125:185] = True
    edited = np.asarray(
        load_editor("inpaint").edit(Image.fromarray(spoiled.astype(np.uint8)), mask, "No blob"), np.int64
    )
    assert np.array_equal(edited[~mask], spoiled[~mask])
    assert np.abs(edited - clean)[mask].max() <= 6


def test_grain_matches_the_surroundings_and_follows_the_seed() -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(np.asarray(gradient(256, 256), float) + rng.normal(0, 8, (256, 256)), 0, 255).astype(np.uint8)
    image = Image.fromarray(noisy)
    mask = np.zeros((256, 256), bool)
    mask[60:200, 60:200] = True
    editor = load_editor("inpaint")
    first, again, other = (np.asarray(editor.edit(image, mask, "", seed), float) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    detail = np.diff(first, axis=1)[100:160, 100:160].std() / np.diff(noisy.astype(float), axis=1).std()
    assert 0.7 < detail < 1.3
    smooth = np.asarray(load_editor("inpaint", grain=False).edit(image, mask, "", 1), float)
    assert np.diff(smooth, axis=1)[100:160, 100:160].std() < 0.3 * np.diff(first, axis=1)[100:160, 100:160].std()


@pytest.mark.parametrize("size", [(1, 2), (2, 1), (5, 3), (1000, 40), (333, 1024)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_odd_sizes(size: tuple[int, int], mode: str) -> None:
    image = gradient(*size).convert(mode)
    mask = np.zeros(size[::-1], bool)
    mask.flat[: mask.size // 2] = True
    edited = load_editor("inpaint").edit(image, mask, "", 0)
    assert (edited.size, edited.mode) == (size, mode)
    assert np.array_equal(np.asarray(edited)[~mask], np.asarray(image)[~mask])


def test_nothing_kept_is_refused_and_nothing_to_edit_is_free() -> None:
    image = gradient(20, 20)
    editor = load_editor("inpaint")
    with pytest.raises(EditorError, match="whole image"):
        editor.edit(image, np.ones((20, 20), bool), "")
    assert image_digest(editor.edit(image, np.zeros((20, 20), bool), "")) == image_digest(image)


def test_registry() -> None:
    assert {"inpaint", "phantom", "radedit"} <= set(available_editors())
    with pytest.raises(EditorError, match="unknown editor"):
        load_editor("photoshop")
    with pytest.raises(EditorError, match="no setting 'sise'"):
        load_editor("inpaint", sise=3)
    with pytest.raises(EditorError, match="solve_side"):
        load_editor("inpaint", solve_side=4)


def test_an_editor_that_returns_another_size_is_caught() -> None:
    class Wrong(Editor):
        name = "wrong"

        def _edit(self, request):
            return request.image.resize((3, 3))

    with pytest.raises(EditorError, match="gave back 3x3"):
        Wrong().edit(gradient(20, 20), np.ones((20, 20), bool), "")


def test_settings_tell_editors_apart() -> None:
    assert load_editor("inpaint").settings != load_editor("inpaint", solve_side=64).settings
