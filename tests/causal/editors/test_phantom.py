"""Exact counterfactuals of phantoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medground_bench.causal.editors import load_editor
from medground_bench.causal.masks import box_mask
from medground_bench.core.errors import EditorError
from medground_bench.imaging.read import read_image
from medground_bench.sources import open_source
from medground_bench.sources.phantom import sample_phantom
from medground_bench.sources.phantom.source import findings_of, phantom_for
from medground_bench.sources.phantom.writers import write_source

FINDINGS = ["pleural effusion", "nodule", "cardiomegaly"]


@pytest.fixture(scope="module")
def phantom():
    return sample_phantom(3, size=160, findings=FINDINGS)


def picture(phantom) -> Image.Image:
    return Image.fromarray(np.asarray(phantom.image))


def test_one_finding_is_removed_exactly(phantom) -> None:
    editor = load_editor("phantom", phantoms=[phantom])
    whole = np.ones(phantom.image.shape, bool)
    for finding in phantom.findings:
        edited = np.asarray(editor.edit(picture(phantom), whole, f"No {finding.attribute}"))
        assert np.array_equal(edited, phantom.without(finding.attribute).image)
    assert np.array_equal(np.asarray(editor.edit(picture(phantom), whole, "No abnormality")), phantom.without().image)


def test_only_what_the_mask_covers_changes(phantom) -> None:
    editor = load_editor("phantom", phantoms=[phantom])
    finding = next(f for f in phantom.findings if f.attribute == "nodule")
    mask = box_mask(finding.boxes, picture(phantom).size)
    inside = np.asarray(editor.edit(picture(phantom), mask, "No nodule"))
    assert np.array_equal(inside[~mask], phantom.image[~mask])
    assert np.array_equal(inside[mask], phantom.without("nodule").image[mask])
    assert not np.array_equal(inside, phantom.image)
    background = np.asarray(editor.edit(picture(phantom), ~mask, "No abnormality"))
    assert np.array_equal(background[mask], phantom.image[mask])
    assert np.array_equal(background[~mask], phantom.without().image[~mask])


def test_a_finding_that_is_not_there_changes_nothing(phantom) -> None:
    editor = load_editor("phantom", phantoms=[phantom])
    edited = editor.edit(picture(phantom), np.ones(phantom.image.shape, bool), "No pneumothorax")
    assert np.array_equal(np.asarray(edited), phantom.image)


def test_unknown_images_and_prompts_are_refused(phantom, tmp_path: Path) -> None:
    editor = load_editor("phantom", phantoms=[phantom])
    mask = np.ones(phantom.image.shape, bool)
    with pytest.raises(EditorError, match="not a phantom this editor knows"):
        editor.edit(Image.new("L", picture(phantom).size), mask, "No nodule")
    with pytest.raises(EditorError, match="not one the phantom editor understands"):
        editor.edit(picture(phantom), mask, "Make it pretty")
    with pytest.raises(EditorError, match=r"no phantom\.json"):
        load_editor("phantom", source=tmp_path)


@pytest.mark.parametrize("layout", ["phantom", "nih_cxr14", "vindr_cxr", "padchest_gr", "imagenome"])
def test_sets_on_disk_in_every_layout(layout: str, tmp_path: Path) -> None:
    written = write_source(layout, tmp_path / "set", 3, seed=5, size=128, findings=FINDINGS)
    source = open_source(layout, written.root)
    looking, told = load_editor("phantom", source=written.root), load_editor("phantom")
    for candidate in source:
        if not candidate.boxes or not candidate.image_path.is_file():
            continue
        image = read_image(candidate.image_path)
        told.bind(candidate, image)
        mask = np.ones(image.size[::-1], bool)
        edited = np.asarray(told.edit(image, mask, f"No {candidate.attribute}"), int)
        assert np.array_equal(edited, np.asarray(looking.edit(image, mask, f"No {candidate.attribute}"), int))
        phantom = phantom_for(candidate)
        normal = phantom
        for name in findings_of(candidate):
            normal = normal.without(name)
        truth = phantom.image.astype(int) - normal.image.astype(int)
        change = np.asarray(image, int) - edited
        assert (change[truth == 0] == 0).all()
        # Deep files come back stretched to the full grey range, JPEG with its noise.
        assert np.corrcoef(change[truth != 0], truth[truth != 0])[0, 1] > 0.9
