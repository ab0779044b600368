"""MedFocus: anatomical concepts by unbalanced optimal transport, and causal intervention on them.

>>> from medfocus import AnatomyLocalizer, ReferencePool
>>> pool = ReferencePool.from_folder("my-pool")  # doctest: +SKIP
>>> AnatomyLocalizer(pool).locate("chest.png")  # doctest: +SKIP
{'cardiac silhouette': [...], 'left lung': [...], ...}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medfocus.atlas import ReferencePool
    from medfocus.localizer import AnatomyLocalizer
    from medfocus.method import MedFocus

__all__ = ["AnatomyLocalizer", "MedFocus", "ReferencePool"]

_HOMES = {"AnatomyLocalizer": "medfocus.localizer", "MedFocus": "medfocus.method", "ReferencePool": "medfocus.atlas"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
