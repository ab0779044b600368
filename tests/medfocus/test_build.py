"""Making pools: ImaGenome's normal studies, phantoms, and the atlas command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medfocus import build
from medfocus.atlas import ReferencePool
from medground_bench.cli import app
from medground_bench.core.anatomy import CONCEPTS
from medground_bench.core.errors import AtlasError, SourceError

GOLD = "chest-imagenome/1.0.0/gold_dataset"
ANNOTATED = [concept for concept in CONCEPTS if concept != "mediastinum"]


def write_gold(root: Path, patients: int, sick: tuple[int, ...] = (), half: tuple[int, ...] = ()) -> None:
    """A gold set of one study per patient; ``sick`` have a finding, ``half`` lack a box."""
    folder = root / GOLD
    folder.mkdir(parents=True)
    header = "patient_id\tstudy_id\timage_id\tbbox\trelation\tcontext\tlabel_name\tcategoryID\tcoord_original\n"
    rows, boxes = [header], ["image_id,bbox_name,original_x1,original_x2,original_y1,original_y2\n"]
    rng = np.random.default_rng(0)
    for p in range(patients):
        patient, study, image = 10000000 + p, 50000000 + p, f"img{p}"
        rows.append(f"{patient}\t{study}\t{image}.dcm\tleft lung\t0\tno\tlung opacity\tanatomicalfinding\t[]\n")
        if p in sick:
            rows.append(f"{patient}\t{study}\t{image}.dcm\tleft lung\t1\tyes\tlung opacity\tanatomicalfinding\t[]\n")
        for k, concept in enumerate(ANNOTATED):
            missing = p in half and concept == "left clavicle"
            corners = "," * 3 if missing else f"{10 * k},{10 * k + 100},{5 * k},{5 * k + 60}"
            boxes.append(f"{image}.dcm,{concept},{corners}\n")
        path = root / f"mimic-cxr-jpg/2.1.0/files/p{str(patient)[:2]}/p{patient}/s{study}/{image}.jpg"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 255, (600, 1000)).astype(np.uint8)).save(path)
    (folder / "gold_object_attribute_with_coordinates.txt").write_text("".join(rows))
    (folder / "gold_bbox_coordinate_annotations_1000images.csv").write_text("".join(boxes))


def test_normal_covered_studies_are_taken(tmp_path: Path):
    write_gold(tmp_path, 6, sick=(1,), half=(3,))
    pool = build.imagenome_pool(tmp_path, count=4)
    assert [reference.name for reference in pool] == ["img0", "img2", "img4", "img5"]
    assert pool.concepts == CONCEPTS
    one = pool[0]
    assert one.image.shape == (307, 512)
    assert one.box("upper mediastinum") == pytest.approx([v * 0.512 for v in (30, 15, 130, 75)], rel=0.01)


def test_mediastinum_is_the_union(tmp_path: Path):
    write_gold(tmp_path, 1)
    one = build.imagenome_pool(tmp_path, count=1)[0]
    heart, upper = one.box("cardiac silhouette"), one.box("upper mediastinum")
    assert one.box("mediastinum") == (*np.minimum(heart[:2], upper[:2]), *np.maximum(heart[2:], upper[2:]))


def test_spread_over_the_order(tmp_path: Path):
    write_gold(tmp_path, 6)
    assert [r.name for r in build.imagenome_pool(tmp_path, count=3)] == ["img0", "img2", "img4"]


def test_too_few_says_where_they_were_lost(tmp_path: Path):
    write_gold(tmp_path, 4, sick=(0,), half=(1,))
    next((tmp_path / "mimic-cxr-jpg").rglob("img2.jpg")).unlink()
    with pytest.raises(AtlasError, match="only 1 of the 16") as caught:
        build.imagenome_pool(tmp_path)
    assert "4 studies, 3 normal, 2 with boxes of all concepts, 1 patients" in str(caught.value)


def test_no_gold_set(tmp_path: Path):
    with pytest.raises(SourceError, match="not found"):
        build.imagenome_pool(tmp_path)


def test_command_imagenome(tmp_path: Path):
    write_gold(tmp_path / "data", 3)
    result = CliRunner().invoke(
        app, ["atlas", "--imagenome", str(tmp_path / "data"), "--out", str(tmp_path / "pool"), "--count", "2"]
    )
    assert result.exit_code == 0, result.output
    assert "never publish" in result.output
    pool = ReferencePool.from_folder(tmp_path / "pool")
    assert (len(pool), pool.concepts) == (2, CONCEPTS)
    assert "never redistribute" in (tmp_path / "pool/pool.json").read_text()


def test_command_phantom_makes_the_shipped_pool(tmp_path: Path, phantom_pool: ReferencePool):
    result = CliRunner().invoke(app, ["atlas", "--phantom", "--out", str(tmp_path / "pool"), "--count", "2"])
    assert result.exit_code == 0, result.output
    made = ReferencePool.from_folder(tmp_path / "pool")
    assert len(made) == 2
    for ours, shipped in zip(made, phantom_pool, strict=False):
        assert (ours.name, ours.concepts, ours.boxes) == (shipped.name, shipped.concepts, shipped.boxes)
        assert all(np.array_equal(mask, shipped.masks[name]) for name, mask in ours.masks.items())
        # Processors round the drawing's sums differently: a pixel in fifty thousand may be the next grey.
        difference = np.abs(np.asarray(ours.image, int) - np.asarray(shipped.image, int))
        assert difference.max() <= 1
        assert np.mean(difference > 0) < 1e-3


@pytest.mark.parametrize("options", [[], ["--phantom", "--imagenome", "x"]])
def test_command_needs_one_origin(tmp_path: Path, options: list[str]):
    assert CliRunner().invoke(app, ["atlas", "--out", str(tmp_path / "pool"), *options]).exit_code == 2
