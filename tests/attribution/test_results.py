"""What a method may return: boxes, maps of every kind and shape, tensors; what is refused, and with which remedy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medground_bench.attribution.results import Attribution, as_attribution, from_heatmap
from medground_bench.core.errors import MethodError
from medground_bench.imaging import Letterbox
from medground_bench.lvlm import TokenGrid


def episode(width: int = 400, height: int = 200, grid: tuple[int, int] = (8, 8), side: int | None = 224) -> Any:
    box = Letterbox.fit(width, height, side) if side else Letterbox.identity(width, height)
    return SimpleNamespace(letterbox=box, token_grid=TokenGrid(*grid, (box.frame_width, box.frame_height)))


def hot(shape: tuple[int, int], rows: slice, cols: slice) -> np.ndarray:
    heat = np.zeros(shape)
    heat[rows, cols] = 1
    return heat


# --- where a map lies


def test_a_map_of_the_frame_lies_over_the_frame() -> None:
    # The 400 x 200 image lies in rows 56 to 168 of the frame at scale 0.56.
    said = as_attribution(hot((224, 224), slice(112, 140), slice(56, 112)), episode())
    assert said.boxes == [pytest.approx((100, 100, 200, 150))]


def test_a_map_of_the_image_lies_over_the_image() -> None:
    heat = hot((200, 400), slice(100, 150), slice(100, 200))
    said = as_attribution(heat, episode())
    assert said.boxes == [pytest.approx((100, 100, 200, 150), abs=1.8)]  # a pixel of the frame is 1.8 of the image
    # It is kept over the frame, and comes back to where it was.
    assert said.heatmap is not None
    assert said.heatmap.shape == (224, 224)
    assert said.heatmap[:56].max() == said.heatmap[168:].max() == 0
    back = episode().letterbox.heatmap_to_native(said.heatmap)
    assert back[110:140, 110:190].min() > 0.99
    assert back[:95].max() < 0.01
    assert back[:, 210:].max() < 0.01


def test_a_native_map_is_not_squeezed_into_the_frame() -> None:
    """The fault that this prevents: a 200 x 400 map stretched over the square would say (100, 0, 200, 200)."""
    heat = hot((200, 400), slice(0, 200), slice(100, 200))
    heat[:100] = 0
    (box,) = as_attribution(heat, episode()).boxes
    assert box == pytest.approx((100, 100, 200, 200), abs=1.8)


def test_padding_of_a_native_map_holds_no_heat() -> None:
    heat = 5 + hot((200, 400), slice(100, 150), slice(100, 200))
    said = as_attribution(heat, episode())
    assert said.heatmap is not None
    assert said.heatmap.min() == said.heatmap[0, 0] == 5


def test_a_map_of_the_token_grid_lies_over_the_frame() -> None:
    (box,) = as_attribution(hot((8, 8), slice(4, 6), slice(2, 4)), episode(448, 448)).boxes
    assert np.allclose(box, (112, 224, 224, 336), atol=30)


def test_a_frame_of_native_size() -> None:
    heat = hot((200, 400), slice(100, 150), slice(100, 200))
    assert as_attribution(heat, episode(side=None)).boxes == [(100, 100, 200, 150)]


@pytest.mark.parametrize("shape", [(400, 200), (9, 9), (112, 112), (100, 200), (8, 16)])
def test_a_map_of_another_shape_is_refused_with_the_remedy(shape: tuple[int, int]) -> None:
    with pytest.raises(MethodError, match=f"a map of {shape[0]} x {shape[1]}") as caught:
        as_attribution(np.random.default_rng(0).random(shape), episode())
    assert "224 x 224 (frame) or 8 x 8 tokens, or 200 x 400 (native)" in str(caught.value)
    assert "from_heatmap" in str(caught.value)
    assert "over='frame' or 'native'" in str(caught.value)


def test_what_a_method_declares_holds_for_every_resolution() -> None:
    heat = hot((100, 200), slice(50, 75), slice(50, 100))
    (box,) = as_attribution(heat, episode(), over="native").boxes
    assert box == pytest.approx((100, 100, 200, 150), abs=4)
    assert from_heatmap(heat, episode(), over="native").boxes == [box]
    # Declared, an array of four columns is a map.
    said = as_attribution(hot((4, 4), slice(1, 2), slice(1, 2)), episode(448, 448), over="frame")
    assert np.allclose(said.boxes, [(112, 112, 224, 224)], atol=60)
    assert said.heatmap is not None


# --- boxes


def test_an_array_of_four_columns_is_boxes() -> None:
    said = as_attribution(np.array([[1, 2, 30, 40], [5, 6, 70, 80], [9, 9, 10, 10]]), episode(grid=(3, 4)))
    assert said.boxes == [(1, 2, 30, 40), (5, 6, 70, 80), (9, 9, 10, 10)]
    assert said.heatmap is None
    assert as_attribution(np.zeros((0, 4)), episode()).boxes == []
    assert as_attribution([], episode()).boxes == []
    assert as_attribution([np.array([1, 2, 3, 4]), (5, 6, 7, 8)], episode()).boxes == [(1, 2, 3, 4), (5, 6, 7, 8)]


def test_four_by_four_is_ambiguous() -> None:
    with pytest.raises(MethodError, match=r"\(4, 4\) array") as caught:
        as_attribution(np.eye(4), episode(grid=(4, 4)))
    assert "tolist" in str(caught.value)
    boxes = [[0, 0, 1 + k, 1] for k in range(4)]
    assert as_attribution(boxes, episode()).boxes == [tuple(map(float, box)) for box in boxes]


@pytest.mark.parametrize(
    ("boxes", "message", "remedy"),
    [
        ([[10, 10, 5, 20]], "which has no area", "x \\+ width"),
        ([[10, 10, 10, 20]], "which has no area", "x1 < x2"),
        ([[0, 0, 10, np.nan]], "not finite", "finite"),
        ([[0, 0, 10, 201]], "leaves the image of 400 x 200", "to_native"),
        (np.array([[-1, 0, 10, 20]]), "leaves the image", "to_native"),
        (np.random.default_rng(0).random((8, 4)), "has no area|of shape", "from_heatmap"),
        ([[1, 2, 3]], "item 0 is no box", "x1, y1"),
        ([[1, 2, 3, "4px"]], "item 0 is no box", "x1, y1"),
        ([[1, 2, 3, 4], None], "item 1 is no box", "x1, y1"),
        (["1234"], "item 0 is no box", "x1, y1"),
    ],
)
def test_boxes_that_are_none_are_named(boxes: Any, message: str, remedy: str) -> None:
    with pytest.raises(MethodError, match=message) as caught:
        as_attribution(boxes, episode())
    caught.match(remedy)
    with pytest.raises(MethodError, match=message):
        as_attribution(Attribution(boxes=boxes), episode())


@pytest.mark.parametrize(
    "result",
    ["boxes", 7, None, np.zeros(5), np.zeros((2, 3, 4)), {"boxes": []}, np.array([["a"]]), 1j * np.ones((8, 8))],
)
def test_other_things_are_refused(result: Any) -> None:
    with pytest.raises(MethodError) as caught:
        as_attribution(result, episode())
    assert "2-D heat map" in str(caught.value)


# --- tensors


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "bool", "uint8"])
def test_tensors_of_every_type(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype)
    heat = torch.from_numpy(hot((224, 224), slice(112, 140), slice(56, 112))).to(kind)
    heat.requires_grad_(heat.is_floating_point())
    assert as_attribution(heat, episode()).boxes == [pytest.approx((100, 100, 200, 150))]
    if dtype != "bool":
        boxes = torch.tensor([[1, 2, 3, 4]]).to(kind)
        assert as_attribution(boxes, episode()).boxes == [(1, 2, 3, 4)]
        assert as_attribution(list(boxes), episode()).boxes == [(1, 2, 3, 4)]
    said = as_attribution(Attribution(boxes=[], heatmap=heat, token_scores=heat[0]), episode())
    assert isinstance(said.heatmap, np.ndarray)
    assert isinstance(said.token_scores, np.ndarray)


@pytest.mark.parametrize(("name", "value"), [("heatmap", [[1]]), ("heatmap", np.zeros(3)), ("token_scores", "Yes")])
def test_parts_of_an_attribution_are_looked_at(name: str, value: Any) -> None:
    with pytest.raises(MethodError, match=name):
        as_attribution(Attribution(boxes=[], **{name: value}), episode())


# --- signed maps


maps = arrays(np.float64, (8, 8), elements=st.floats(-1, 1, allow_subnormal=False))


@settings(max_examples=60, deadline=None)
@given(heat=maps, factor=st.floats(1, 1e6))
def test_more_negative_values_change_no_box(heat: np.ndarray, factor: float) -> None:
    lower = np.where(heat < 0, heat * factor, heat)
    one, other = (from_heatmap(h, episode(), signed=True) for h in (heat, lower))
    assert one.boxes == other.boxes
    assert one.degenerate == other.degenerate
    assert one.heatmap is not None
    assert (one.heatmap == heat).all()


def test_a_signed_map_speaks_by_its_positive_part() -> None:
    heat = np.full((8, 8), -1.0)
    heat[:, 4:] = -0.2
    heat[2, 2] = 0.1
    (box,) = from_heatmap(heat, episode(448, 448), signed=True).boxes
    assert np.allclose(box, (112, 112, 168, 168), atol=30)
    # Unsigned, the map's minimum is where heat begins, and the less negative half is hot.
    assert len(from_heatmap(heat, episode(448, 448)).boxes) > 0
    assert from_heatmap(heat, episode(448, 448)).boxes != [box]
    nothing = from_heatmap(-np.arange(64.0).reshape(8, 8), episode(), signed=True)
    assert nothing.degenerate
    assert nothing.boxes == [(0, 0, 400, 200)]
