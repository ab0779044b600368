"""The phantom source, and phantoms drawn again from what is on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medground_bench.core.errors import SourceError
from medground_bench.sources import open_source
from medground_bench.sources.phantom import LAYOUTS, WrittenSource, write_source
from medground_bench.sources.phantom.source import findings_of, load_phantom, phantom_for, phantom_root


@pytest.fixture
def one(tmp_path: Path) -> WrittenSource:
    return write_source("phantom", tmp_path / "set", 3, size=112, findings=["nodule", "pleural effusion"])


def edit(root: Path, change: object) -> None:
    path = root / "phantom.json"
    manifest = json.loads(path.read_text())
    change(manifest)  # type: ignore[operator]
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_candidate_leads_back_to_its_phantom(tmp_path: Path, layout: str) -> None:
    written = write_source(layout, tmp_path / "set", 8, size=None)
    for candidate in open_source(layout, written.root):
        phantom = phantom_for(candidate)
        planted = findings_of(candidate)
        assert phantom.seed == written.seeds[candidate.image_id]
        assert planted
        assert set(planted) <= set(phantom.attributes)
        truth = [box for f in phantom.findings if f.attribute in planted for box in f.boxes]
        for box in candidate.boxes:
            assert min(np.abs(np.subtract(box, t)).max() for t in truth) <= 1.0


def test_exact_counterfactual_from_disk(one: WrittenSource) -> None:
    source = open_source("phantom", one.root)
    assert source.name == "phantom"
    candidate = source[0]
    phantom = phantom_for(candidate)
    assert np.array_equal(phantom.image, np.asarray(Image.open(candidate.image_path)))
    removed = phantom.without(candidate.attribute)
    assert candidate.attribute not in removed.attributes
    assert phantom_for(candidate) is phantom  # drawn once


def test_root_is_found_from_the_image(one: WrittenSource, tmp_path: Path) -> None:
    assert phantom_root(one.candidates[0].image_path) == one.root
    assert phantom_root(tmp_path / "elsewhere.png") is None


def test_broken_boxes_keep_their_place(one: WrittenSource) -> None:
    def change(manifest: dict) -> None:
        manifest["images"][0]["findings"][0]["boxes"] = [[5, 5, 2, 9]]
        manifest["images"][1]["findings"][0]["boxes"] = [[1, 2, 3]]

    edit(one.root, change)
    source = open_source("phantom", one.root)
    assert len(source) == len(one.candidates)
    assert source[0].boxes == ()
    assert "reversed" in source[0].problems[0]
    assert "image 1, finding 0" in source[2].problems[0]
    assert [c.index for c in source] == list(range(len(source)))


def test_a_path_out_of_the_root_is_refused(one: WrittenSource) -> None:
    edit(one.root, lambda m: m["images"][1].update(file="../../etc/passwd"))
    with pytest.raises(SourceError, match="image 1"):
        open_source("phantom", one.root)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not complete JSON"), ("[]", "holds a list"), ('{"format": 2, "images": []}', "format 1")],
)
def test_damaged_manifest(one: WrittenSource, text: str, message: str) -> None:
    (one.root / "phantom.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        open_source("phantom", one.root)


@pytest.mark.parametrize("key", ["image_id", "file", "findings"])
def test_missing_fields_name_the_image(one: WrittenSource, key: str) -> None:
    edit(one.root, lambda m: m["images"][2].pop(key))
    with pytest.raises(SourceError, match=rf"image 2.*{key}"):
        open_source("phantom", one.root)


def test_wrong_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"phantom\.json"):
        open_source("phantom", tmp_path)


def test_another_image_than_the_generators_is_refused(one: WrittenSource) -> None:
    candidate = one.candidates[0]
    image = np.asarray(Image.open(candidate.image_path))
    Image.fromarray(np.roll(image, 40, axis=1)).save(candidate.image_path)
    with pytest.raises(SourceError, match="not the one this version"):
        phantom_for(candidate)
    with pytest.raises(SourceError, match="no image 'x'"):
        load_phantom(one.root, "x")


def test_candidates_of_other_images(one: WrittenSource, tmp_path: Path) -> None:
    from dataclasses import replace

    candidate = one.candidates[0]
    with pytest.raises(SourceError, match="not a phantom"):
        phantom_for(replace(candidate, image_path=tmp_path / "a.png"))
    with pytest.raises(SourceError, match="has no 'cold'"):
        findings_of(replace(candidate, attribute="cold"))
