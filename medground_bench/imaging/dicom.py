"""The grey values of a DICOM radiograph, bright = dense, whatever state its tags are in.

The order is that of the standard (PS3.3 C.11, C.7.6.3): modality LUT or rescale, VOI LUT or window, then MONOCHROME1
is inverted; a window is stated in stored polarity, so inverting first would window the wrong tail. Archives are full of
tags that are empty or nonsense. An empty tag counts as absent. One that cannot be used is left out and named in the
notes, and so is a window that leaves one value of many: the pixels are then shown over their full range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medground_bench.core.errors import ImageError

__all__ = ["EXPECTED", "DicomSubject", "GreyValues", "dicom_size", "dicom_subject", "dicom_values"]

EXPECTED = "a JPEG, PNG, TIFF or DICOM file with one grey image"

_Apply = Callable[[np.ndarray], np.ndarray]
_TEXT_VRS = ("DS", "AS", "IS", "LO", "SH", "ST", "LT", "CS", "UN", "UC", "UT")


class GreyValues(NamedTuple):
    """Pixels of one image.

    Attributes
    ----------
    values : ndarray, shape (H, W)
        Finite numbers, bright = dense.
    inside : ndarray, shape (H, W), bool, or None
        The pixels that are no padding; None if all are.
    bits : int
        Bits stored per pixel.
    notes : list of str
        Tags that were left out and why; padding that was found.
    """

    values: np.ndarray
    inside: np.ndarray | None
    bits: int
    notes: list[str]


class DicomSubject(NamedTuple):
    """Sex ("M", "F" or "O"), age in whole years and view ("PA", "AP", ...) that a header states, None where not."""

    sex: str | None
    age: int | None
    view: str | None


def dicom_size(dataset: Any, path: Path) -> tuple[int, int]:
    """(width, height) of a DICOM data set.

    Raises
    ------
    ImageError
        If it has none.
    """
    if dataset.get("Rows") is None or dataset.get("Columns") is None:
        # Also what is left of a file that was cut off within its pixel data.
        raise ImageError(
            "this DICOM file is truncated or holds no image (no Rows and Columns)", where=path, expected=EXPECTED
        )
    return int(dataset.Columns), int(dataset.Rows)


def dicom_subject(path: Path) -> DicomSubject:
    """What the header of a DICOM file says of the patient and the view; nothing where it cannot be read."""
    import pydicom

    tags = ["PatientSex", "PatientAge", "ViewPosition"]
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except Exception:  # a damaged file is reported where its pixels are needed
        return DicomSubject(None, None, None)
    sex, age, view = ((_texts(dataset, tag) or [""])[0].upper() for tag in tags)
    years = int(age[:-1]) if age[:-1].isdecimal() and age[-1] == "Y" else int(age) if age.isdecimal() else None
    if age[:-1].isdecimal() and age[-1:] in ("M", "W", "D"):
        years = int(age[:-1]) // {"M": 12, "W": 52, "D": 365}[age[-1]]
    return DicomSubject(sex if sex in ("M", "F", "O") else None, years, view or None)


def dicom_values(dataset: Any, path: Path) -> GreyValues:
    """Decode a single-frame grey DICOM data set.

    Raises
    ------
    ImageError
        If it holds colour, several frames or no pixels.
    """
    _check_single_grey(dataset, path)
    _check_complete(dataset, path)
    notes: list[str] = []
    stored = np.asarray(dataset.pixel_array)
    if stored.ndim != 2:
        raise ImageError(f"the DICOM pixels are not one grey image (shape {stored.shape})", where=path)
    inside = _inside(stored, dataset, notes)
    values, rescaled = _modality(stored, dataset, notes)
    if rescaled:
        values = _voi(values, inside, dataset, notes)
    if values.dtype.kind == "i":
        values = values.astype(np.int64)  # the span of signed values does not fit their own type
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = _chosen(values, inside).max() - values
    return GreyValues(values, inside, int(dataset.BitsStored), notes)


def _check_single_grey(dataset: Any, path: Path) -> None:
    frames, samples = ((_numbers(dataset, tag) or [1.0])[0] for tag in ("NumberOfFrames", "SamplesPerPixel"))
    if frames > 1:
        raise ImageError(f"the DICOM file has {frames:g} frames", where=path, expected=EXPECTED)
    photometric = str(dataset.get("PhotometricInterpretation") or "nothing")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(
            f"the DICOM file states {photometric} with {samples:g} value(s) per pixel",
            where=path,
            expected="MONOCHROME1 or MONOCHROME2, one value per pixel",
        )
    if "PixelData" not in dataset:
        raise ImageError("the DICOM file has no pixel data", where=path, expected=EXPECTED, remedy="fetch it again")


def _check_complete(dataset: Any, path: Path) -> None:
    """Refuse compressed pixel data whose fragments are cut off: some JPEG decoders fill what is missing with grey."""
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return  # pydicom itself compares native data with its stated length
    from pydicom.encaps import parse_fragments

    if not parse_fragments(dataset.PixelData)[0]:
        raise ImageError("the DICOM pixel data is empty", where=path, expected=EXPECTED, remedy="fetch it again")


# --- tags


def _texts(dataset: Any, keyword: str) -> list[str]:
    """The values of a tag as text, as they stand in the file; none if it is absent or empty.

    pydicom turns decimal texts into numbers when they are asked for, and raises on those that are none.
    """
    element = dataset.get_item(keyword)
    if element is None:
        return []
    if isinstance(element.value, bytes) and _vr(element) in _TEXT_VRS:
        values: list[Any] = element.value.decode("latin-1").split("\\")
    else:
        try:
            value = dataset[keyword].value
        except (ValueError, TypeError, KeyError, NotImplementedError, OverflowError):
            return [repr(element.value)]
        values = list(value) if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    texts = ["" if v is None else str(v).strip(" \0\t\r\n") for v in values]
    return texts if any(texts) else []


def _vr(element: Any) -> str:
    """Value representation; that of the dictionary where the file leaves it implicit."""
    from pydicom.datadict import dictionary_VR

    return str(element.VR or dictionary_VR(element.tag))


def _numbers(dataset: Any, keyword: str) -> list[float]:
    """The values of a tag as numbers, NaN for what is none; a decimal comma is read as a point."""
    return [_number(text) for text in _texts(dataset, keyword)]


def _number(text: str) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _shown(dataset: Any, *keywords: str) -> str:
    return ", ".join(f"{k} {'/'.join(_texts(dataset, k)) or 'empty'}" for k in keywords)


# --- pixel padding (PS3.3 C.7.5.1.1.2)


def _inside(stored: np.ndarray, dataset: Any, notes: list[str]) -> np.ndarray | None:
    """Which pixels are none of the padding; None if all of them."""
    limits = [v for k in ("PixelPaddingValue", "PixelPaddingRangeLimit") for v in _numbers(dataset, k)[:1]]
    if not _numbers(dataset, "PixelPaddingValue"):
        return None
    if any(math.isnan(v) for v in limits):
        notes.append(f"{_shown(dataset, 'PixelPaddingValue', 'PixelPaddingRangeLimit')}: no number, left out")
        return None
    # A negative padding value is often stored as if it were unsigned, and the reverse.
    info = np.iinfo(stored.dtype)
    limits = [v - 2.0**info.bits if v > info.max else v + 2.0**info.bits if v < info.min else v for v in limits]
    padding = (stored >= min(limits)) & (stored <= max(limits))
    if not padding.any():
        return None
    shown = " to ".join(f"{v:g}" for v in sorted(set(limits)))
    if padding.all():
        notes.append(f"every pixel has the padding value {shown}: taken as pixels")
        return None
    notes.append(
        f"{padding.mean():.1%} of the pixels are padding (value {shown}): left out of the range, painted black"
    )
    return ~padding


def _chosen(values: np.ndarray, inside: np.ndarray | None) -> np.ndarray:
    return values if inside is None else values[inside]


def _varies(values: np.ndarray, inside: np.ndarray | None) -> bool:
    chosen = _chosen(values, inside)
    return bool(chosen.min() < chosen.max())


# --- modality and VOI


def _modality(stored: np.ndarray, dataset: Any, notes: list[str]) -> tuple[np.ndarray, bool]:
    """Values after the modality LUT or rescale, and whether they are in the units that windows are stated in."""
    if _sequence(dataset, "ModalityLUTSequence"):
        from pydicom.pixels import apply_modality_lut

        try:
            return np.asarray(apply_modality_lut(stored, dataset)), True
        except Exception as error:
            notes.append(f"ModalityLUTSequence: cannot be used ({error}), left out with every window")
            return stored, False
    slopes, intercepts = _numbers(dataset, "RescaleSlope"), _numbers(dataset, "RescaleIntercept")
    slope, intercept = (slopes or [1.0])[0], (intercepts or [0.0])[0]
    if not slope or math.isnan(slope) or math.isnan(intercept):
        notes.append(
            f"{_shown(dataset, 'RescaleSlope', 'RescaleIntercept')}: cannot be used, left out with every window"
        )
        return stored, False
    return (stored if (slope, intercept) == (1.0, 0.0) else stored * slope + intercept), True


def _voi(values: np.ndarray, inside: np.ndarray | None, dataset: Any, notes: list[str]) -> np.ndarray:
    """The first VOI LUT or window that can be used and leaves more than one value; else the values themselves."""
    if not _varies(values, inside):
        return values
    before = len(notes)
    for name, apply in chain(_luts(dataset), _windows(dataset, notes)):
        try:
            seen = apply(values.astype(np.float64))
        except Exception as error:
            notes.append(f"{name}: cannot be used ({error}), left out")
            continue
        if np.isfinite(seen).all() and _varies(seen, inside):
            return seen
        notes.append(f"{name}: leaves one value of the pixels' {_range(values, inside)}, left out")
    if len(notes) > before:
        notes.append(f"no window can be used: the full range {_range(values, inside)} is shown")
    return values


def _range(values: np.ndarray, inside: np.ndarray | None) -> str:
    chosen = _chosen(values, inside)
    return f"{chosen.min():g} to {chosen.max():g}"


def _sequence(dataset: Any, keyword: str) -> int:
    """Length of a sequence, 0 if it is absent."""
    return len(dataset.get(keyword) or ())


def _lut(dataset: Any, index: int, values: np.ndarray) -> np.ndarray:
    from pydicom.pixels import apply_voi

    return np.asarray(apply_voi(np.rint(values).astype(np.int64), dataset, index=index))


def _luts(dataset: Any) -> Iterator[tuple[str, _Apply]]:
    for i in range(_sequence(dataset, "VOILUTSequence")):
        name = f"VOILUTSequence, item {i + 1}"
        yield name, partial(_lut, dataset, i)


def _windows(dataset: Any, notes: list[str]) -> Iterator[tuple[str, _Apply]]:
    """The stated windows that can be used, in order; the others are named."""
    centres, widths = _numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth")
    if not centres and not widths:
        return
    if len(centres) != len(widths):
        notes.append(f"{_shown(dataset, 'WindowCenter', 'WindowWidth')}: not in pairs")
    function = " ".join(_texts(dataset, "VOILUTFunction")[:1]).upper() or "LINEAR"
    if function not in _FUNCTIONS:
        notes.append(f"VOILUTFunction {function}: not known, read as LINEAR")
        function = "LINEAR"
    for i, (centre, width) in enumerate(zip(centres, widths, strict=False)):
        texts = (_texts(dataset, "WindowCenter")[i] or "empty", _texts(dataset, "WindowWidth")[i] or "empty")
        name = f"window of centre {texts[0]} and width {texts[1]}"
        lowest = 1.0 if function == "LINEAR" else math.ulp(0.0)
        if math.isnan(centre) or not width >= lowest:
            notes.append(f"{name}: cannot be used ({function} takes a width {'from 1' if lowest == 1 else 'above 0'})")
            continue
        yield name, partial(_FUNCTIONS[function], centre, width)


def _linear(centre: float, width: float, x: np.ndarray) -> np.ndarray:
    if width == 1:
        return (x > centre - 0.5).astype(np.float64)
    return np.clip((x - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _linear_exact(centre: float, width: float, x: np.ndarray) -> np.ndarray:
    return np.clip((x - centre) / width + 0.5, 0, 1)


def _sigmoid(centre: float, width: float, x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-4 * (x - centre) / width))


_FUNCTIONS: dict[str, Callable[[float, float, np.ndarray], np.ndarray]] = {
    "LINEAR": _linear,
    "LINEAR_EXACT": _linear_exact,
    "SIGMOID": _sigmoid,
}
"""VOI LUT functions of PS3.3 C.11.2.1.2 and C.11.2.1.3; their output range does not matter, it is scaled again."""
