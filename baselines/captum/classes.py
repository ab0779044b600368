"""Which of Captum's classes can explain a score of the frame, and why the others cannot."""

from __future__ import annotations

import inspect
from typing import Any

from medground_bench.core.errors import MethodError, MissingDependencyError

__all__ = ["attribution_class"]

_UNFIT = {
    "DeepLift": "it replaces gradients of modules by rules of its own, which attention and gates have none of",
    "DeepLiftShap": "it replaces gradients of modules by rules of its own, which attention and gates have none of",
    "LRP": "it knows no rule for attention and norms (use the method 'lrp')",
    "GuidedBackprop": "it changes ReLU modules, of which there are none",
    "Deconvolution": "it changes ReLU modules, of which there are none",
    "GuidedGradCam": "it needs a convolutional layer (use 'gradcam')",
    "NoiseTunnel": "it wraps another class (use 'smoothgrad')",
    "LimeBase": "it needs functions of its own (use 'captum:Lime')",
    "FeaturePermutation": "it permutes features between the examples of a batch, and there is one",
    "DataLoaderAttribution": "it needs a data loader",
}


def attribution_class(name: str) -> tuple[Any, bool]:
    """Captum's class of that name, and whether it takes gradients.

    Raises
    ------
    MissingDependencyError
        If Captum is not installed.
    MethodError
        If it has no such class, or one that cannot explain a score of the frame: the message says why.
    """
    try:
        from captum import attr
    except ImportError as error:
        raise MissingDependencyError(
            f"method 'captum:{name}' needs Captum", remedy='pip install "medground-bench[methods]"'
        ) from error
    kind: Any = getattr(attr, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, attr.Attribution)):
        classes = {n: getattr(attr, n) for n in dir(attr) if inspect.isclass(getattr(attr, n))}
        fit = sorted(n for n, one in classes.items() if not _unfit(n, one, attr))
        raise MethodError(f"Captum has no attribution class {name!r}", expected=", ".join(fit))
    reason = _unfit(name, kind, attr)
    if reason:
        raise MethodError(f"method 'captum:{name}' cannot work here: {reason}")
    return kind, issubclass(kind, attr.GradientAttribution)


def _unfit(name: str, kind: Any, attr: Any) -> str:
    """Why a class cannot explain a score of the frame; empty if it can."""
    if not issubclass(kind, attr.Attribution):
        return "it is no attribution"
    if name in _UNFIT:
        return _UNFIT[name]
    if name.startswith(("Layer", "Neuron", "Internal")):
        return "it explains or reads one layer of a module, and the frame is what is explained (see 'atp', 'gradcam')"
    if not issubclass(kind, attr.GradientAttribution | attr.PerturbationAttribution):
        return "it attributes something else than an input tensor"
    return "" if kind not in (attr.GradientAttribution, attr.PerturbationAttribution) else "it is abstract"
