"""Any radiograph file -> one 8-bit grey image.

JPEG, PNG (8 and 16 bit), TIFF and DICOM are told apart by their content, not their name. An 8-bit grey file is
kept as it is; deeper pixels are scaled to 8 bits, a DICOM after its LUTs and windows (see
:mod:`medground_bench.imaging.dicom`).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from medground_bench.core.errors import ImageError
from medground_bench.imaging import png
from medground_bench.imaging.dicom import EXPECTED as _EXPECTED
from medground_bench.imaging.dicom import dicom_size, dicom_values

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "MAX_IMAGE_PIXELS",
    "SCALINGS",
    "Radiograph",
    "Scaling",
    "image_size",
    "padding_bars",
    "read_image",
    "read_radiograph",
    "scale_to_8_bit",
]

Scaling = Literal["minmax", "percentile"]
SCALINGS: tuple[Scaling, ...] = ("minmax", "percentile")

MAX_IMAGE_PIXELS = 100_000_000
"""Larger images are refused before they are decoded; a full-size radiograph has 10 to 25 million pixels."""

PERCENTILES = (0.5, 99.5)
"""What ``scaling="percentile"`` maps to black and white: burnt-in markers and dead pixels no longer set the range."""

_FORMATS = ("JPEG", "PNG", "TIFF")
_GREY_TOLERANCE = 24  # JPEG chroma rounding of a grey image that was saved as colour stays far below this


class Radiograph(NamedTuple):
    """An image as it was read.

    Attributes
    ----------
    image : Image
        Mode "L", bright = dense.
    bits : int
        Bits per pixel in the file.
    notes : tuple of str
        What a reader of the image should know: tags of a DICOM that were left out, padding that was painted over.
    """

    image: Image
    bits: int
    notes: tuple[str, ...] = ()


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
            size = dicom_size(_dicom(path, pixels=False), path)
    else:
        with _pillow(path, header_only=True) as image:
            size = image.size
    _check_size(size, path)
    return size


def read_image(path: str | Path, scaling: Scaling = "minmax") -> Image:
    """Read a radiograph as a Pillow image of mode "L", bright = dense; see :func:`read_radiograph`."""
    return read_radiograph(path, scaling).image


def read_radiograph(path: str | Path, scaling: Scaling = "minmax") -> Radiograph:
    """Read a radiograph and what there is to say about how it was read.

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


def scale_to_8_bit(values: np.ndarray, scaling: Scaling = "minmax", inside: np.ndarray | None = None) -> np.ndarray:
    """Scale values linearly to 0-255, clipped and rounded to nearest; a constant image becomes black.

    Parameters
    ----------
    values : ndarray
        (H, W) finite numbers.
    scaling : {"minmax", "percentile"}
        Which values become 0 and 255.
    inside : ndarray, optional
        (H, W) bool: the pixels that set the range; the others become black.

    Returns
    -------
    ndarray
        (H, W) uint8.
    """
    chosen = values if inside is None else values[inside]
    if scaling == "percentile":
        low, high = (float(v) for v in np.percentile(chosen, PERCENTILES))
    else:
        low, high = float(chosen.min()), float(chosen.max())
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    if values.dtype in (np.uint8, np.uint16):
        # One division per grey level instead of one per pixel.
        table = (np.arange(np.iinfo(values.dtype).max + 1, dtype=np.float64) - low) * (255.0 / (high - low))
        out = _round(table)[values]
    else:
        out = _round((values.astype(np.float64) - low) * (255.0 / (high - low)))
    return out if inside is None else np.where(inside, out, np.uint8(0))


def padding_bars(image: Image) -> str | None:
    """Whether a square image is a picture between two bars (or beside one) of a single grey value, in words.

    Bars on one axis only and of at least 2 % of the side count: that is how a picture is made square. A dark border
    all around is the collimator's.
    """
    values = np.asarray(image)
    side = values.shape[0]
    if values.shape != (side, side):
        return None
    found = []
    for name, lines in (("columns", values.T), ("rows", values)):
        bars = (_bar(lines), _bar(lines[::-1]))
        if sum(bars) >= max(2, 0.02 * side):
            found.append(f"{bars[0]} and {bars[1]} plain {name} at the edges of a square image")
    return found[0] if len(found) == 1 else None


def _bar(lines: np.ndarray) -> int:
    """How many lines from the first on hold the grey value of the first pixel only; none if all do."""
    plain = (lines == lines[0, 0]).all(axis=1)
    return 0 if plain.all() else int(np.argmin(plain))


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
def _pillow(path: Path, header_only: bool = False) -> Iterator[Image]:
    """Open an image file lazily; everything that goes wrong inside is an ImageError."""
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Size: our own limit is checked from the header. Metadata that is damaged does not concern the pixels.
            warnings.simplefilter("ignore")
            with open(path, "rb") as file:
                is_png = file.read(len(png.SIGNATURE)) == png.SIGNATURE
            with pil.open(png.essential(path, header_only) if is_png else path, formats=_FORMATS) as image:
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


def _read_file(path: Path, scaling: Scaling) -> Radiograph:
    from PIL import Image as pil

    with _pillow(path) as image:
        _check_size(image.size, path)
        if getattr(image, "n_frames", 1) > 1:
            raise ImageError(f"the file holds {image.n_frames} images", where=path, expected=_EXPECTED)  # type: ignore[attr-defined]
        if image.format == "PNG" and (channels := png.deep_channels(path)) is not None:
            return Radiograph(pil.fromarray(scale_to_8_bit(_grey_of_channels(channels, path), scaling)), 16)
        image.load()
        mode = image.mode
        if mode == "L":
            return Radiograph(image.copy(), 8)
        if mode in ("1", "LA", "La"):
            return Radiograph(image.convert("L"), 1 if mode == "1" else 8)
        if mode in ("RGB", "RGBA", "P", "PA", "RGBX", "YCbCr"):
            return Radiograph(_grey_of_colour(image.convert("RGB"), path), 8)
        if mode.startswith("I") or mode == "F":
            values = _deep_values(image, path)
            return Radiograph(pil.fromarray(scale_to_8_bit(values, scaling)), 16 if values.dtype == np.uint16 else 32)
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
    _refuse_colour(max(int(np.asarray(ImageChops.difference(red, c)).max()) for c in (green, blue)), path)
    return image.convert("L")


def _grey_of_channels(channels: np.ndarray, path: Path) -> np.ndarray:
    """16-bit grey values behind (H, W, 2, 3 or 4) channels, the last of 2 or 4 being alpha; real colour is refused."""
    red = channels[..., 0]
    if channels.shape[-1] > 2:
        spread = max(int(np.abs(red.astype(np.int32) - channels[..., c]).max()) for c in (1, 2))
        _refuse_colour(spread // 257, path)
        # Luma of ITU-R BT.601, as Pillow's: three equal channels stay what they are.
        return np.rint(channels[..., :3] @ np.array([0.299, 0.587, 0.114])).astype(np.uint16)
    return red


def _refuse_colour(spread: int, path: Path) -> None:
    if spread > _GREY_TOLERANCE:
        raise ImageError(
            f"this is a colour image (channels differ by up to {spread} of 255)", where=path, expected=_EXPECTED
        )


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
            f"this DICOM file cannot be decoded: {error}",
            where=path,
            expected=_EXPECTED,
            remedy="fetch it again; JPEG, JPEG 2000 and RLE need the pylibjpeg packages of this project",
        ) from error


def _dicom(path: Path, pixels: bool = True) -> Any:
    import pydicom

    return pydicom.dcmread(path, stop_before_pixels=not pixels)


def _read_dicom(path: Path, scaling: Scaling) -> Radiograph:
    from PIL import Image as pil

    with _damage(path):
        dataset = _dicom(path)
        _check_size(dicom_size(dataset, path), path)
        grey = dicom_values(dataset, path)
    image = pil.fromarray(scale_to_8_bit(grey.values, scaling, grey.inside))
    return Radiograph(image, grey.bits, tuple(grey.notes))
