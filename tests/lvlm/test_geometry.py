"""Where image tokens lie, measured: against the adapters' own grids, and on real classes that have none."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from medground_bench.core.errors import GeometryError
from medground_bench.lvlm import Lvlm, geometry, load_lvlm, testing
from medground_bench.lvlm.geometry import measure_tokens
from medground_bench.lvlm.grid import TokenBoxes, TokenGrid


def regular(rows: int, cols: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """Cells of a grid over a box, row-major."""
    x1, y1, x2, y2 = box
    w, h = (x2 - x1) / cols, (y2 - y1) / rows
    return np.array(
        [
            (x1 + c * w, y1 + r * h, x1 + (c + 1) * w, y1 + (r + 1) * h)
            for r in range(rows)
            for c in range(cols)
        ]
    )  # fmt: skip


def boxes_of(measured: TokenBoxes) -> np.ndarray:
    return np.array([box for box in measured.boxes if box is not None])


@pytest.mark.parametrize("key", ["toy_qwen", "toy_gemma"])
def test_on_both_toys_every_token_is_exact(key: str) -> None:
    lvlm = load_lvlm(key)
    grid = lvlm.prepare(Image.new("L", (224, 224)), "?", "Yes").grid
    measured = measure_tokens(lvlm, (224, 224), step=7)
    assert measured is not None
    assert measured.boxes == tuple(grid.cell_box(i) for i in range(len(grid)))
    assert measure_tokens(lvlm, (224, 224), step=7) is measured  # kept


@pytest.mark.parametrize(("name", "size"), [("tiny_qwen", (140, 84)), ("tiny_gemma", (192, 128))])
def test_measured_and_explicit_geometry_agree_off_the_square(
    request: pytest.FixtureRequest, name: str, size: tuple[int, int]
) -> None:
    lvlm: Lvlm = request.getfixturevalue(name)
    grid = lvlm.prepare(Image.new("L", size), "?", "Yes", side=None).grid
    measured = measure_tokens(lvlm, size)
    assert measured is not None
    np.testing.assert_allclose(boxes_of(measured), [grid.cell_box(i) for i in range(len(grid))], atol=0.01)


SQUARE = (0, 0, 224, 224)
EXPECTED = {
    "llava": [regular(8, 8, SQUARE)],
    "llava_next": [regular(8, 8, SQUARE), regular(16, 16, SQUARE)],  # thumbnail, then tiles with a newline a row
    "qwen3_vl": [regular(7, 7, SQUARE)],
    "idefics3": [*(regular(4, 4, (x, y, x + 112, y + 112)) for y in (0, 112) for x in (0, 112)), regular(4, 4, SQUARE)],
    "internvl": [*(regular(4, 4, (x, y, x + 112, y + 112)) for y in (0, 112) for x in (0, 112)), regular(4, 4, SQUARE)],
}


@pytest.mark.parametrize("family", list(EXPECTED))
def test_tiles_thumbnails_and_newlines_of_real_classes(family: str) -> None:
    lvlm = Lvlm.from_parts(*testing.generic_parts(family))
    measured = measure_tokens(lvlm, (224, 224))
    assert measured is not None
    np.testing.assert_allclose(boxes_of(measured), np.concatenate(EXPECTED[family]), atol=0.25)
    dead = [i for i, box in enumerate(measured.boxes) if box is None]
    # LLaVA-NeXT ends each of its 16 rows of 16 tokens with a token of its own, after 64 of the thumbnail.
    assert dead == ([64 + 17 * row + 16 for row in range(16)] if family == "llava_next" else [])
    assert [measured.tiles[i] for i in dead] == [-1] * len(dead)


def test_off_the_square_padding_is_found(tiny_qwen: Lvlm) -> None:
    lvlm = Lvlm.from_parts(*testing.generic_parts("llava_next"))
    measured = measure_tokens(lvlm, (160, 128))  # 224 x 179 in the middle of 224 x 224: rows 2 to 13 of 16 are kept
    assert measured is not None
    expected = np.concatenate([regular(8, 8, (0, 0, 160, 128)), regular(12, 16, (0, 4, 160, 124))])
    np.testing.assert_allclose(boxes_of(measured), expected, atol=0.75)


def test_with_attention_live_every_token_sees_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geometry, "_silenced", lambda *_: nullcontext())
    assert measure_tokens(Lvlm.from_parts(*testing.generic_parts("llava")), (224, 224), step=16) is None


def test_where_nothing_moves_there_is_no_geometry(monkeypatch: pytest.MonkeyPatch) -> None:
    lvlm = Lvlm.from_parts(*testing.generic_parts("llava"))
    with torch.no_grad():  # as behind cross-attention: the embeddings do not hold the image
        lvlm.model.model.multi_modal_projector.linear_1.weight.zero_()
    assert measure_tokens(lvlm, (112, 112), step=16) is None


def test_hooks_are_gone_whatever_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    lvlm = Lvlm.from_parts(*testing.generic_parts("llava"))
    lvlm.generate([Image.new("L", (56, 56))], ["?"], 1)  # transformers hangs hooks of its own on the first pass

    def hooks() -> list[int]:
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in lvlm.model.modules()]

    before = hooks()
    measure_tokens(lvlm, (56, 56), step=14)
    assert hooks() == before
    monkeypatch.setattr(lvlm, "variant_inputs", lambda *_: {"input_ids": "no tensor"})
    with pytest.raises(TypeError):
        measure_tokens(lvlm, (70, 70), step=14)
    assert hooks() == before


def test_values_of_tokens_over_the_frame() -> None:
    grid = TokenGrid(4, 3, (30, 40))
    one = TokenBoxes(tuple(grid.cell_box(i) for i in range(12)), (0,) * 12, (30, 40))
    values = np.arange(12.0)
    np.testing.assert_allclose(one.to_frame(values), grid.to_frame(values), rtol=1e-6)
    # A thumbnail of one token over a tile of four and a newline: densities add up, and mass is kept.
    boxes = ((0.0, 0.0, 10.0, 10.0), None, *(tuple(b) for b in regular(2, 2, (0, 0, 10, 10))))
    both = TokenBoxes(boxes, (0, -1, 1, 1, 1, 1), (10, 10))  # type: ignore[arg-type]
    heat = both.to_frame([1.0, 9.0, 2.0, 0.0, 0.0, 0.0])
    assert heat.sum() == pytest.approx((1.0 + 2.0) * 100 / 5)
    assert heat[0, 0] == pytest.approx((1 / 100 + 2 / 25) * 100 / 5)
    assert heat[9, 9] == pytest.approx(1 / 100 * 100 / 5)
    with pytest.raises(GeometryError, match="do not fit 6 image tokens"):
        both.to_frame([1.0])
