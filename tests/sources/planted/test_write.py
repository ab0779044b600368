"""Planted sets on disk: written, refused, read back."""

import hashlib
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from medground_bench.cli import app
from medground_bench.core.errors import SourceError
from medground_bench.imaging.read import read_image
from medground_bench.sources import open_source
from medground_bench.sources.planted import load_planted, plant, write_planted
from medground_bench.sources.verify import verify_source
from tests.sources.planted.canvases import exact_localizer, spoil, write_canvases


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    canvases = write_canvases(folder / "canvases")
    return canvases, write_planted(canvases, folder / "set", 6, localizer=exact_localizer, seed=3, distractors=True)


def test_the_source_says_what_the_masks_say(written):
    _, result = written
    source = open_source("planted", result.root)
    manifest = json.loads((result.root / "planted.json").read_text())
    assert len(source) == result.findings == sum(len(e["findings"]) for e in manifest["images"])
    assert result.images == len(manifest["images"]) == 6
    assert {c.patient_id for c in source} == {"p0", "p1", "p2"}
    assert not source.problems
    for candidate in source:
        planted = load_planted(result.root, candidate.image_id)
        mask = planted.masks[candidate.attribute]
        covered = np.zeros_like(mask)
        for x1, y1, x2, y2 in candidate.boxes:
            covered[int(y1) : int(y2), int(x1) : int(x2)] = True
        assert not (mask & ~covered).any()
    assert verify_source("planted", result.root).sound


def test_the_files_are_the_canvas_the_image_and_each_counterfactual(written):
    canvases, result = written
    from medground_bench.sources.planted import CanvasAnatomy

    for entry in json.loads((result.root / "planted.json").read_text())["images"]:
        given = np.asarray(read_image(canvases / "images" / entry["canvas"]))
        drawn = plant(given, CanvasAnatomy(exact_localizer(given)), 3, distractors=True)
        read = load_planted(result.root, entry["image_id"])
        assert hashlib.sha256(f"{given.shape}".encode() + given.tobytes()).hexdigest() == entry["canvas_sha256"]
        assert (read.image == drawn.image).all()
        assert (read.canvas == drawn.without().image).all()
        assert (read.without() == read.canvas).all()
        for finding in drawn.findings:
            assert (read.masks[finding.attribute] == finding.mask).all()
            assert (read.without([finding.attribute]) == drawn.without(finding.attribute).image).all()


def test_the_same_seed_writes_the_same_set(written, tmp_path):
    canvases, result = written
    again = write_planted(canvases, tmp_path / "set", 6, localizer=exact_localizer, seed=3, distractors=True)
    files = sorted(p.relative_to(result.root) for p in result.root.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again.root) for p in again.root.rglob("*") if p.is_file())
    assert all((result.root / f).read_bytes() == (again.root / f).read_bytes() for f in files)


def test_every_file_that_cannot_be_a_canvas_is_refused_by_name(tmp_path):
    canvases = write_canvases(tmp_path / "canvases")
    expected = spoil(canvases)
    result = write_planted(canvases, tmp_path / "set", 6, localizer=exact_localizer, findings=["nodule"])
    refused = {r.file: r.reason for r in result.refused}
    listed = {r["file"]: r["reason"] for r in json.loads((tmp_path / "set/planted.json").read_text())["refused"]}
    assert refused == listed
    assert set(refused) <= set(expected)
    with pytest.raises(SourceError, match="canvases carry 6") as caught:
        write_planted(canvases, tmp_path / "more", 7, localizer=exact_localizer, findings=["nodule"])
    for name, reason in expected.items():
        assert name in caught.value.message
        assert reason in caught.value.message
    assert not (tmp_path / "more").exists()
    whatever = write_planted(
        canvases, tmp_path / "most", 7, localizer=exact_localizer, at_most=True, findings=["nodule"]
    )
    assert whatever.images == 6 == len(json.loads((tmp_path / "most/planted.json").read_text())["images"])
    assert {c.attribute for c in open_source("planted", tmp_path / "set")} == {"nodule"}


def test_wrong_requests(written, tmp_path):
    canvases, _ = written
    with pytest.raises(SourceError, match="canvases carry 6"):
        write_planted(canvases, tmp_path / "a", 7, localizer=exact_localizer)
    with pytest.raises(SourceError, match="unknown finding 'measles'"):
        write_planted(canvases, tmp_path / "a", 1, localizer=exact_localizer, findings=["measles"])
    with pytest.raises(SourceError, match="does not exist"):
        write_planted(tmp_path / "nowhere", tmp_path / "a", 1, localizer=exact_localizer)
    with pytest.raises(SourceError, match="not a planted set"):
        write_planted(canvases, canvases, 1, localizer=exact_localizer)
    (tmp_path / "bad.csv").write_text("file\nc0.png\n")
    with pytest.raises(SourceError, match="no column 'image'"):
        write_planted(canvases, tmp_path / "a", 1, localizer=exact_localizer, manifest=tmp_path / "bad.csv")
    (tmp_path / "twice.csv").write_text("image\nc0.png\nc0.png\n")
    with pytest.raises(SourceError, match=r"c0\.png is named twice"):
        write_planted(canvases, tmp_path / "a", 1, localizer=exact_localizer, manifest=tmp_path / "twice.csv")
    (tmp_path / "out.csv").write_text("image\n../c0.png\n")
    with pytest.raises(SourceError, match="not a file name"):
        write_planted(canvases, tmp_path / "a", 1, localizer=exact_localizer, manifest=tmp_path / "out.csv")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "../elsewhere.png"}, "leaves its folder|outside"),
        ({"patient_id": 7}, "'patient_id' is 7"),
        ({"findings": None}, "'findings' is None"),
    ],
)
def test_a_damaged_manifest_is_named(written, tmp_path, change, message):
    _, result = written
    manifest = json.loads((result.root / "planted.json").read_text())
    manifest["images"][0].update(change)
    (tmp_path / "planted.json").write_text(json.dumps(manifest))
    with pytest.raises(SourceError, match=message) as caught:
        open_source("planted", tmp_path)
    assert "image 0" in str(caught.value)


def test_images_that_do_not_belong_together_are_named(written, tmp_path):
    import shutil

    _, result = written
    shutil.copytree(result.root, tmp_path / "set")
    entries = json.loads((tmp_path / "set/planted.json").read_text())["images"]
    shutil.copy(tmp_path / "set" / entries[1]["canvas_file"], tmp_path / "set" / entries[0]["canvas_file"])
    with pytest.raises(SourceError, match="differ outside the masks"):
        load_planted(tmp_path / "set", entries[0]["image_id"])
    with pytest.raises(SourceError, match="no image 'nothing'"):
        load_planted(tmp_path / "set", "nothing")


def test_the_command_plants_with_the_registered_localizer(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGROUND_CACHE", str(tmp_path / "cache"))
    canvases = write_canvases(tmp_path / "canvases", good=2)
    (canvases / "images/thumbs.db").write_bytes(b"x")
    arguments = ["plant", "--canvas", str(canvases), "--out", str(tmp_path / "set"), "--count", "2"]
    result = CliRunner().invoke(app, [*arguments, "--findings", "nodule, pleural effusion"])
    assert result.exit_code == 0, result.output
    assert "2 images with" in result.output
    assert "thumbs.db" in result.output + result.stderr
    assert {c.attribute for c in open_source("planted", tmp_path / "set")} <= {"nodule", "pleural effusion"}
