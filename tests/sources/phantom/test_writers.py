"""Phantoms on disk: what is written must be read back by the sources, candidate for candidate."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from typer.testing import CliRunner

from medground_bench.causal.editors.phantom import PhantomEditor
from medground_bench.cli import app
from medground_bench.core.errors import MedGroundError
from medground_bench.imaging.read import read_image
from medground_bench.sources import open_source
from medground_bench.sources.phantom import LAYOUTS, WrittenSource, sample_phantom, write_source
from medground_bench.sources.phantom.layouts.vindr_cxr import VARIANTS
from medground_bench.sources.phantom.marker import CORNERS, stamp_marker
from medground_bench.sources.phantom.source import load_phantom, phantom_for

COUNT = 14


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WrittenSource]:
    root = tmp_path_factory.mktemp("written")
    return {name: write_source(name, root / name, COUNT, seed=3, size=None) for name in LAYOUTS}


def stretch(image: np.ndarray) -> np.ndarray:
    values = image.astype(float)
    return (values - values.min()) * 255 / (values.max() - values.min())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_source_enumerates_exactly_what_was_written(written: dict[str, WrittenSource], layout: str) -> None:
    expected = written[layout]
    source = open_source(layout, expected.root)
    assert len(expected.candidates) > COUNT
    assert list(source) == list(expected.candidates)
    assert not source.problems
    assert not source.faults


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_image_files_hold_the_phantoms(written: dict[str, WrittenSource], layout: str) -> None:
    expected = written[layout]
    assert len(expected.images) == COUNT
    sizes = set()
    for image_id, path in expected.images.items():
        image = read_image(path)
        sizes.add(image.size)
        phantom = load_phantom(expected.root, image_id)
        assert phantom.seed == expected.seeds[image_id]
        truth = stretch(phantom.image) if layout in ("vindr_cxr", "padchest_gr") else phantom.image
        difference = np.abs(np.asarray(image, float) - truth)
        if path.suffix == ".jpg":
            assert difference.mean() < 1.5
        else:
            assert difference.max() <= 0.51
    assert len(sizes) > COUNT // 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_are_the_true_evidence(written: dict[str, WrittenSource], layout: str) -> None:
    """Each stored box is within a pixel of a box of the phantom itself."""
    expected = written[layout]
    for c in expected.candidates:
        phantom = load_phantom(expected.root, c.image_id)
        truth = np.array([box for f in phantom.findings for box in f.boxes])
        assert c.boxes
        for box in c.boxes:
            assert np.abs(truth - box).max(axis=1).min() <= 1.0


def test_vindr_files_cover_the_variants(written: dict[str, WrittenSource]) -> None:
    paths = list(written["vindr_cxr"].images.values())
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in paths]
    assert {h.PhotometricInterpretation for h in headers} == {"MONOCHROME1", "MONOCHROME2"}
    assert {h.file_meta.TransferSyntaxUID.name for h in headers} >= {
        "Implicit VR Little Endian",
        "Explicit VR Little Endian",
        "RLE Lossless",
        "JPEG 2000 Image Compression (Lossless Only)",
    }
    assert {int(h.BitsStored) for h in headers} == {v.bits for v in VARIANTS}
    assert {"WindowWidth" in h for h in headers} == {True, False}
    root = written["vindr_cxr"].root / "vindr-cxr/1.0.0/annotations/annotations_test.csv"
    with open(root, newline="") as file:
        rows = list(csv.DictReader(file))
    empty = [r for r in rows if r["class_name"] == "No finding"]
    assert empty
    assert all(r["x_min"] == "" for r in empty)
    assert any(float(r["x_min"]) % 1 == 0.5 for r in rows if r["x_min"])


def test_padchest_files(written: dict[str, WrittenSource]) -> None:
    root = written["padchest_gr"].root
    official = json.loads((root / "grounded_reports_20240819.json").read_text())
    filtered = json.loads((root / "filtered_studies.json").read_text())
    assert len(official) == COUNT > len(filtered)
    findings = [f for e in official for f in e["findings"]]
    assert any("boxes" not in f for f in findings)
    assert any(f["extra_boxes"] for f in findings if "boxes" in f)
    assert {Image.open(p).mode for p in written["padchest_gr"].images.values()} == {"I;16"}


def test_imagenome_files(written: dict[str, WrittenSource]) -> None:
    folder = written["imagenome"].root / "chest-imagenome/1.0.0/gold_dataset"
    with open(folder / "gold_object_attribute_with_coordinates.txt", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {r["relation"] for r in rows} == {"0", "1"}
    assert {r["categoryID"] for r in rows} >= {"anatomicalfinding", "disease", "nlp"}
    assert len({len(r["study_id"]) for r in rows}) > 1
    with open(folder / "gold_bbox_coordinate_annotations_1000images.csv", newline="") as file:
        boxes = list(csv.DictReader(file))
    assert list(boxes[0])[-4:] == ["original_x1", "original_x2", "original_y1", "original_y2"]
    assert {"left lung", "right lung", "cardiac silhouette", "carina"} <= {b["bbox_name"] for b in boxes}
    assert "mediastinum" not in {b["bbox_name"] for b in boxes}
    first = next(b for b in boxes if b["bbox_name"] == "left lung")
    image_id = first["image_id"].removesuffix(".dcm")
    rows_, cols = np.nonzero(load_phantom(written["imagenome"].root, image_id).masks["left lung"])
    assert int(first["original_x1"]) == cols.min()
    assert int(first["original_y2"]) == rows_.max() + 1


def test_nih_files(written: dict[str, WrittenSource]) -> None:
    root = written["nih_cxr14"].root
    assert (root / "BBox_List_2017.csv").read_text().startswith("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    assert {p.suffix for p in (root / "images").iterdir()} == {".png", ".jpg"}


def test_writing_is_deterministic_and_processes_do_not_matter(tmp_path: Path) -> None:
    one = write_source("nih_cxr14", tmp_path / "a", 6, size=112)
    two = write_source("nih_cxr14", tmp_path / "b", 6, size=112, num_proc=2)
    files = sorted(p.relative_to(one.root) for p in one.root.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two.root) for p in two.root.rglob("*") if p.is_file())
    assert all((one.root / f).read_bytes() == (two.root / f).read_bytes() for f in files)


def test_sets_of_different_seeds_share_nothing(tmp_path: Path) -> None:
    a = write_source("phantom", tmp_path / "a", 3, size=112, seed=0)
    b = write_source("phantom", tmp_path / "b", 3, size=112, seed=1)
    assert not set(a.seeds.values()) & set(b.seeds.values())
    assert not set(a.images) & set(b.images)


def test_planted_findings(tmp_path: Path) -> None:
    w = write_source("phantom", tmp_path / "a", 2, size=112, findings=["nodule"])
    assert [c.attribute for c in w.candidates] == ["nodule", "nodule"]


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MedGroundError, match="not phantoms"):
        write_source("phantom", tmp_path, 1, size=112)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    # An earlier set is replaced whole.
    write_source("phantom", tmp_path / "set", 3, size=112)
    again = write_source("phantom", tmp_path / "set", 1, size=112)
    assert len(list((tmp_path / "set" / "images").iterdir())) == 1
    assert len(again.images) == 1


def test_an_interruption_leaves_nothing_half_written(tmp_path: Path) -> None:
    def stop(done: int, total: int, what: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_source("phantom", tmp_path / "set", 4, size=112, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match=r"No space left on device: .*set'$"):
        write_source("phantom", tmp_path / "set", 1, size=112)
    assert list(tmp_path.iterdir()) == []


def test_wrong_arguments(tmp_path: Path) -> None:
    for call in (
        lambda: write_source("mimic", tmp_path / "x", 1),
        lambda: write_source("phantom", tmp_path / "x", 0),
        lambda: write_source("phantom", tmp_path / "x", 1, size=64),
        lambda: write_source("phantom", tmp_path / "x", 1, seed=-1),
    ):
        with pytest.raises(MedGroundError):
            call()
    assert not (tmp_path / "x").exists()


def test_command(tmp_path: Path) -> None:
    out = tmp_path / "set"
    arguments = [
        "phantom",
        "--out",
        str(out),
        "--count",
        "3",
        "--size",
        "120x140",
        "--seed",
        "2",
        "--layout",
        "vindr_cxr",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "3 images" in result.output
    source = open_source("vindr_cxr", out)
    assert read_image(source[0].image_path).size == (120, 140)
    wrong = CliRunner().invoke(app, ["phantom", "--out", str(tmp_path / "y"), "--size", "big"])
    assert isinstance(wrong.exception, MedGroundError)


def test_faint_findings_are_drawn_again_and_taken_away_exactly(tmp_path: Path) -> None:
    faint = write_source("phantom", tmp_path / "faint", 24, size=224, faint=0.5)
    plain = write_source("phantom", tmp_path / "plain", 24, size=224)
    assert [(c.attribute, c.boxes) for c in faint.candidates] == [(c.attribute, c.boxes) for c in plain.candidates]
    contrasts = {}
    for candidate, usual in zip(faint.candidates, plain.candidates, strict=True):
        drawn = phantom_for(candidate)  # checked against the file
        contrasts[candidate.image_id] = drawn.contrast
        image, clear = read_image(candidate.image_path), read_image(usual.image_path)
        if drawn.contrast == 1:
            np.testing.assert_array_equal(image, clear)
            continue
        assert 0.35 <= drawn.contrast <= 0.65
        inside = next(f.mask for f in drawn.findings if f.attribute == candidate.attribute)
        without = drawn.without().image.astype(float)
        effect = [np.abs(np.asarray(i, float) - without)[inside].mean() for i in (image, clear)]
        assert 0 < effect[0] < effect[1]
    assert 6 <= sum(c < 1 for c in contrasts.values()) <= 16
    with pytest.raises(MedGroundError, match="a share from 0 to 1"):
        write_source("phantom", tmp_path / "x", 1, faint=1.5)
    with pytest.raises(MedGroundError, match="above 0 and at most 1"):
        sample_phantom(1, contrast=0.0)


def test_markers_stand_in_a_corner_and_stay_in_every_counterfactual(tmp_path: Path) -> None:
    written = write_source("phantom", tmp_path / "marked", 3, size=224, findings=["nodule"], markers=True)
    plain = write_source("phantom", tmp_path / "plain", 3, size=224, findings=["nodule"])
    assert plain.seeds == written.seeds
    for candidate in written.candidates:
        marked = phantom_for(candidate)
        assert marked.marker in CORNERS
        bare = sample_phantom(marked.seed, size=224, findings=["nodule"])
        stamped, box = stamp_marker(bare.image, marked.marker)
        np.testing.assert_array_equal(read_image(candidate.image_path), stamped)
        x1, y1, x2, y2 = (int(v) for v in box)
        mask = np.ones((224, 224), bool)
        edited = PhantomEditor(tmp_path / "marked").edit(Image.fromarray(marked.image), mask, "No nodule", seed=0)
        np.testing.assert_array_equal(np.asarray(edited)[y1:y2, x1:x2], stamped[y1:y2, x1:x2])
        assert (np.asarray(edited) != stamped).any()
    with pytest.raises(MedGroundError, match="no corner"):
        sample_phantom(1, marker="middle")
