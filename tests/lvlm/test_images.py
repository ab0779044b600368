"""Images on their way to a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.imaging.letterbox import Letterbox
from medground_bench.lvlm.images import letterbox_image, stack_variants, to_display

RNG = np.random.default_rng(0)


def grey(width: int, height: int) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 255, (height, width), dtype=np.uint8))


def test_grey_stays_grey_and_the_frame_is_rgb() -> None:
    native, frame, box = letterbox_image(grey(100, 60), 224)
    assert native.mode == "L"
    assert frame.mode == "RGB"
    assert frame.size == (224, 224)
    assert box.content == (0, 45, 224, 179)
    assert np.asarray(frame)[:45].max() == 0
    array = np.asarray(frame)
    assert np.array_equal(array[..., 0], array[..., 2])


def test_no_side_leaves_the_image() -> None:
    image = grey(100, 60)
    native, frame, box = letterbox_image(image, None)
    assert frame.size == native.size == (100, 60)
    assert box.to_native([(1, 2, 3, 4)]) == [(1, 2, 3, 4)]
    assert np.array_equal(np.asarray(frame)[..., 0], np.asarray(image))


@pytest.mark.parametrize(
    ("mode", "expected"), [("1", "L"), ("LA", "L"), ("P", "RGB"), ("RGBA", "RGB"), ("CMYK", "RGB")]
)
def test_other_modes_become_l_or_rgb(mode: str, expected: str) -> None:
    assert to_display(Image.new(mode, (4, 4))).mode == expected


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_images_are_refused_not_clipped(mode: str) -> None:
    with pytest.raises(LvlmError, match="read_image"):
        to_display(Image.new(mode, (4, 4)))


def test_not_an_image() -> None:
    with pytest.raises(LvlmError, match="ndarray"):
        to_display(np.zeros((4, 4), np.uint8))


def test_variants_in_every_form_are_the_same_stack() -> None:
    box = Letterbox.fit(100, 60, 56)
    image = grey(100, 60)
    frame = box.apply(image)
    array = np.asarray(frame)
    expected = np.stack([array, array])
    for images in (
        [frame, frame.convert("RGB")],
        [image, frame],
        expected,
        np.repeat(expected[..., None], 3, axis=-1),
        torch.from_numpy(expected),
        [array, torch.from_numpy(np.array(array))],
    ):
        stack = stack_variants(images, box)
        assert stack.dtype == np.uint8
        np.testing.assert_array_equal(stack, expected)
    assert stack_variants([], box).shape == (0, 56, 56)


def test_colour_variants_keep_their_colour() -> None:
    box = Letterbox.identity(5, 4)
    colour = Image.fromarray(RNG.integers(0, 255, (4, 5, 3), dtype=np.uint8))
    stack = stack_variants([colour, colour.convert("L")], box)
    assert stack.shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(stack[0], np.asarray(colour))


def test_wrong_variants_are_refused() -> None:
    box = Letterbox.fit(100, 60, 56)
    with pytest.raises(LvlmError, match="10x10"):
        stack_variants([Image.new("L", (10, 10))], box)
    with pytest.raises(LvlmError, match="float32"):
        stack_variants(np.zeros((1, 56, 56), np.float32), box)
    with pytest.raises(LvlmError, match="shape"):
        stack_variants(np.zeros((56, 56), np.uint8), box)
    with pytest.raises(LvlmError, match="dict"):
        stack_variants({}, box)
