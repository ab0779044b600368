"""Rows that are wrong are named: none is dropped, doubled or swallowed in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.core.errors import BuildError, SourceError
from medground_bench.dataset.plan import BuildSettings, make_plan
from medground_bench.dataset.write import build_folder
from medground_bench.sources import open_source
from medground_bench.sources.verify import verify_source
from tests.handmade import finding, grey, write_imagenome, write_nih, write_padchest, write_vindr


def plan(name: str, root: Path) -> Any:
    return make_plan(BuildSettings(config="candidates", sources={name: str(root)}))


def told(name: str, root: Path) -> list[str]:
    """What verify and build say of rows: both must say it."""
    found = verify_source(name, root).broken
    built = plan(name, root).broken
    assert all(any(message.endswith(own) for message in built) for own in found)
    return found


# --- quotes, columns


def test_an_unclosed_quote_swallows_nothing(tmp_path: Path) -> None:
    rows = [f"0000000{k}_000.png,Mass,1,1,5,5,,," for k in range(1, 9)]
    table = write_nih(tmp_path, rows)
    table.write_text(table.read_text().replace("00000003_000.png,Mass", '00000003_000.png,"Mass'))
    with pytest.raises(SourceError, match="quote") as caught:
        open_source("nih_cxr14", tmp_path)
    assert caught.value.where == f"{table}:4"


def test_two_unclosed_quotes_swallow_nothing(tmp_path: Path) -> None:
    rows = [f"0000000{k}_000.png,Mass,1,1,5,5,,," for k in range(1, 9)]
    table = write_nih(tmp_path, rows)
    text = table.read_text().replace("00000003_000.png,Mass", '00000003_000.png,"Mass')
    # The second quote ends the field of the first: a row of the right number of fields, and two rows are gone.
    table.write_text(text.replace("00000005_000.png,Mass", '00000005_000.png,Mass"'))
    with pytest.raises(SourceError, match="runs over several lines") as caught:
        open_source("nih_cxr14", tmp_path)
    assert caught.value.where == f"{table}:4"


@pytest.mark.parametrize("name", ["imagenome", "vindr_cxr"])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, name: str) -> None:
    if name == "imagenome":
        table = write_imagenome(tmp_path, [(10000001, 50000001, "a", 1, "edema", "disease", "[1, 1, 9, 9]")])
        column, delimiter = "label_name", "\t"
    else:
        table = write_vindr(tmp_path, [("a", "Edema", 1, 1, 9, 9)])
        column, delimiter = "x_min", ","
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join([f"{lines[0]}{delimiter}{column}", *(f"{line}{delimiter}7" for line in lines[1:])]) + "\n"
    )
    with pytest.raises(SourceError, match=rf"twice: {column}") as caught:
        open_source(name, tmp_path)
    assert caught.value.where == f"{table}:1"


# --- rows left out, doubled, unknown


def test_imagenome_rows(tmp_path: Path) -> None:
    good = (10000001, 50000001, "a", 1, "edema", "disease", "[1, 1, 9, 9]")
    rows = [
        good,
        (10000001, 50000001, "a", "yes", "mass", "disease", "[1, 1, 9, 9]"),
        (10000001, 50000001, "a", 2, "mass", "disease", "[1, 1, 9, 9]"),
        (10000001, 50000001, "a", 1, "nodule", "diseases", "[1, 1, 9, 9]"),
        good,
        (10000001, 50000001, "a", 0, "mass", "disease", "[1, 1, 9, 9]"),
        (10000001, 50000001, "a", 1, "tube", "tubesandlines", "[1, 1, 9, 9]"),
        (10000001, 50000001, "a", "1.0", "edema", "disease", "[2, 2, 9, 9]"),
    ]
    table = write_imagenome(tmp_path, rows)
    source = open_source("imagenome", tmp_path)
    assert [(c.attribute, c.boxes) for c in source] == [("edema", ((1, 1, 9, 9), (2, 2, 9, 9)))]
    assert source[0].regions == ("right lung", "right lung")
    assert told("imagenome", tmp_path) == [
        f"{table}:3: relation is 'yes' instead of 1 or 0; left out",
        f"{table}:4: relation is '2' instead of 1 or 0; left out",
        f"{table}:5: categoryID is 'diseases', which the gold set does not have; left out",
        f"{table}:6: this row is there twice, first at 2; it is counted once",
    ]


def test_imagenome_regions_belong_to_their_boxes(tmp_path: Path) -> None:
    boxes = ("[1, 1, 9, 9]", "[0, 0, 0, 0]", "[2, 2, 8, 8]")
    table = write_imagenome(tmp_path, [(10000001, 50000001, "a", 1, "edema", "disease", box) for box in boxes])
    lines = table.read_text().splitlines()
    regions = ("left lung", "carina", "right lung")
    table.write_text(
        "\n".join([lines[0], *(o.replace("right lung", n) for o, n in zip(lines[1:], regions, strict=True))])
    )
    (candidate,) = open_source("imagenome", tmp_path)
    assert candidate.boxes == ((1, 1, 9, 9), (2, 2, 8, 8))
    assert candidate.regions == ("left lung", "right lung")


def test_vindr_rows(tmp_path: Path) -> None:
    rows = [
        ("a", "Edema", 1, 1, 9, 9),
        ("a", "No finding", "", "", "", ""),
        ("a", "Oedema", 1, 1, 9, 9),
        ("a", "Edema", 1, 1, 9, 9),
    ]
    table = write_vindr(tmp_path, rows)
    source = open_source("vindr_cxr", tmp_path)
    assert [(c.attribute, c.boxes) for c in source] == [("Edema", ((1, 1, 9, 9),)), ("Oedema", ((1, 1, 9, 9),))]
    assert told("vindr_cxr", tmp_path) == [
        f"{table}:5: this row is there twice, first at 2; it is counted once",
        f"{table}:4: class_name is 'Oedema', which VinDr-CXR does not have",
    ]


def test_padchest_entries(tmp_path: Path) -> None:
    box = [[0.1, 0.1, 0.5, 0.5]]
    lost = {"labels": ["mass"], "boxes": box}
    entries = [
        {"StudyID": "s", "ImageID": "a.png", "findings": [finding(["edema"], box), lost, finding(["edema"], box)]},
        {"StudyID": "s", "ImageID": "a.png", "findings": [finding(["nodule"], box)]},
    ]
    path = write_padchest(tmp_path, entries)
    source = open_source("padchest_gr", tmp_path)
    assert [c.id for c in source] == [
        "padchest_gr/a.png/edema",
        "padchest_gr/a.png/edema#2",
        "padchest_gr/a.png/nodule",
    ]
    assert told("padchest_gr", tmp_path) == [
        f"{path}: entry 0, finding 1: 'abnormal' is missing; left out",
        f"{path}: entry 0, finding 2: the same as finding 0; both keep their places",
        f"{path}: entry 1: image a.png is there twice, first in entry 0; both are used",
    ]


def test_nih_rows(tmp_path: Path) -> None:
    rows = ["00000001_000.png,Mass,1,1,9,9", "00000001_000.png,Mas,1,1,9,9", "00000001_000.png,Mass,1,1,9,9,,,"]
    table = write_nih(tmp_path, rows)
    source = open_source("nih_cxr14", tmp_path)
    assert [(c.attribute, len(c.boxes)) for c in source] == [("Mas", 1), ("Mass", 1)]
    assert told("nih_cxr14", tmp_path) == [
        f"{table}:4: this row is there twice, first at 2; it is counted once",
        f"{table}:3: the finding is 'Mas', which the box list does not have",
    ]


# --- values that break readers: entry and field are named


@pytest.mark.parametrize(
    ("patient", "coordinates", "message"),
    [
        ("1" * 5000, "[1, 1, 9, 9]", r"patient_id is '1111.*\(5002 characters\)"),
        (10000001, "[1, 1, 9, " + "9" * 400 + "]", None),
    ],
)
def test_imagenome_numbers(tmp_path: Path, patient: Any, coordinates: str, message: str | None) -> None:
    table = write_imagenome(tmp_path, [(10000001, 50000001, "a", 1, "edema", "disease", coordinates)])
    table.write_text(table.read_text().replace("10000001\t", f"{patient}\t"))
    if message:
        with pytest.raises(SourceError, match=message) as caught:
            open_source("imagenome", tmp_path)
        assert caught.value.where == f"{table}:2"
    else:
        assert open_source("imagenome", tmp_path).faults == (
            f"{table}:2: box [1, 1, 9, inf] has a coordinate that is not finite",
        )


@pytest.mark.parametrize(
    ("field", "raw", "message"),
    [
        ("boxes", "5", "'boxes' is 5"),
        ("boxes", "[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("labels", '["\\ud800"]', r"'labels' is '\\ud800', which is no text"),
        ("labels", '"mass"', "'labels' is 'mass'"),
        ("abnormal", '"yes"', "'abnormal' is 'yes'"),
        ("boxes", '[], "boxes": [[0, 0, 1, 1]]', r"\['boxes'\] are there twice"),
    ],
)
def test_padchest_fields(tmp_path: Path, field: str, raw: str, message: str) -> None:
    entry = {"StudyID": "s", "ImageID": "a.png", "findings": [{**finding(["x"], [[0, 0, 1, 1]]), field: "MARK"}]}
    path = write_padchest(tmp_path, [entry])
    path.write_text(path.read_text().replace('"MARK"', raw))
    with pytest.raises(SourceError, match=message) as caught:
        open_source("padchest_gr", tmp_path)
    assert str(path) in (caught.value.where or "")
    if "nested" not in message and "twice" not in message:
        assert caught.value.where == f"{path}: entry 0, finding 0"


def test_padchest_numbers_of_400_digits_are_faults(tmp_path: Path) -> None:
    entry = {"StudyID": "s", "ImageID": "a.png", "findings": [finding(["x"], [[0, 0, 1, 7]])]}
    path = write_padchest(tmp_path, [entry])
    path.write_text(path.read_text().replace("7]", "7" * 400 + "]"))
    (fault,) = open_source("padchest_gr", tmp_path).faults
    assert fault == f"{path}: entry 0, finding 0: box [0, 0, 1, inf] has a coordinate that is not finite"


@pytest.mark.parametrize("image", ["x" * 300 + ".png", "x/" * 3000 + "a.png", "a\0.png"])
def test_names_no_file_can_have(tmp_path: Path, image: str) -> None:
    entry = {"StudyID": "s", "ImageID": "a.png", "findings": [finding(["x"], [[0, 0, 1, 1]])]}
    path = write_padchest(tmp_path, [entry])
    path.write_text(json.dumps([{**entry, "ImageID": image}]))
    with pytest.raises(SourceError, match="cannot be a file") as caught:
        open_source("padchest_gr", tmp_path)
    assert caught.value.where == f"{path}: entry 0"


# --- resized and converted copies


def test_nih_boxes_are_stated_on_1024(tmp_path: Path) -> None:
    table = write_nih(tmp_path, ["00000001_000.png,Mass,600,600,300,300"], size=(512, 512))
    (tmp_path / "image_sizes.csv").unlink()
    message = "the boxes are stated on 1024 x 1024, the file has 512 x 512: a resized copy"
    (found,) = verify_source("nih_cxr14", tmp_path).copies
    assert message in found
    assert f"{table.name}: line 2" in found
    with pytest.raises(BuildError, match=message) as caught:
        plan("nih_cxr14", tmp_path)
    assert "clip" not in str(caught.value)
    assert "line 2" in str(caught.value)


def test_nih_copies_converted_with_their_boxes_state_their_size(tmp_path: Path) -> None:
    write_nih(tmp_path, ["00000001_000.png,Mass,10,10,5,5"], size=(60, 40))
    assert verify_source("nih_cxr14", tmp_path).sound
    assert len(plan("nih_cxr14", tmp_path).items) == 1
    sizes = tmp_path / "image_sizes.csv"
    sizes.write_text(sizes.read_text().replace("60,40", "60,-40"))
    with pytest.raises(SourceError, match="is no size") as caught:
        open_source("nih_cxr14", tmp_path)
    assert caught.value.where == f"{sizes}:2"


def test_phantoms_state_their_size(tmp_path: Path) -> None:
    from medground_bench.sources.phantom import write_source

    written = write_source("phantom", tmp_path / "p", 1, size=(256, 224), findings=["nodule"])
    path = written.candidates[0].image_path
    Image.open(path).resize((512, 448)).save(path)
    (found,) = verify_source("phantom", tmp_path / "p").copies
    assert "stated on 256 x 224, the file has 512 x 448" in found


def test_padchest_copies_are_pointed_out(tmp_path: Path) -> None:
    names = ("deep.png", "flat.png", "padded.png", "border.png")
    entries = [{"ImageID": n, "findings": [finding(["mass"], [[0.1, 0.1, 0.9, 0.9]])]} for n in names]
    write_padchest(tmp_path / "s", entries)
    images = tmp_path / "s" / "PadChest_GR"
    values = grey(60, 60, dtype=np.uint16) | 1
    Image.fromarray((values >> 8).astype(np.uint8)).save(images / "flat.png")
    padded, border = values.copy(), values.copy()
    padded[:, :10] = padded[:, -8:] = 0
    border[:, :10] = border[:, -8:] = border[:6] = border[-6:] = 0  # a collimator's, on both axes
    Image.fromarray(padded).save(images / "padded.png")
    Image.fromarray(border).save(images / "border.png")
    copies = verify_source("padchest_gr", tmp_path / "s").copies
    assert len(copies) == 2
    assert "flat.png" in copies[0]
    assert "8 bits per pixel instead of 16" in copies[0]
    assert "padded.png" in copies[1]
    assert "10 and 8 plain columns at the edges" in copies[1]
    folder, built = build_folder(
        BuildSettings(config="candidates", sources={"padchest_gr": str(tmp_path / "s")}), tmp_path / "out", num_proc=2
    )
    notes = json.loads((folder / "build.json").read_text())["configs"]["candidates"]["image_notes"]
    assert notes == built.image_notes
    assert [note.split(" ")[0] for note in notes] == ["flat.png", "padded.png"]
    assert "entry 1, finding 0" in notes[0]


def test_what_a_dicom_left_out_is_in_the_build_record(tmp_path: Path) -> None:
    from tests.handmade import write_dicom

    write_vindr(tmp_path / "v", [("a", "Edema", 1, 1, 9, 9), ("a", "ILD", 2, 2, 9, 9)])
    values = grey(60, 40, dtype=np.uint16) >> 4
    write_dicom(tmp_path / "v/vindr-cxr/1.0.0/test/a.dicom", values, WindowCenter=90000, WindowWidth=10)
    folder, built = build_folder(
        BuildSettings(config="candidates", sources={"vindr_cxr": str(tmp_path / "v")}), tmp_path / "out"
    )
    notes = json.loads((folder / "build.json").read_text())["configs"]["candidates"]["image_notes"]
    assert notes == built.image_notes
    assert len(notes) == 2  # the window left out, the range shown; once for the image's two rows
    assert "window of centre 90000.0 and width 10.0: leaves one value" in notes[1]
    assert str(tmp_path) not in "".join(notes)
    report = verify_source("vindr_cxr", tmp_path / "v")
    assert len(report.notes) == 2
    assert {kind for kind, problems in report.problems().items() if problems} == {"incomplete"}  # notes are none


@pytest.mark.parametrize("name", ["a[1]", "a*", "what?"])
def test_a_folder_that_load_dataset_would_take_for_a_pattern_is_refused(tmp_path: Path, name: str) -> None:
    write_nih(tmp_path / "n", ["00000001_000.png,Mass,10,10,5,5"])
    with pytest.raises(BuildError, match="takes for a pattern"):
        build_folder(BuildSettings(config="candidates", sources={"nih_cxr14": str(tmp_path / "n")}), tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["a[1]", "a*", "what?"])
def test_a_source_in_a_folder_with_such_a_name_is_read(tmp_path: Path, name: str) -> None:
    write_nih(tmp_path / name, ["00000001_000.png,Mass,10,10,5,5"])
    part = tmp_path / name / "images_001" / "images"
    part.mkdir(parents=True)
    (tmp_path / name / "images" / "00000001_000.png").rename(part / "00000001_000.png")
    assert verify_source("nih_cxr14", tmp_path / name).sound


# --- subjects


def test_nih_subjects(tmp_path: Path) -> None:
    write_nih(tmp_path, [f"0000000{k}_000.png,Mass,1,1,9,9" for k in (1, 2, 3)])
    table = tmp_path / "Data_Entry_2017.csv"
    rows = [
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],",
        "00000001_000.png,Mass,0,1,058Y,M,PA,2682,2749,",
        "00000002_000.png,Mass,0,2,414,F,AP,2682,2749,",
        "00000001_000.png,Mass,0,1,59,M,AP,2682,2749,",
    ]
    table.write_text("\n".join(rows) + "\n")
    source = open_source("nih_cxr14", tmp_path)
    assert [(c.sex, c.age, c.view) for c in source] == [("M", 58, "PA"), ("F", None, "AP"), (None, None, None)]
    assert source.reports == (
        f"{table}:3: Patient Age is '414'; taken as unknown",
        f"{table}:4: image '00000001_000.png' is there twice; the first row counts",
    )
    assert table in source.files
