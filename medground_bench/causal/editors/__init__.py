"""Counterfactual editors: ``edit(image, mask, prompt, seed) -> image``.

``radedit`` is the paper's diffusion editor, ``phantom`` and ``planted`` the exact counterfactuals of procedural
radiographs and of planted findings, ``inpaint`` a classical inpainter for machines without weights. Other packages
add theirs in the entry-point group ``medground_bench.editors``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any

from medground_bench.causal.editors.base import Editor, EditRequest, image_digest
from medground_bench.core.errors import EditorError, nearest

__all__ = ["ENTRY_POINT_GROUP", "EditRequest", "Editor", "available_editors", "image_digest", "load_editor"]

ENTRY_POINT_GROUP = "medground_bench.editors"

_OWN = {
    "inpaint": ("medground_bench.causal.editors.inpaint", "InpaintEditor"),
    "phantom": ("medground_bench.causal.editors.phantom", "PhantomEditor"),
    "planted": ("medground_bench.causal.editors.planted", "PlantedEditor"),
    "radedit": ("medground_bench.causal.editors.radedit", "RadEditEditor"),
}


def available_editors() -> list[str]:
    """Names that :func:`load_editor` knows."""
    return sorted({*_OWN, *(entry.name for entry in metadata.entry_points(group=ENTRY_POINT_GROUP))})


def load_editor(name: str, **settings: Any) -> Editor:
    """Build an editor by name.

    Parameters
    ----------
    name : str
        One of :func:`available_editors`.
    **settings
        The editor's own; see its class.

    Raises
    ------
    EditorError
        If there is no such editor or it does not take these settings.
    MissingDependencyError
        If a package it needs is not installed.
    """
    factory = _factory(name)
    _check_settings(name, factory, settings)
    return factory(**settings)


def _factory(name: str) -> Callable[..., Editor]:
    if name in _OWN:
        module, attribute = _OWN[name]
        own: Callable[..., Editor] = getattr(import_module(module), attribute)
        return own
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP, name=name):
        loaded: Callable[..., Editor] = entry.load()
        return loaded
    known = available_editors()
    raise EditorError(f"unknown editor {name!r}", expected="one of " + ", ".join(known), remedy=nearest(name, known))


def _check_settings(name: str, factory: Callable[..., Editor], settings: dict[str, Any]) -> None:
    import inspect

    parameters = inspect.signature(factory).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    wrong = [key for key in settings if key not in parameters]
    if wrong:
        raise EditorError(
            f"editor {name!r} has no setting {wrong[0]!r}",
            expected="one of " + ", ".join(parameters) if parameters else "no settings",
            remedy=nearest(wrong[0], parameters),
        )
