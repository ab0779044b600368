"""Any radiograph file -> one 8-bit grey image.

JPEG, PNG (8 and 16 bit), TIFF and DICOM are told apart by their content, not their name. An 8-bit grey file is
kept as it is; deeper pixels are scaled to 8 bits. A DICOM goes through the modality LUT, the VOI LUT or window
(LINEAR, LINEAR_EXACT, SIGMOID), then MONOCHROME1 is inverted, then its values are scaled, in this order: a window
is stated in stored polarity, so inverting first would window the wrong tail.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from medground_bench.core.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_IMAGE_PIXELS", "SCALINGS", "Scaling", "image_size", "read_image"]

Scaling = Literal["minmax", "percentile"]
SCALINGS: tuple[Scaling, ...] = ("minmax", "percentile")

MAX_IMAGE_PIXELS = 100_000_000
"""Larger images are refused before they are decoded; a full-size radiograph has 10 to 25 million pixels."""

PERCENTILES = (0.5, 99.5)
"""What ``scaling="percentile"`` maps to black and white: burnt-in markers and dead pixels no longer set the range."""

_FORMATS = ("JPEG", "PNG", "TIFF")
_GREY_TOLERANCE = 24  # JPEG chroma rounding of a grey image that was saved as colour stays far below this
_EXPECTED = "a JPEG, PNG, TIFF or DICOM file with one grey image"


def image_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of an image file in pixels, from its header alone.

    Raises
    ------
    ImageError
        If the file is missing, empty, no image we read, or larger than ``MAX_IMAGE_PIXELS``.
    """
    path = Path(path)
    if _is_dicom(path):
        with _damage(path):
            size = _dicom_size(_dicom(path, pixels=False), path)
    else:
        with _pillow(path) as image:
            size = image.size
    _check_size(size, path)
    return size


def read_image(path: str | Path, scaling: Scaling = "minmax") -> Image:
    """Read a radiograph as a Pillow image of mode "L", bright = dense.

    Parameters
    ----------
    path : path
        JPEG, PNG, TIFF or DICOM file.
    scaling : {"minmax", "percentile"}
        How values deeper than 8 bits (and every DICOM) become 0-255: smallest and largest value (the paper's
        rule), or the 0.5 and 99.5 percentiles.

    Raises
    ------
    ImageError
        If the file is missing, truncated or corrupt, holds colour or several frames, or is too large.
    ValueError
        If the scaling is unknown.
    """
    if scaling not in SCALINGS:
        raise ValueError(f"unknown scaling {scaling!r}: expected one of {', '.join(SCALINGS)}")
    path = Path(path)
    return _read_dicom(path, scaling) if _is_dicom(path) else _read_file(path, scaling)


def scale_to_8_bit(values: np.ndarray, scaling: Scaling = "minmax") -> np.ndarray:
    """Scale values linearly to 0-255, clipped and rounded to nearest; a constant image becomes black.

    Parameters
    ----------
    values : ndarray
        (H, W) finite numbers.
    scaling : {"minmax", "percentile"}
        Which values become 0 and 255.

    Returns
    -------
    ndarray
        (H, W) uint8.
    """
    if scaling == "percentile":
        low, high = (float(v) for v in np.percentile(values, PERCENTILES))
    else:
        low, high = float(values.min()), float(values.max())
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    if values.dtype in (np.uint8, np.uint16):
        # One division per grey level instead of one per pixel.
        table = (np.arange(np.iinfo(values.dtype).max + 1, dtype=np.float64) - low) * (255.0 / (high - low))
        return _round(table)[values]
    return _round((values.astype(np.float64) - low) * (255.0 / (high - low)))


def _round(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _check_size(size: tuple[int, int], path: Path) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels ({width}x{height})", where=path, expected=_EXPECTED)
    if width * height > MAX_IMAGE_PIXELS:
        raise ImageError(
            f"the image claims {width}x{height} pixels",
            where=path,
            expected=f"at most {MAX_IMAGE_PIXELS:,} pixels (larger ones are refused as decompression bombs)",
            remedy="check the file; raise medground_bench.imaging.read.MAX_IMAGE_PIXELS if it is really this large",
        )


def _is_dicom(path: Path) -> bool:
    """Whether the file carries the DICOM mark; missing and empty files are refused here."""
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except FileNotFoundError:
        raise ImageError("this image file does not exist", where=path, expected=_EXPECTED) from None
    except OSError as error:
        raise ImageError(f"this file cannot be read: {error.strerror or error}", where=path) from error
    if not head:
        raise ImageError("this file is empty (0 bytes)", where=path, expected=_EXPECTED, remedy="fetch it again")
    if head[128:132] == b"DICM":
        return True
    if path.suffix.lower() in (".dcm", ".dicom"):
        raise ImageError("this is not a DICOM file", where=path, expected="the mark DICM at byte 128")
    return False


# --- JPEG, PNG, TIFF


@contextlib.contextmanager
def _pillow(path: Path) -> Iterator[Image]:
    """Open an image file lazily; everything that goes wrong inside is an ImageError."""
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Size: our own limit is checked from the header. Metadata that is damaged does not concern the pixels.
            warnings.simplefilter("ignore")
            with pil.open(path, formats=_FORMATS) as image:
                yield image
    except ImageError:
        raise
    except pil.DecompressionBombError as error:
        raise ImageError(f"refused as a decompression bomb: {error}", where=path) from error
    except UnidentifiedImageError as error:
        raise ImageError("this is not an image we read", where=path, expected=_EXPECTED) from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        # What Pillow raises for damaged files varies with the format and the place of the damage.
        raise ImageError(
            f"this image is truncated or corrupt: {error}", where=path, expected=_EXPECTED, remedy="fetch it again"
        ) from error


def _read_file(path: Path, scaling: Scaling) -> Image:
    from PIL import Image as pil

    with _pillow(path) as image:
        _check_size(image.size, path)
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError(f"the file holds {image.n_frames} images", where=path, expected=_EXPECTED)  # type: ignore[attr-defined]
        image.load()
        mode = image.mode
        if mode == "L":
            return image.copy()
        if mode in ("1", "LA", "La"):
            return image.convert("L")
        if mode in ("RGB", "RGBA", "P", "PA", "RGBX", "YCbCr"):
            return _grey_of_colour(image.convert("RGB"), path)
        if mode.startswith("I") or mode == "F":
            return pil.fromarray(scale_to_8_bit(_deep_values(image, path), scaling))
    raise ImageError(f"the image has colour mode {mode}", where=path, expected=_EXPECTED)


def _deep_values(image: Image, path: Path) -> np.ndarray:
    """Pixels of a 16- or 32-bit image as numbers."""
    values = np.asarray(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError("the image has values that are not finite", where=path, expected=_EXPECTED)
    if values.dtype.kind in "iu" and values.size and values.min() >= 0 and values.max() <= 0xFFFF:
        return values.astype(np.uint16)
    return values


def _grey_of_colour(image: Image, path: Path) -> Image:
    """The grey image behind a file with three equal channels; real colour is refused."""
    from PIL import ImageChops

    red, green, blue = image.split()
    spread = max(int(np.asarray(ImageChops.difference(red, c)).max()) for c in (green, blue))
    if spread > _GREY_TOLERANCE:
        raise ImageError(f"this is a colour image (channels differ by up to {spread})", where=path, expected=_EXPECTED)
    return image.convert("L")


# --- DICOM


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Whatever pydicom raises inside is an ImageError: it parses lazily, so damage shows anywhere."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(
            f"this DICOM file is truncated, corrupt or cannot be decoded: {error}",
            where=path,
            expected=_EXPECTED,
            remedy="fetch it again; JPEG, JPEG 2000 and RLE need the pylibjpeg packages of this project",
        ) from error


def _dicom(path: Path, pixels: bool = True) -> Any:
    import pydicom

    return pydicom.dcmread(path, stop_before_pixels=not pixels)


def _dicom_size(dataset: Any, path: Path) -> tuple[int, int]:
    if dataset.get("Rows") is None or dataset.get("Columns") is None:
        # Also what is left of a file that was cut off within its pixel data.
        raise ImageError(
            "this DICOM file is truncated or holds no image (no Rows and Columns)", where=path, expected=_EXPECTED
        )
    return int(dataset.Columns), int(dataset.Rows)


def _read_dicom(path: Path, scaling: Scaling) -> Image:
    from PIL import Image as pil

    with _damage(path):
        dataset = _dicom(path)
        _check_size(_dicom_size(dataset, path), path)
        _check_single_grey(dataset, path)
        _check_complete(dataset, path)
        values = _windowed(dataset, path)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            values = values.max() - values
    return pil.fromarray(scale_to_8_bit(values, scaling))


def _check_single_grey(dataset: Any, path: Path) -> None:
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ImageError(f"the DICOM file has {frames} frames", where=path, expected=_EXPECTED)
    photometric = str(dataset.get("PhotometricInterpretation") or "nothing")
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(
            f"the DICOM file states {photometric} with {samples} value(s) per pixel",
            where=path,
            expected="MONOCHROME1 or MONOCHROME2, one value per pixel",
        )
    if "PixelData" not in dataset:
        raise ImageError("the DICOM file has no pixel data", where=path, expected=_EXPECTED, remedy="fetch it again")


def _check_complete(dataset: Any, path: Path) -> None:
    """Refuse compressed pixel data whose fragments are cut off: some JPEG decoders fill what is missing with grey."""
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return  # pydicom itself compares native data with its stated length
    from pydicom.encaps import parse_fragments

    if not parse_fragments(dataset.PixelData)[0]:
        raise ImageError("the DICOM pixel data is empty", where=path, expected=_EXPECTED, remedy="fetch it again")


def _windowed(dataset: Any, path: Path) -> np.ndarray:
    """Pixels after the modality LUT and the VOI LUT or window, in stored polarity."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    values = np.asarray(apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset))
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ImageError(f"the DICOM pixels are not one finite grey image (shape {values.shape})", where=path)
    return values
