"""DICOM tags as archives really hold them: empty, nonsense, in the wrong notation. The picture must be right anyway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.imaging.dicom import dicom_subject
from medground_bench.imaging.read import read_radiograph
from tests.handmade import write_dicom

RAMP = np.arange(0, 4000, 10, dtype=np.uint16).reshape(20, 20)
FULL = np.rint(RAMP / 3990 * 255).astype(int)


def raw(path: Path, values: np.ndarray = RAMP, photometric: str = "MONOCHROME2", **texts: str) -> Path:
    """A DICOM whose decimal tags hold these texts as they are (pydicom would refuse to write most of them)."""
    from pydicom import dcmread
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    dataset = dcmread(write_dicom(path, values, photometric))
    for keyword, text in texts.items():
        tag = Tag(tag_for_keyword(keyword) or 0)
        value = text.encode() + b" " * (len(text) % 2)
        vr = "CS" if keyword in ("VOILUTFunction", "ViewPosition", "PatientSex") else "AS" if "Age" in keyword else "DS"
        dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    dataset.save_as(path)
    return path


def read(path: Path) -> tuple[np.ndarray, str]:
    radiograph = read_radiograph(path)
    return np.asarray(radiograph.image).astype(int), "\n".join(radiograph.notes)


def linear(centre: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1, written down once more, scaled to what it reaches."""
    y = np.clip((RAMP.astype(float) - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    return np.rint((y - y.min()) / (y.max() - y.min()) * 255).astype(int)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("centre", "width"), [("100000", "50"), ("-500", "100"), ("-1e6", "10")])
def test_a_window_that_leaves_one_value_is_left_out(tmp_path: Path, photometric: str, centre: str, width: str) -> None:
    values, notes = read(raw(tmp_path / "a.dcm", RAMP, photometric, WindowCenter=centre, WindowWidth=width))
    assert (values == (FULL if photometric == "MONOCHROME2" else np.rint(255 - RAMP / 3990 * 255))).all()
    assert f"window of centre {centre} and width {width}: leaves one value of the pixels' 0 to 3990" in notes
    assert "the full range 0 to 3990 is shown" in notes


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": " ", "WindowWidth": " "},
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"VOILUTFunction": ""},
        {"PixelPaddingValue": ""},
        {},
    ],
)
def test_an_empty_tag_counts_as_absent(tmp_path: Path, tags: dict[str, str]) -> None:
    values, notes = read(raw(tmp_path / "a.dcm", **tags))
    assert (values == FULL).all()
    assert notes == ""


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"WindowCenter": "1000", "WindowWidth": "0"}, "width 0: cannot be used (LINEAR takes a width from 1)"),
        ({"WindowCenter": "1000", "WindowWidth": "0.5"}, "width 0.5: cannot be used"),
        ({"WindowCenter": "1000", "WindowWidth": "-800"}, "width -800: cannot be used"),
        ({"WindowCenter": "1000", "WindowWidth": ""}, "WindowCenter 1000, WindowWidth empty: not in pairs"),
        ({"WindowCenter": "wide", "WindowWidth": "800"}, "centre wide and width 800: cannot be used"),
        ({"WindowCenter": "1000", "WindowWidth": "nan"}, "width nan: cannot be used"),
        (
            {"WindowCenter": "1000", "WindowWidth": "0", "VOILUTFunction": "LINEAR_EXACT"},
            "LINEAR_EXACT takes a width above 0",
        ),
        ({"RescaleSlope": "0", "RescaleIntercept": "5", "WindowCenter": "9", "WindowWidth": "9"}, "RescaleSlope 0"),
        ({"RescaleSlope": "steep"}, "RescaleSlope steep, RescaleIntercept empty: cannot be used"),
    ],
)
def test_an_unusable_tag_is_named_and_the_full_range_shown(tmp_path: Path, tags: dict[str, str], named: str) -> None:
    values, notes = read(raw(tmp_path / "a.dcm", **tags))
    assert (values == FULL).all()
    assert named in notes
    assert "corrupt" not in notes


@pytest.mark.parametrize("function", ["", "LINEAR", "linear ", "GAMMA"])
def test_unknown_and_empty_voi_functions_are_linear(tmp_path: Path, function: str) -> None:
    path = raw(tmp_path / "a.dcm", WindowCenter="1000", WindowWidth="800", VOILUTFunction=function)
    values, notes = read(path)
    assert (values == linear(1000, 800)).all()
    assert notes == ("VOILUTFunction GAMMA: not known, read as LINEAR" if function == "GAMMA" else "")


def test_a_width_below_one_is_a_width_for_linear_exact(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.dcm", WindowCenter="1000", WindowWidth="0.5", VOILUTFunction="LINEAR_EXACT")
    values, notes = read(path)
    assert (values == np.where(RAMP < 1000, 0, np.where(RAMP > 1000, 255, 128))).all()
    assert notes == ""


def test_a_width_of_one_is_a_threshold(tmp_path: Path) -> None:
    values, _ = read(raw(tmp_path / "a.dcm", WindowCenter="1000", WindowWidth="1"))
    assert (values == np.where(RAMP > 999.5, 255, 0)).all()


def test_decimal_commas_are_read(tmp_path: Path) -> None:
    tags = {"WindowCenter": "1000,5", "WindowWidth": "800,25", "RescaleSlope": "1,0", "RescaleIntercept": "0,0"}
    values, notes = read(raw(tmp_path / "a.dcm", **tags))
    assert (values == linear(1000.5, 800.25)).all()
    assert notes == ""


def test_implicit_value_representations(tmp_path: Path) -> None:
    from pydicom import dcmread
    from pydicom.uid import ImplicitVRLittleEndian

    path = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=1000, WindowWidth=800, PixelPaddingValue=3990)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(tmp_path / "b.dcm", implicit_vr=True, little_endian=True)
    assert (read(tmp_path / "b.dcm")[0] == read(path)[0]).all()
    assert (read(path)[0][RAMP == 3990] == 0).all()


def test_the_first_window_that_can_be_used_is_used(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.dcm", WindowCenter="5\\99999\\1000", WindowWidth="0\\10\\800")
    values, notes = read(path)
    assert (values == linear(1000, 800)).all()
    assert "width 0: cannot be used" in notes
    assert "centre 99999 and width 10: leaves one value" in notes


def test_a_lut_that_leaves_one_value_makes_way_for_the_window(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [2, 0, 16], np.array([7, 7], np.uint16).tobytes()
    lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", "OW"
    path = write_dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=[lut], WindowCenter=1000, WindowWidth=800)
    values, notes = read(path)
    assert (values == linear(1000, 800)).all()
    assert "VOILUTSequence, item 1: leaves one value" in notes


def test_a_lut_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    path = write_dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=[Dataset()], ModalityLUTSequence=[])
    values, notes = read(path)
    assert (values == FULL).all()
    assert "VOILUTSequence, item 1: cannot be used" in notes


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_left_out_of_the_range_and_painted_black(tmp_path: Path, photometric: str) -> None:
    values = RAMP + 100
    values[:, :2] = 65535  # far outside the pixels' range: counted in, it would squeeze them into a few grey levels
    seen, notes = read(write_dicom(tmp_path / "a.dcm", values, photometric, PixelPaddingValue=65535))
    assert (seen[:, :2] == 0).all()
    scaled = (values[:, 2:] - 120.0) / (4090 - 120) * 255
    assert (seen[:, 2:] == np.rint(scaled if photometric == "MONOCHROME2" else 255 - scaled)).all()
    assert "10.0% of the pixels are padding (value 65535)" in notes


def test_padding_ranges_and_signed_values(tmp_path: Path) -> None:
    values = RAMP.astype(np.int16) - 1000
    values[:1], values[1:2] = -2000, -1990
    path = write_dicom(tmp_path / "a.dcm", values.view(np.uint16), PixelRepresentation=1)
    from pydicom import dcmread

    dataset: Any = dcmread(path)
    dataset.add_new(0x00280120, "US", 63536)  # -2000 as it is often stored
    dataset.add_new(0x00280121, "SS", -1990)
    dataset.save_as(path)
    seen, notes = read(path)
    assert (seen[:2] == 0).all()
    scaled = (values[2:] - values[2:].min()) / float(values[2:].max() - values[2:].min()) * 255
    assert (seen[2:] == np.rint(scaled)).all()
    assert "value -2000 to -1990" in notes


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_signed_values_over_their_whole_range(tmp_path: Path, photometric: str) -> None:
    values = np.linspace(-32768, 32767, 400).astype(np.int16).reshape(20, 20)
    seen, _ = read(write_dicom(tmp_path / "a.dcm", values.view(np.uint16), photometric, PixelRepresentation=1))
    scaled = (values.astype(float) + 32768) / 65535 * 255
    assert (seen == np.rint(scaled if photometric == "MONOCHROME2" else 255 - scaled)).all()


def test_an_image_of_padding_only_and_no_padding_at_all(tmp_path: Path) -> None:
    assert "taken as pixels" in read(write_dicom(tmp_path / "a.dcm", RAMP * 0, PixelPaddingValue=0))[1]
    values, notes = read(write_dicom(tmp_path / "b.dcm", RAMP, PixelPaddingValue=7))
    assert (values == FULL).all()
    assert notes == ""


def test_a_constant_image_blames_no_window(tmp_path: Path) -> None:
    values, notes = read(write_dicom(tmp_path / "a.dcm", RAMP * 0 + 9, WindowCenter=1000, WindowWidth=800))
    assert (values == 0).all()
    assert notes == ""


@pytest.mark.parametrize(
    ("tags", "subject"),
    [
        ({"PatientSex": "F", "PatientAge": "045Y", "ViewPosition": "pa"}, ("F", 45, "PA")),
        ({"PatientSex": "x", "PatientAge": "018M", "ViewPosition": ""}, (None, 1, None)),
        ({"PatientAge": "58"}, (None, 58, None)),
        ({"PatientAge": "old"}, (None, None, None)),
        ({}, (None, None, None)),
    ],
)
def test_the_subject_of_a_header(tmp_path: Path, tags: dict[str, str], subject: tuple[object, ...]) -> None:
    assert dicom_subject(raw(tmp_path / "a.dcm", **tags)) == subject


def test_no_file_has_no_subject(tmp_path: Path) -> None:
    assert dicom_subject(tmp_path / "a.dcm") == (None, None, None)
