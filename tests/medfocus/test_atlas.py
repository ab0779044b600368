"""Reference pools: the folder format and every way to get it wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medfocus.atlas import Reference, ReferencePool
from medground_bench.core.anatomy import CONCEPTS
from medground_bench.core.errors import AtlasError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A valid pool of two 40 x 30 references: one with a mask and a box, one with a box."""
    root = tmp_path / "pool"
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (30, 40)).astype(np.uint8)).save(root / f"images/{name}.png")
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 10:25] = 255
    Image.fromarray(mask).save(root / "masks/a_left.png")
    left, clavicle = {"left lung": "masks/a_left.png"}, {"right clavicle": [1, 2, 9, 8]}
    first = {"image": "images/a.png", "masks": left, "boxes": clavicle}
    write(root, [first, {"image": "images/b.png", "boxes": {"left lung": [4.5, 3, 20, 22.5]}}])
    return root


def write(root: Path, references: Any) -> None:
    (root / "pool.json").write_text(json.dumps({"references": references}))


def entries(root: Path) -> list[dict[str, Any]]:
    return json.loads((root / "pool.json").read_text())["references"]


def test_reads(folder: Path):
    pool = ReferencePool.from_folder(folder)
    assert len(pool) == 2
    assert pool.concepts == ("left lung", "right clavicle")
    first, second = pool
    assert first.image.shape == (30, 40)
    assert first.box("left lung") == (10, 5, 25, 20)
    assert first.box("right clavicle") == (1, 2, 9, 8)
    assert second.concepts == ("left lung",)
    np.testing.assert_allclose(first.region("left lung").sum(), 15 * 15)
    np.testing.assert_allclose(second.region("left lung").sum(), 15.5 * 19.5)


def test_round_trip(folder: Path, tmp_path: Path):
    pool = ReferencePool.from_folder(folder)
    again = ReferencePool.from_folder(pool.to_folder(tmp_path / "copy", {"origin": "test"}))
    assert again.fingerprint == pool.fingerprint
    assert json.loads((tmp_path / "copy/pool.json").read_text())["origin"] == "test"
    pool.to_folder(tmp_path / "copy")  # a pool may be replaced


def test_nothing_else_is_replaced(folder: Path, tmp_path: Path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter1.tex").write_text("precious")
    with pytest.raises(AtlasError, match="not a pool"):
        ReferencePool.from_folder(folder).to_folder(tmp_path / "thesis")
    assert (tmp_path / "thesis/chapter1.tex").read_text() == "precious"


def test_fingerprint_sees_pixels_masks_and_boxes(folder: Path):
    prints = {ReferencePool.from_folder(folder).fingerprint}
    listed = entries(folder)
    listed[1]["boxes"]["left lung"][0] = 5
    write(folder, listed)
    prints.add(ReferencePool.from_folder(folder).fingerprint)
    pixels = np.asarray(Image.open(folder / "images/b.png")).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(folder / "images/b.png")
    prints.add(ReferencePool.from_folder(folder).fingerprint)
    mask = np.asarray(Image.open(folder / "masks/a_left.png")).copy()
    mask[0, 0] = 255
    Image.fromarray(mask).save(folder / "masks/a_left.png")
    prints.add(ReferencePool.from_folder(folder).fingerprint)
    assert len(prints) == 4


def test_a_mask_beats_a_box(folder: Path):
    listed = entries(folder)
    listed[0]["boxes"]["left lung"] = [0, 0, 3, 3]
    write(folder, listed)
    assert ReferencePool.from_folder(folder)[0].box("left lung") == (10, 5, 25, 20)


def test_boxes_are_cut_to_the_image(folder: Path):
    listed = entries(folder)
    listed[1]["boxes"]["left lung"] = [-5, -5, 500, 500]
    write(folder, listed)
    assert ReferencePool.from_folder(folder)[1].box("left lung") == (0, 0, 40, 30)


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(entry: dict[str, Any]) -> None:
        entry[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("image", "images/none.png"), "missing"),
        (_set("image", "../secret.png"), "leaves its folder"),
        (_set("image", 3), "names no image"),
        (_set("masks", {"spleen": "masks/a_left.png"}), "unknown concept 'spleen'"),
        (_set("masks", ["masks/a_left.png"]), "not an object"),
        (_set("masks", {"left lung": "masks/none.png"}), "missing"),
        (_set("masks", {"left lung": "/etc/passwd"}), "leaves its folder"),
        (_set("masks", {"left lung": "pool.json"}), "cannot be read"),
        (_set("masks", {"left lung": 7}), "not a file name"),
        (_set("boxes", {"left lung": [1, 2, 3]}), "not a box"),
        (_set("boxes", {"left lung": [9, 2, 3, 8]}), "not a box"),
        (_set("boxes", {"left lung": [1, 2, True, 8]}), "not a box"),
        (_set("boxes", {"left lung": [1, 2, float("nan"), 8]}), "not a box"),
        (_set("boxes", {"left lung": "1 2 3 4"}), "not a box"),
        (_set("boxes", {"left lung": [400, 2, 500, 8]}), "outside the image"),
        (_set("boxes", {"liver": [1, 2, 3, 4]}), "unknown concept 'liver'"),
    ],
)
def test_malformed_entries_are_named(folder: Path, change: Callable[[dict[str, Any]], None], message: str):
    listed = entries(folder)
    listed[1] = {"image": "images/b.png"}
    change(listed[1])
    write(folder, listed)
    with pytest.raises(AtlasError, match=message) as caught:
        ReferencePool.from_folder(folder)
    assert "reference 2" in str(caught.value)


def test_mask_of_another_size_or_empty(folder: Path):
    Image.fromarray(np.ones((30, 41), np.uint8)).save(folder / "masks/a_left.png")
    with pytest.raises(AtlasError, match="41x30, its image 40x30"):
        ReferencePool.from_folder(folder)
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(folder / "masks/a_left.png")
    with pytest.raises(AtlasError, match="empty"):
        ReferencePool.from_folder(folder)


def test_image_that_is_no_image(folder: Path):
    (folder / "images/a.png").write_bytes(b"not a png")
    with pytest.raises(AtlasError, match="cannot be read"):
        ReferencePool.from_folder(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"references": {}}', '{"pool": []}', "null"])
def test_broken_pool_file(tmp_path: Path, text: str):
    (tmp_path / "pool.json").write_text(text)
    with pytest.raises(AtlasError):
        ReferencePool.from_folder(tmp_path)


def test_no_folder_and_empty_pools(tmp_path: Path):
    with pytest.raises(AtlasError, match="no pool here"):
        ReferencePool.from_folder(tmp_path / "nowhere")
    with pytest.raises(AtlasError, match="no reference"):
        ReferencePool([])
    with pytest.raises(AtlasError, match="covers a concept"):
        ReferencePool([Reference("a", np.zeros((4, 4), np.uint8))])


def test_the_shipped_pool(phantom_pool: ReferencePool):
    assert len(phantom_pool) == 16
    assert phantom_pool.concepts == CONCEPTS
    assert all(reference.concepts == CONCEPTS for reference in phantom_pool)
    assert phantom_pool.name == "phantom"
    assert ReferencePool.open("phantom").fingerprint == phantom_pool.fingerprint
    assert ReferencePool.open(phantom_pool) is phantom_pool
