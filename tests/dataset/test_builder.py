"""Building from the three layouts of the benchmark's sources, and the builder under ``datasets`` itself."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.core.errors import ImageError, RecordsError, SourceError
from medground_bench.dataset.folder import open_folder
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.write import build_folder
from medground_bench.sources import open_source
from medground_bench.sources.phantom import write_source
from tests.handmade import finding, write_imagenome, write_nih, write_padchest, write_vindr

REPOSITORY = Path(__file__).parents[2]
THREE = ("imagenome", "vindr_cxr", "padchest_gr")
DIRECT = " Answer directly with yes or no without any explanation."


def entry(model: str, dataset: str, index: int, response: str = "Yes", suffix: str = "direct") -> dict[str, Any]:
    keys = [f"prediction{part}_{suffix}" for part in ("", "_edited", "_edited_kept", "_edited_kept_normal")]
    texts = (response, "No", "Yes", "Yes.\n")
    head = {"model": model, "dataset": dataset, "index": index, "answer": "Yes"}
    return {**head, **dict(zip(keys, texts, strict=True))}


# --- a hand-made expectation


def write_three(root: Path) -> dict[str, str]:
    """The three sources of the benchmark with four candidates each or less, known by looking."""
    write_imagenome(
        root / "imagenome",
        [
            (11000001, 50, "img-b", 1, "pneumonia", "disease", "[30, 10, 50, 35]"),
            (10000009, 51, "img-a", 1, "lung opacity", "anatomicalfinding", "[1.5, 2, 20, 30]"),
            (10000009, 51, "img-a", 1, "lung opacity", "anatomicalfinding", "[40, 2, 59, 30]"),
            (10000009, 51, "img-a", 1, "edema", "disease", "[0, 0, 0, 0]"),
        ],
    )
    write_vindr(root / "vindr", [("v1", "Cardiomegaly", 10.5, 11.5, 40.2, 35), ("v0", "No finding", "", "", "", "")])
    study = {
        "StudyID": "study",
        "ImageID": "p.png",
        "findings": [
            finding(["nodule"], [[0.5, 0.25, 0.75, 0.5]]),
            finding(["mass", "nodule"], [[0, 0, 0.5, 0.5]], [[0.5, 0.5, 1, 1]]),
        ],
    }
    write_padchest(root / "padchest", [study])
    return {
        "imagenome": str(root / "imagenome"),
        "vindr_cxr": str(root / "vindr"),
        "padchest_gr": str(root / "padchest"),
    }


def test_direct_equals_a_hand_made_expectation(tmp_path: Path) -> None:
    entries = [
        entry("qwen2_5_vl_3b", "imagenome", 1, "Yes\n"),  # position 0 is the broken edema
        entry("qwen2_5_vl_3b", "padchest_gr", 1),
        entry("medgemma_4b", "vindr_cxr", 0, "Yes.\n"),
        entry("medgemma_4b", "imagenome", 2),
    ]
    (tmp_path / "direct.json").write_text(json.dumps(entries))
    settings = BuildSettings(
        "direct", write_three(tmp_path), records=str(tmp_path / "direct.json"), allow_other_records=True
    )
    folder, plan = build_folder(settings, tmp_path / "medground-bench")
    common = {
        "mode": "direct",
        "width": 60,
        "height": 40,
        "answer": "Yes",
        "prediction_edited": "No",
        "prediction_edited_kept": "Yes",
        "prediction_edited_kept_normal": "Yes.\n",
    }
    expected = [
        {
            "id": "qwen2_5_vl_3b/direct/imagenome/img-a/lung opacity",
            "dataset": "imagenome",
            "model": "qwen2_5_vl_3b",
            "image_id": "img-a",
            "patient_id": "10000009",
            "attribute": "lung opacity",
            "question": "Is there evidence of lung opacity in the image?" + DIRECT,
            "response": "Yes\n",
            "prediction": "Yes\n",
            "boxes": [[1.5, 2, 20, 30], [40, 2, 59, 30]],
            "regions": ["right lung", "right lung"],
        },
        {
            "id": "qwen2_5_vl_3b/direct/padchest_gr/p.png/mass or nodule",
            "dataset": "padchest_gr",
            "model": "qwen2_5_vl_3b",
            "image_id": "p.png",
            "patient_id": "study",
            "attribute": "mass or nodule",
            "question": "Is there evidence of mass or nodule in the image?" + DIRECT,
            "response": "Yes",
            "prediction": "Yes",
            "boxes": [[0, 0, 30, 20], [30, 20, 60, 40]],
            "regions": [],
        },
        {
            "id": "medgemma_4b/direct/vindr_cxr/v1/Cardiomegaly",
            "dataset": "vindr_cxr",
            "model": "medgemma_4b",
            "image_id": "v1",
            "patient_id": "v1",
            "attribute": "Cardiomegaly",
            "question": "Is there evidence of Cardiomegaly in the image?" + DIRECT,
            "response": "Yes.\n",
            "prediction": "Yes.\n",
            "boxes": [[10, 12, 40, 35]],
            "regions": [],
        },
        {
            "id": "medgemma_4b/direct/imagenome/img-b/pneumonia",
            "dataset": "imagenome",
            "model": "medgemma_4b",
            "image_id": "img-b",
            "patient_id": "11000001",
            "attribute": "pneumonia",
            "question": "Is there evidence of pneumonia in the image?" + DIRECT,
            "response": "Yes",
            "prediction": "Yes",
            "boxes": [[30, 10, 50, 35]],
            "regions": ["right lung"],
        },
    ]
    opened = open_folder(folder, "direct")
    assert [record.to_row() for record in opened] == [{**common, **row} for row in expected]
    deep = np.asarray(Image.open(tmp_path / "padchest" / "PadChest_GR" / "p.png")).astype(float)
    scaled = np.rint((deep - deep.min()) / (deep.max() - deep.min()) * 255)
    assert (np.asarray(opened[1].image) == scaled).all()
    counts = json.loads((folder / "build.json").read_text())["configs"]["direct"]["counts"]
    assert {"model": "medgemma_4b", "dataset": "imagenome", "rows": 1} in counts
    assert plan.records == {"file": "direct.json", "blob": plan.records["blob"], "released": False}  # type: ignore[index]


def test_reason_asks_with_its_own_suffix(tmp_path: Path) -> None:
    released = entry("gemma3_4b", "vindr_cxr", 0, "The heart is wide. So the answer is yes.", suffix="cot")
    (tmp_path / "reasoning.json").write_text(json.dumps([released]))
    sources = {"vindr_cxr": write_three(tmp_path)["vindr_cxr"]}
    settings = BuildSettings("reason", sources, records=str(tmp_path), allow_other_records=True)
    record = open_folder(build_folder(settings, tmp_path / "out")[0])[0]
    assert record.id == "gemma3_4b/reason/vindr_cxr/v1/Cardiomegaly"
    assert record.question.endswith("in the image? Think step by step and answer with yes or no.")
    assert record.response == "The heart is wide. So the answer is yes."


# --- phantoms in the real layouts, real records, against an independent reading of the files


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    for name in THREE:
        write_source(name, root / name, 20, size=112)
    return root


def oracle(root: Path, name: str) -> list[tuple[str, str, list[list[float]], Path]]:
    """(image id, attribute, boxes, image) of every candidate, read in the plainest way there is."""
    if name == "padchest_gr":
        out = []
        for study in json.loads((root / "filtered_studies.json").read_text()):
            path = root / "PadChest_GR" / study["ImageID"]
            with Image.open(path) as image:
                w, h = image.size
            for item in study["findings"]:
                boxes = item.get("boxes", []) + item.get("extra_boxes", [])
                if item["abnormal"] and boxes:
                    scaled = [[float(round(v * s)) for v, s in zip(b, (w, h, w, h), strict=True)] for b in boxes]
                    out.append((study["ImageID"], " or ".join(item["labels"]), scaled, path))
        return out
    import pandas as pd

    if name == "vindr_cxr":
        table = pd.read_csv(root / "vindr-cxr/1.0.0/annotations/annotations_test.csv")
        table = table[table.class_name != "No finding"]
        table[["x_min", "y_min", "x_max", "y_max"]] = table[["x_min", "y_min", "x_max", "y_max"]].round()
        return [
            (i, c, g[["x_min", "y_min", "x_max", "y_max"]].values.tolist(), root / f"vindr-cxr/1.0.0/test/{i}.dicom")
            for (i, c), g in table.groupby(["image_id", "class_name"])
        ]
    table = pd.read_csv(
        root / "chest-imagenome/1.0.0/gold_dataset/gold_object_attribute_with_coordinates.txt", sep="\t"
    )
    table = table[(table.relation == 1) & table.categoryID.isin(["anatomicalfinding", "disease"])]
    keys = ["patient_id", "study_id", "image_id", "label_name", "categoryID"]
    out = []
    for (patient, study, image, label, _), group in table.groupby(keys):
        stem = image[: -len(".dcm")]
        path = root / f"mimic-cxr-jpg/2.1.0/files/p{str(patient)[:2]}/p{patient}/s{study}/{stem}.jpg"
        out.append((stem, label, [[float(v) for v in json.loads(c)] for c in group.coord_original], path))
    return out


@pytest.mark.parametrize("name", THREE)
def test_enumeration_equals_an_independent_reading(phantoms: Path, name: str) -> None:
    source = open_source(name, phantoms / name)
    assert len(source) > 20
    found = [(c.image_id, c.attribute, [list(b) for b in c.boxes], c.image_path) for c in source]
    assert found == [(i, a, b, p.resolve()) for i, a, b, p in oracle(phantoms / name, name)]


def test_real_records_on_phantom_sources(shared_data: Path, phantoms: Path, tmp_path: Path) -> None:
    real = json.loads((shared_data / "data" / "medground_bench" / "direct.json").read_text())
    known = {name: oracle(phantoms / name, name) for name in THREE}
    chosen = [r for r in real if r["index"] < len(known[r["dataset"]])]
    assert {r["dataset"] for r in chosen} == set(THREE)
    (tmp_path / "direct.json").write_text(json.dumps(chosen))
    settings = BuildSettings(
        "direct",
        {name: str(phantoms / name) for name in THREE},
        records=str(tmp_path / "direct.json"),
        allow_other_records=True,
    )
    folder, plan = build_folder(settings, tmp_path / "medground-bench")
    assert [*plan.missing, *plan.broken, *plan.clipped] == []
    rows = [record.to_row() for record in open_folder(folder, "direct")]
    assert len(rows) == len(chosen)
    for row, record in zip(rows, chosen, strict=True):
        image_id, attribute, boxes, _ = known[record["dataset"]][record["index"]]
        assert (row["model"], row["dataset"]) == (record["model"], record["dataset"])
        assert (row["image_id"], row["attribute"], row["boxes"]) == (image_id, attribute, boxes)
        assert row["response"] == record["prediction_direct"]


def test_the_released_file_joins_to_sources_of_full_length(shared_data: Path, tmp_path: Path) -> None:
    sizes = {"imagenome": 1405, "vindr_cxr": 2108, "padchest_gr": 2648}
    labels = {name: [f"finding {i:04d}" for i in range(n)] for name, n in sizes.items()}
    box = "[1, 2, 30, 20]"
    write_imagenome(
        tmp_path / "imagenome", [(10, 7, "a", 1, label, "disease", box) for label in reversed(labels["imagenome"])]
    )
    write_vindr(tmp_path / "vindr_cxr", [("a", label, 1, 2, 30, 20) for label in reversed(labels["vindr_cxr"])])
    findings = [finding([label], [[0, 0, 0.5, 0.5]]) for label in labels["padchest_gr"]]
    write_padchest(tmp_path / "padchest_gr", [{"StudyID": "s", "ImageID": "a.png", "findings": findings}])
    path = shared_data / "data" / "medground_bench" / "direct.json"
    settings = BuildSettings("direct", {n: str(tmp_path / n) for n in THREE}, records=str(path))
    folder, plan = build_folder(settings, tmp_path / "out")
    rows = [record.to_row() for record in open_folder(folder, "direct")]
    assert len(rows) == len({r["id"] for r in rows}) == 1880
    real = json.loads(path.read_text())
    expected = [(r["model"], r["dataset"], labels[r["dataset"]][r["index"]], r["prediction_direct"]) for r in real]
    assert [(r["model"], r["dataset"], r["attribute"], r["response"]) for r in rows] == expected
    assert plan.records is not None
    assert plan.records["released"]
    card = (folder / "README.md").read_text()
    assert "| medgemma1_5_4b | 226 | 79 | 168 | 473 |" in card
    assert "| all | 804 | 433 | 643 | 1,880 |" in card


def test_the_released_file_stops_at_a_phantom_source(shared_data: Path, phantoms: Path, tmp_path: Path) -> None:
    records = shared_data / "data" / "medground_bench"
    settings = BuildSettings("direct", {n: str(phantoms / n) for n in THREE}, records=str(records))
    with pytest.raises(RecordsError, match=r"imagenome yields .* but the records name positions up to 1404"):
        build_folder(settings, tmp_path / "out")


def test_real_radiographs(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "data" / "nih_cxr14"
    folder, plan = build_folder(BuildSettings("candidates", {"nih_cxr14": str(root)}, max_side=256), tmp_path / "out")
    assert plan.images == 120
    with open(root / "BBox_List_2017.csv", newline="") as file:
        lines = list(csv.reader(file))[1:]
    expected = {(line[0], line[1]): [float(v) / 4 for v in line[2:6]] for line in lines}
    assert len(expected) == len(lines)
    rows = [record.to_row() for record in open_folder(folder)]
    assert len(rows) == len(expected)
    for row in rows:
        x, y, w, h = expected[row["image_id"], row["attribute"]]
        assert row["boxes"] == [pytest.approx([x, y, x + w, y + h], abs=1e-9)]


# --- the builder class


def test_builder_class(tmp_path: Path) -> None:
    from medground_bench.dataset.builder import MedGroundBench
    from medground_bench.dataset.columns import features

    write_nih(tmp_path / "nih", ["00000001_000.png,Mass,1,2,3,4", "00000002_000.png,Mass,1,2,3,4"])
    options = {"dataset_name": "medground_bench", "cache_dir": str(tmp_path / "cache")}
    builder = MedGroundBench(config_name="candidates", sources={"nih_cxr14": str(tmp_path / "nih")}, **options)
    builder.download_and_prepare(num_proc=2)
    data = builder.as_dataset(split="test")
    assert data.features == features()
    assert data["id"][:] == ["nih_cxr14/00000001_000.png/Mass", "nih_cxr14/00000002_000.png/Mass"]
    assert data[0]["image"].size == (60, 40)
    stream = builder.as_streaming_dataset(split="test")
    assert [r["id"] for r in stream] == data["id"][:]
    assert stream.num_shards == 2


def test_the_cache_follows_the_annotations(tmp_path: Path) -> None:
    from medground_bench.dataset.builder import MedGroundBench

    table = write_nih(tmp_path / "nih", ["00000001_000.png,Mass,1,2,3,4"])

    def folder(**options: Any) -> str:
        sources = {"nih_cxr14": str(tmp_path / "nih")}
        return str(
            MedGroundBench(config_name="candidates", sources=sources, cache_dir=str(tmp_path), **options).cache_dir
        )

    before = folder()
    assert folder() == before
    assert folder(max_side=8) != before
    table.write_text(table.read_text().replace("1,2,3,4", "1,2,3,5"))
    assert folder() != before


def test_a_box_of_three_numbers_does_not_get_in(tmp_path: Path) -> None:
    import datasets

    from medground_bench.dataset.columns import features

    row = dict.fromkeys(features())
    with pytest.raises(Exception, match=r"length|size|list"):
        datasets.Dataset.from_list([{**row, "boxes": [[1.0, 2.0, 3.0]]}], features=features())


@pytest.mark.parametrize("num_proc", [None, 2])
def test_builder_errors_are_user_errors(tmp_path: Path, num_proc: int | None) -> None:
    from medground_bench.dataset.builder import MedGroundBench

    write_nih(tmp_path / "nih", ["00000001_000.png,Mass,1,2,3,4", "00000002_000.png,Mass,1,2,3,4"])
    path = tmp_path / "nih" / "images" / "00000002_000.png"
    path.write_bytes(path.read_bytes()[:-200])
    options = {"dataset_name": "medground_bench", "cache_dir": str(tmp_path / "cache")}
    builder = MedGroundBench(config_name="candidates", sources={"nih_cxr14": str(tmp_path / "nih")}, **options)
    with pytest.raises(ImageError, match="truncated"):
        builder.download_and_prepare(num_proc=num_proc)
    with pytest.raises(SourceError, match="unknown source"):
        MedGroundBench(config_name="candidates", sources={"mimic": "."}, **options)


def test_circular_chains_of_exceptions_end() -> None:
    from medground_bench.dataset.builder import causes, user_error

    one, two = ValueError(), ValueError()
    one.__cause__, two.__cause__ = two, one
    assert list(causes(one)) == [one, two]
    assert user_error(one) is None


def test_a_bug_is_not_taken_for_a_user_error() -> None:
    import errno

    from medground_bench.dataset.builder import user_error

    full = OSError(errno.ENOSPC, "No space left on device", "x.arrow")
    assert "No space left" in str(user_error(full))
    with pytest.raises(TypeError) as bug:  # noqa: PT012
        try:
            raise full
        except OSError:
            raise TypeError("ours") from None
    assert user_error(bug.value) is None  # the OSError before it was dealt with


# --- datasets<4: the loading script, in an environment of its own

SCRIPT = """
import sys, datasets
from datasets import load_dataset
script, nih, records, folder, cache = sys.argv[1:6]
assert datasets.__version__ == "3.6.0", datasets.__version__
options = dict(trust_remote_code=True, cache_dir=cache, sources={"nih_cxr14": nih})
data = load_dataset(script, "candidates", split="test", num_proc=2, **options)
print(len(data), data[0]["id"], data[0]["boxes"], data[0]["image"].mode, data[0]["image"].size)
stream = load_dataset(script, "candidates", split="test", streaming=True, **options)
print([r["id"] for r in stream])
direct = load_dataset(script, "direct", split="test", records=records, allow_other_records=True, **options)
print(direct["question"])
built = load_dataset(folder, "candidates", split="test", cache_dir=cache)
print(built["boxes"] == data["boxes"], built.features == data.features, built[0]["image"].size)
print(sum(1 for _ in load_dataset(folder, "candidates", split="test", streaming=True)))
for place in sys.argv[6:]:
    print(load_dataset(place, "candidates", split="test", cache_dir=cache)["boxes"])
"""


@pytest.mark.heavy
def test_loading_script_with_datasets_3_6(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True, env=env)
    light = ["datasets==3.6.0", "pillow", "pydicom", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg"]
    light += ["filelock", "platformdirs", "pyyaml"]
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    fetched = subprocess.run([*pip, *light], capture_output=True, text=True, env=env)
    if fetched.returncode != 0:
        pytest.skip(f"pip cannot install datasets 3.6 here: {fetched.stderr.strip()[-300:]}")
    site = next((tmp_path / "env" / "lib").glob("python*/site-packages"))
    (site / "medground_bench_checkout.pth").write_text(f"{REPOSITORY}\n")
    write_nih(tmp_path / "nih", ["00000001_000.png,Mass,1,2,3,4", "00000002_000.png,Nodule,5,6,7,8.5"])
    (tmp_path / "direct.json").write_text(json.dumps([entry("gemma3_4b", "nih_cxr14", 1)]))
    settings = BuildSettings("candidates", {"nih_cxr14": str(tmp_path / "nih")})
    folder, _ = build_folder(settings, tmp_path / "medground-bench")
    others = []
    for box in ("1,2,3,5", "2,2,3,4"):  # folders of the same name, and files of the same size
        (tmp_path / box).mkdir()
        write_nih(tmp_path / box / "nih", [f"00000001_000.png,Mass,{box}", "00000002_000.png,Nodule,5,6,7,8.5"])
        settings = BuildSettings("candidates", {"nih_cxr14": str(tmp_path / box / "nih")})
        others.append(build_folder(settings, tmp_path / box / "medground-bench")[0])
    assert len({path.stat().st_size for place in (folder, *others) for path in place.rglob("*.parquet")}) < 3
    arguments = (
        REPOSITORY / "builder_scripts" / "medground_bench.py",
        tmp_path / "nih",
        tmp_path / "direct.json",
        folder,
        tmp_path / "cache",
        *others,
    )
    done = subprocess.run(
        [str(python), "-c", SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**env, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "2 nih_cxr14/00000001_000.png/Mass [[1.0, 2.0, 4.0, 6.0]] L (60, 40)",
        "['nih_cxr14/00000001_000.png/Mass', 'nih_cxr14/00000002_000.png/Nodule']",
        "['Is there evidence of Nodule in the image? Answer directly with yes or no without any explanation.']",
        "True True (60, 40)",
        "2",
        "[[[1.0, 2.0, 4.0, 7.0]], [[5.0, 6.0, 12.0, 14.5]]]",
        "[[[2.0, 2.0, 5.0, 6.0]], [[5.0, 6.0, 12.0, 14.5]]]",
    ]
