"""Exact counterfactuals of planted findings."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from medground_bench.causal.editors import available_editors, load_editor
from medground_bench.causal.masks import box_mask
from medground_bench.core.errors import EditorError, SourceError
from medground_bench.imaging.read import read_image
from medground_bench.sources import open_source
from medground_bench.sources.planted import load_planted, write_planted
from tests.sources.planted.canvases import exact_localizer, write_canvases


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    canvases = write_canvases(folder / "canvases")
    written = write_planted(canvases, folder / "set", 6, localizer=exact_localizer, seed=1, distractors=True)
    assert any(len(e["findings"]) > 1 for e in json.loads((written.root / "planted.json").read_text())["images"])
    return written.root


def test_each_finding_is_removed_exactly_and_the_others_stay(root):
    assert "planted" in available_editors()
    looking, told = load_editor("planted", source=root), load_editor("planted")
    for candidate in open_source("planted", root):
        image = read_image(candidate.image_path)
        told.bind(candidate, image)
        planted = load_planted(root, candidate.image_id)
        inside = box_mask(candidate.boxes, image.size)
        prompt = f"No {candidate.attribute}"
        for editor in (looking, told):
            edited = np.asarray(editor.edit(image, inside, prompt))
            assert (edited == planted.without([candidate.attribute])).all()  # the boxes hold the whole mask
            assert (edited == planted.image)[~planted.masks[candidate.attribute]].all()
            assert (np.asarray(editor.edit(image, ~inside, prompt)) == planted.image).all()
            background = np.asarray(editor.edit(image, ~inside, "No abnormality"))
            assert (background[~inside] == planted.canvas[~inside]).all()
            assert (background[inside] == planted.image[inside]).all()
        coloured = image.convert("RGB")
        told.bind(candidate, coloured)
        assert (np.asarray(told.edit(coloured, inside, prompt))[..., 1] == edited).all()


def test_nothing_else_is_edited(root):
    editor = load_editor("planted", source=root)
    candidate = open_source("planted", root)[0]
    image = read_image(candidate.image_path)
    whole = np.ones(image.size[::-1], bool)
    assert (np.asarray(editor.edit(image, whole, "No measles")) == np.asarray(image)).all()
    with pytest.raises(EditorError, match="not one the planted editor understands"):
        editor.edit(image, whole, "A nodule")
    with pytest.raises(EditorError, match="not a planted one this editor knows"):
        editor.edit(Image.new("L", image.size), whole, "No nodule")
    with pytest.raises(SourceError, match="was not found"):
        load_editor("planted", source=root / "images")


def test_a_damaged_file_fails_its_own_edit_only(root, tmp_path):
    shutil.copytree(root, tmp_path / "set")
    candidates = list(open_source("planted", tmp_path / "set"))
    first, other = candidates[0], next(c for c in candidates if c.image_id != candidates[0].image_id)
    (tmp_path / "set/canvases" / f"{first.image_id}.png").write_bytes(b"")
    editor = load_editor("planted", source=tmp_path / "set")
    for candidate, fine in ((first, False), (other, True)):
        image = read_image(candidate.image_path)
        inside = box_mask(candidate.boxes, image.size)
        if fine:
            assert (np.asarray(editor.edit(image, inside, f"No {candidate.attribute}")) != np.asarray(image)).any()
        else:
            with pytest.raises(EditorError, match="empty"):
                editor.edit(image, inside, f"No {candidate.attribute}")
