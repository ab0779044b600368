from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medground_bench.core.errors import ImageError
from medground_bench.imaging import read as images
from medground_bench.imaging.read import image_size, read_image, scale_to_8_bit
from tests.handmade import grey, write_dicom

RAMP = np.arange(0, 4000, 10, dtype=np.uint16).reshape(20, 20)


def pixels(path: Path, **options: str) -> np.ndarray:
    image = read_image(path, **options)  # type: ignore[arg-type]
    assert image.mode == "L"
    assert image.size == image_size(path)
    return np.asarray(image).astype(int)


def expected(values: np.ndarray) -> np.ndarray:
    """Min-max scaling, written down once more."""
    values = values.astype(np.float64)
    return np.rint((values - values.min()) / (values.max() - values.min()) * 255).astype(int)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_8_bit_files_are_kept_as_they_are(tmp_path: Path, suffix: str) -> None:
    values = grey(33, 21) // 2  # does not use the full range
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    assert (pixels(tmp_path / f"a{suffix}") == values).all()
    assert (pixels(tmp_path / f"a{suffix}", scaling="percentile") == values).all()


def test_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(grey(33, 21)).save(path)
    assert (pixels(path) == np.asarray(Image.open(path))).all()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_files_are_scaled(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(RAMP).save(path)
    assert (pixels(path) == expected(RAMP)).all()


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(grey(8, 9)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert pixels(tmp_path / "a.jpg").shape == (9, 8)
    write_dicom(tmp_path / "b", RAMP)
    assert (pixels(tmp_path / "b") == expected(RAMP)).all()


def test_grey_saved_as_colour_is_read_and_colour_refused(tmp_path: Path) -> None:
    values = grey(16, 16)
    Image.merge("RGBA", [Image.fromarray(values)] * 3 + [Image.new("L", (16, 16), 255)]).save(tmp_path / "g.png")
    assert (pixels(tmp_path / "g.png") == values).all()
    Image.merge("RGB", [Image.fromarray(v) for v in (values, values // 2, values)]).save(tmp_path / "c.png")
    with pytest.raises(ImageError, match="colour image"):
        read_image(tmp_path / "c.png")


def test_several_pages_are_refused(tmp_path: Path) -> None:
    page = Image.fromarray(grey(8, 8))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page])
    with pytest.raises(ImageError, match="holds 2 images"):
        read_image(tmp_path / "a.tif")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, np.nan], [1, 2]], np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="not finite"):
        read_image(tmp_path / "a.tif")


def test_scaling_known_answers() -> None:
    assert scale_to_8_bit(np.array([[10, 20, 30]], np.uint16)).tolist() == [[0, 128, 255]]
    assert scale_to_8_bit(np.full((2, 2), 7, np.uint16)).tolist() == [[0, 0], [0, 0]]
    values = np.arange(1001, dtype=np.float64)[None]
    values[0, -1] = 1e9  # one hot pixel
    assert scale_to_8_bit(values)[0, 500] == 0
    assert abs(int(scale_to_8_bit(values, "percentile")[0, 500]) - 127) <= 1
    assert scale_to_8_bit(values, "percentile")[0, 0] == 0
    with pytest.raises(ValueError, match="unknown scaling"):
        read_image("x", scaling="gamma")  # type: ignore[arg-type]


# --- DICOM


def test_dicom_min_max(tmp_path: Path) -> None:
    assert (pixels(write_dicom(tmp_path / "a.dcm", RAMP)) == expected(RAMP)).all()


def test_monochrome1_is_the_inverse(tmp_path: Path) -> None:
    two = pixels(write_dicom(tmp_path / "2.dcm", RAMP, WindowCenter=1000, WindowWidth=800))
    one = pixels(write_dicom(tmp_path / "1.dcm", RAMP, "MONOCHROME1", WindowCenter=1000, WindowWidth=800))
    assert (one + two == 255).all()


def test_window_comes_before_the_inversion(tmp_path: Path) -> None:
    # Values above 1400 are cut by the window. Inverting first would cut the other tail.
    values = pixels(write_dicom(tmp_path / "a.dcm", RAMP, "MONOCHROME1", WindowCenter=1000, WindowWidth=800))
    assert (values[RAMP >= 1400] == 0).all()
    assert (values[RAMP <= 600] == 255).all()
    inside = values[(RAMP > 620) & (RAMP < 1380)]
    assert len(np.unique(inside)) > 50


def test_linear_window_known_answer(tmp_path: Path) -> None:
    values = pixels(write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=1000, WindowWidth=801))
    # PS3.3 C.11.2.1.2: y = ((x - (c - 0.5)) / (w - 1) + 0.5) * range
    answer = np.clip(((RAMP.astype(float) - 999.5) / 800 + 0.5), 0, 1) * 255
    assert np.abs(values - answer).max() <= 0.51


def test_sigmoid_window_known_answer(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=1000, WindowWidth=800, VOILUTFunction="SIGMOID")
    answer = 1 / (1 + np.exp(-4 * (RAMP.astype(float) - 1000) / 800))
    assert np.abs(pixels(path) - expected(answer)).max() <= 1


def test_modality_rescale_comes_before_the_window(tmp_path: Path) -> None:
    plain = pixels(write_dicom(tmp_path / "a.dcm", RAMP, WindowCenter=1000, WindowWidth=800))
    path = write_dicom(
        tmp_path / "b.dcm", RAMP, RescaleSlope=2, RescaleIntercept=-1024, WindowCenter=976, WindowWidth=1600
    )
    assert np.abs(pixels(path) - plain).max() <= 1


def test_voi_lut_wins_over_the_window(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    lut = Dataset()
    lut.LUTDescriptor = [4000, 0, 16]
    lut.LUTData = np.where(np.arange(4000) < 2000, 0, 60000).astype(np.uint16).tobytes()
    lut["LUTDescriptor"].VR = "US"
    lut["LUTData"].VR = "OW"
    path = write_dicom(tmp_path / "a.dcm", RAMP, VOILUTSequence=[lut], WindowCenter=100, WindowWidth=10)
    assert (pixels(path) == np.where(RAMP < 2000, 0, 255)).all()


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEG2000Lossless"])
def test_compressed_dicom_equals_the_plain_one(tmp_path: Path, syntax: str) -> None:
    import pydicom
    from pydicom import uid

    path = write_dicom(tmp_path / "a.dcm", np.tile(RAMP, (4, 4)), "MONOCHROME1")
    plain = pixels(path)
    dataset = pydicom.dcmread(path)
    dataset.compress(getattr(uid, syntax))
    dataset.save_as(tmp_path / "b.dcm")
    assert (pixels(tmp_path / "b.dcm") == plain).all()


@pytest.mark.parametrize(
    ("values", "photometric", "tags", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), "MONOCHROME2", {"NumberOfFrames": 3}, "3 frames"),
        (np.zeros((8, 8), np.uint8), "PALETTE COLOR", {}, "PALETTE COLOR"),
        (np.zeros((8, 8), np.uint8), "RGB", {"SamplesPerPixel": 3}, "RGB with 3"),
    ],
)
def test_colour_and_frames_are_refused(
    tmp_path: Path, values: np.ndarray, photometric: str, tags: dict[str, int], message: str
) -> None:
    path = write_dicom(tmp_path / "a.dcm", values, photometric, **tags)
    with pytest.raises(ImageError, match=message):
        read_image(path)


def test_real_dicom_twins(shared_data: Path) -> None:
    folder = shared_data / "data" / "dicom"
    two = pixels(folder / "siim_nih_mono2_8bit_jpeg.dcm")
    one = pixels(folder / "siim_nih_fake_mono1_8bit_jpeg.dcm")
    assert (one + two == 255).all()  # the same pixels with the tag changed: an inverted picture, by design


@pytest.mark.parametrize(
    ("dicom", "png", "tolerance"),
    [("RG1_J2KI_mono1_15bit_j2k.dcm", "RG1_16bit.png", 1), ("gdcm_CR-MONO1-10-chest_mono1_10bit.dcm", None, 0)],
)
def test_real_monochrome1_is_bright_where_dense(shared_data: Path, dicom: str, png: str | None, tolerance: int) -> None:
    folder = shared_data / "data" / "dicom"
    values = pixels(folder / dicom)
    height, width = values.shape
    spine = values[height // 3 : height // 2, int(width * 0.47) : int(width * 0.53)]
    lungs = values[height // 3 : height // 2, int(width * 0.2) : int(width * 0.3)]
    assert spine.mean() > lungs.mean() + 20
    if png is not None:
        # The PNG was made from the same pixels, inverted, without the window (which is the full range here).
        assert np.abs(values - pixels(folder / png)).max() <= tolerance


# --- damage


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", [".png", ".jpg", ".tif", ".dcm", "16.png"])
def test_truncated_files_are_errors(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / f"a{kind}"
    if kind == ".dcm":
        write_dicom(path, grey(64, 48, dtype=np.uint16))
    else:
        Image.fromarray(grey(64, 48, dtype=np.uint16 if kind == "16.png" else np.uint8)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.where == str(path)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_text("hello")
    for reader in (read_image, image_size):
        with pytest.raises(ImageError, match="not an image"):
            reader(tmp_path / "a.png")
    (tmp_path / "a.dcm").write_text("hello")
    with pytest.raises(ImageError, match="not a DICOM"):
        read_image(tmp_path / "a.dcm")
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path)


def test_bombs_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(grey(50, 40)).save(tmp_path / "a.png")
    write_dicom(tmp_path / "a.dcm", grey(50, 40, dtype=np.uint16))
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 1999)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("an image was decoded"))
    for name in ("a.png", "a.dcm"):
        for reader in (read_image, image_size):
            with pytest.raises(ImageError, match="50x40 pixels"):
                reader(tmp_path / name)


def test_a_real_bomb(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")  # 400 million pixels in a few kilobytes
    assert (tmp_path / "a.png").stat().st_size < 100_000
    with pytest.raises(ImageError, match="bomb"):
        read_image(tmp_path / "a.png")
