"""The edit cache: what decides an edit decides its key; damage is noticed; processes may share a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medground_bench.causal.cache import EditCache
from medground_bench.causal.editors import Editor, EditRequest
from medground_bench.core.errors import EditorError


class Marking(Editor):
    """Writes the seed into the mask; counts its calls; refuses seed 13."""

    name = "marking"

    def __init__(self, strength: int = 0) -> None:
        self.strength = strength
        self.calls = 0

    @property
    def settings(self):
        return {"name": self.name, "strength": self.strength}

    def _edit(self, request: EditRequest) -> Image.Image:
        self.calls += 1
        if request.seed == 13:
            raise EditorError("no")
        pixels = np.asarray(request.image).copy()
        pixels[request.mask] = request.seed + self.strength
        return Image.fromarray(pixels)


def request(seed: int = 1, prompt: str = "No nodule", value: int = 0, corner: int = 3) -> EditRequest:
    mask = np.zeros((8, 9), bool)
    mask[:corner, :corner] = True
    return EditRequest(Image.new("L", (9, 8), value), mask, prompt, seed)


def pixels(outcomes: Sequence) -> list[bytes]:
    return [o.tobytes() for o in outcomes]


def test_made_once(tmp_path: Path) -> None:
    editor = Marking()
    cache = EditCache(editor, tmp_path)
    first = cache.edit_batch([request(), request(seed=2), request()])
    assert editor.calls == cache.made == 2
    assert cache.hits == 1
    again = EditCache(Marking(), tmp_path)
    assert pixels(again.edit_batch([request(), request(seed=2), request()])) == pixels(first)
    assert (again.made, again.hits, again.editor.calls) == (0, 3, 0)


@pytest.mark.parametrize("other", [{"seed": 2}, {"prompt": "No mass"}, {"value": 9}, {"corner": 4}])
def test_everything_that_decides_an_edit_is_in_its_key(tmp_path: Path, other: dict) -> None:
    cache = EditCache(Marking(), tmp_path)
    assert cache.key(request()) == cache.key(request())
    assert cache.key(request()) != cache.key(request(**other))
    assert cache.key(request()) != EditCache(Marking(strength=1), tmp_path).key(request())


def test_entries_can_be_inspected(tmp_path: Path) -> None:
    cache = EditCache(Marking(), tmp_path)
    (edited,) = cache.edit_batch([request(seed=7)])
    path = cache.path(request(seed=7))
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(edited))
    entry = json.loads(path.with_suffix(".json").read_text())
    assert entry["prompt"] == "No nodule"
    assert entry["seed"] == 7
    assert entry["editor"] == {"name": "marking", "strength": 0}
    assert entry["mask_share"] == pytest.approx(9 / 72)


@pytest.mark.parametrize("damage", ["no json", "torn json", "torn png", "other png", "json is a list"])
def test_damaged_entries_are_made_anew(tmp_path: Path, damage: str) -> None:
    cache = EditCache(Marking(), tmp_path)
    before = pixels(cache.edit_batch([request()]))
    png = cache.path(request())
    entry = png.with_suffix(".json")
    if damage == "no json":
        entry.unlink()
    elif damage == "torn json":
        entry.write_bytes(entry.read_bytes()[:40])
    elif damage == "json is a list":
        entry.write_text("[]")
    elif damage == "torn png":
        png.write_bytes(png.read_bytes()[:30])
    else:
        Image.new("L", (9, 8), 77).save(png)
    again = EditCache(Marking(), tmp_path)
    assert pixels(again.edit_batch([request()])) == before
    assert again.made == 1
    assert pixels(EditCache(Marking(), tmp_path).edit_batch([request()])) == before


def test_failures_are_not_kept(tmp_path: Path) -> None:
    cache = EditCache(Marking(), tmp_path)
    outcomes = cache.edit_batch([request(seed=13), request()])
    assert isinstance(outcomes[0], EditorError)
    assert isinstance(outcomes[1], Image.Image)
    assert not cache.path(request(seed=13)).exists()
    assert cache.editor.calls == 2
    cache.edit_batch([request(seed=13)])
    assert cache.editor.calls == 3


def test_two_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    requests = [request(seed=s % 4) for s in range(40)]

    def work(_: int) -> list[bytes]:
        return pixels(EditCache(Marking(), tmp_path).edit_batch(requests))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(8)))
    assert all(r == results[0] for r in results)
    assert not list(tmp_path.rglob("*.part"))
