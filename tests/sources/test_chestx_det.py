from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.core.errors import SourceError
from medground_bench.dataset.plan import BuildSettings, make_plan
from medground_bench.imaging.masks import PolygonMask
from medground_bench.sources import open_source
from medground_bench.sources.verify import verify_source

SQUARE = [[10, 10], [20, 10], [20, 30], [10, 30]]
TRAIN = [
    {
        "file_name": "36201.png",
        "syms": ["Nodule", "Effusion", "Nodule"],
        "boxes": [[10, 10, 20, 30], [5, 6, 7, 8], [1, 1, 2, 2]],
        "polygons": [SQUARE, [[5, 6], [7, 6], [7, 8]], [[1, 1], [2, 1], [2, 2]]],
    },
    {"file_name": "36200.png", "syms": [], "boxes": [], "polygons": []},
]
TEST = [{"file_name": "36199.png", "syms": ["Mass"], "boxes": [[0, 0, 9, 9]], "polygons": [SQUARE]}]


def write(root: Path, train: Any = TRAIN, test: Any = TEST, names: Any = None, suffix: str = ".png") -> Path:
    for part, entries in (("train", train), ("test", test)):
        folder = root / f"{part}_data" / ("test_data" if part == "test" else "")  # the archives unpack nested
        folder.mkdir(parents=True)
        (root / f"ChestX_Det_{part}.json").write_text(json.dumps(entries))
        for entry in entries:
            Image.new("L", (1024, 1024), 90).save(folder / (Path(entry["file_name"]).stem + suffix))
    if names is not None:
        (root / "nih_names.json").write_text(json.dumps(names))
    return root


def test_enumeration(tmp_path: Path) -> None:
    source = open_source("chestx_det", write(tmp_path))
    assert [(c.index, c.image_id, c.patient_id, c.attribute, c.boxes) for c in source] == [
        (0, "36199.png", "36199.png", "Mass", ((0, 0, 9, 9),)),
        (1, "36201.png", "36201.png", "Effusion", ((5, 6, 7, 8),)),
        (2, "36201.png", "36201.png", "Nodule", ((10, 10, 20, 30), (1, 1, 2, 2))),
    ]
    assert source[0].image_path == tmp_path / "test_data" / "test_data" / "36199.png"
    assert source.where(2) == "ChestX_Det_train.json: entry 0, finding 0, entry 0, finding 2"
    assert [c.size for c in source] == [(1024, 1024)] * 3
    mask = source[2].masks[0].raster()
    assert mask.shape == (1024, 1024)
    assert mask[10:30, 10:20].all()
    assert mask.sum() == 200
    assert verify_source("chestx_det", tmp_path).sound


def test_names_in_jpg_or_png(tmp_path: Path) -> None:
    paths = [c.image_path for c in open_source("chestx_det", write(tmp_path, suffix=".jpg"))]
    assert {p.suffix for p in paths} == {".jpg"}
    assert all(p.is_file() for p in paths)


def test_the_mapping_makes_one_image_of_one_patient(tmp_path: Path) -> None:
    names = {"36201.png": "00000072_000", "36200.png": "00000310_001.png", "12345.png": "00000001_000"}
    source = open_source("chestx_det", write(tmp_path, names=names))
    assert [(c.image_id, c.patient_id) for c in source] == [
        ("36199.png", "36199.png"),
        ("00000072_000.png", "00000072"),
        ("00000072_000.png", "00000072"),
    ]
    assert source.reports == (f"{tmp_path / 'nih_names.json'}: '12345.png' is no image of this source",)
    plan = make_plan(BuildSettings(config="candidates", sources={"chestx_det": str(tmp_path)}))
    assert plan.broken == list(source.reports)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"36201.png": "72"}, "'36201.png' is named '72'"),
        ({"36201.png": 7}, "'36201.png' is named 7"),
        ({"36201.png": "00000072_000", "36199.png": "00000072_000.png"}, "both named 00000072_000.png"),
        ([], "holds a list"),
    ],
)
def test_mappings_that_are_none(tmp_path: Path, names: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_source("chestx_det", write(tmp_path, names=names))
    assert caught.value.where == str(tmp_path / "nih_names.json")


@pytest.mark.parametrize(
    ("change", "message", "where"),
    [
        ({"syms": ["Mass", "Mass"]}, "2 syms, 1 boxes and 1 polygons of 36199.png", "entry 0"),
        ({"boxes": 5}, "'boxes' is 5", "entry 0"),
        ({"syms": [3]}, "'syms' has 3", "entry 0, finding 0"),
        ({"file_name": ""}, "'file_name' is empty", "entry 0"),
        ({"file_name": "36201.jpg"}, "image '36201.jpg' is there twice, first at .*train.json: entry 0", "entry 0"),
    ],
)
def test_damage_is_a_clear_error(tmp_path: Path, change: dict[str, Any], message: str, where: str) -> None:
    write(tmp_path)
    (tmp_path / "ChestX_Det_test.json").write_text(json.dumps([{**TEST[0], **change}]))
    with pytest.raises(SourceError, match=message) as caught:
        open_source("chestx_det", tmp_path)
    assert caught.value.where == f"{tmp_path / 'ChestX_Det_test.json'}: {where}"


def test_rows_are_reported(tmp_path: Path) -> None:
    entry = {
        "file_name": "36199.png",
        "syms": ["Mass", "Mass", "Tumour", "Mass"],
        "boxes": [[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 0, 9]],
        "polygons": [SQUARE, SQUARE, [[1, 1]], SQUARE],
    }
    write(tmp_path, test=[entry])
    at = f"{tmp_path / 'ChestX_Det_test.json'}: entry 0, finding"
    source = open_source("chestx_det", tmp_path)
    assert [(c.attribute, c.boxes, len(c.masks)) for c in source][:2] == [
        ("Mass", ((0, 0, 9, 9),), 1),
        ("Tumour", ((0, 0, 9, 9),), 0),
    ]
    assert verify_source("chestx_det", tmp_path).broken == [
        f"{at} 1: this row is there twice, first at entry 0, finding 0; it is counted once",
        f"{at} 3: box [0, 0, 0, 9] is empty or reversed",
        f"{at} 2: polygons has [[1, 1]], not three points or more; its box is used",
        f"{at} 2: the finding is 'Tumour', which ChestX-Det does not have",
    ]


def test_an_annotated_image_without_its_file(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "train_data" / "36201.png").unlink()
    (missing,) = verify_source("chestx_det", tmp_path).missing
    assert missing == f"{tmp_path / 'train_data' / '36201.png'} (ChestX_Det_train.json: entry 0, finding 1)"


def test_real_copy_equals_its_files(shared_data: Path) -> None:
    root = shared_data / "data" / "chestx_det"
    source = open_source("chestx_det", root)
    names = json.loads((root / "nih_names.json").read_text())
    expected = sorted(
        (f"{names[entry['file_name']]}.png", finding, *map(float, box))
        for part in ("train", "test")
        for entry in json.loads((root / f"ChestX_Det_{part}.json").read_text())
        for finding, box in zip(entry["syms"], entry["boxes"], strict=True)
    )
    assert len(expected) == 294
    assert sorted((c.image_id, c.attribute, *box) for c in source for box in c.boxes) == expected
    assert not source.problems


def test_real_outlines_equal_a_raster_of_their_own(shared_data: Path) -> None:
    from matplotlib.path import Path as Outline

    source = open_source("chestx_det", shared_data / "data" / "chestx_det")
    seen = 0
    for candidate in source:
        assert len(candidate.masks) == len(candidate.boxes)
        for mask, box in zip(candidate.masks, candidate.boxes, strict=True):
            assert isinstance(mask, PolygonMask)
            raster = mask.raster()
            x1, y1, x2, y2 = map(int, box)
            inside = raster[y1:y2, x1:x2]
            assert inside.sum() == raster.sum() > 0  # nothing outside the box
            y, x = np.mgrid[y1:y2, x1:x2] + 0.5
            # Centres that lie on an edge may fall either way.
            other = Outline(mask.points).contains_points(np.column_stack([x.ravel(), y.ravel()])).reshape(x.shape)
            assert (inside != other).sum() <= sum(_on_edge(mask.points))
            seen += 1
    assert seen == 294


def _on_edge(points: tuple[tuple[float, float], ...]) -> list[int]:
    """Pixel centres that lie exactly on each edge of a polygon with whole corners."""
    out = []
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        lengths = np.arange(min(y0, y1) + 0.5, max(y0, y1)) if y0 != y1 else np.array([])
        x = x0 + (lengths - y0) * (x1 - x0) / (y1 - y0) if y0 != y1 else lengths
        out.append(int((np.abs(x - 0.5 - np.rint(x - 0.5)) < 1e-9).sum()))
    return out
