"""The sources: annotated chest radiographs, each enumerated into candidates in a fixed order.

One module per source; each holds ``INFO`` (a :class:`SourceInfo`) and ``read(root) -> Source``. The module's
docstring says exactly which files it looks for. :func:`open_source` is the way in.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from medground_bench.core.errors import SourceError, nearest
from medground_bench.core.schema import DATASETS
from medground_bench.sources.base import Source, SourceInfo

__all__ = ["Source", "SourceInfo", "is_credentialed", "open_source", "source_info", "source_names"]


def source_names() -> tuple[str, ...]:
    """Keys of the sources, the released benchmark's three first."""
    return DATASETS


def source_info(name: str) -> SourceInfo:
    """Facts about a source: licence, what it needs on disk, where to get it.

    Raises
    ------
    SourceError
        If there is no such source.
    """
    info: SourceInfo = import_module(_module(name)).INFO
    return info


def is_credentialed(name: str) -> bool:
    """Whether what belongs to a source may not be passed on; of a source we know nothing about it is taken to be so."""
    return name not in DATASETS or source_info(name).credentialed


def open_source(name: str, root: str | Path) -> Source:
    """Enumerate a source folder.

    Parameters
    ----------
    name : str
        Key of the source, one of :func:`source_names`.
    root : path
        Its folder on disk; nothing is written into it.

    Returns
    -------
    Source
        Sequence of candidates whose position is the index the released records use.

    Raises
    ------
    SourceError
        If the source is unknown, or the folder or one of its files is missing or malformed (file and row given).
    """
    module = import_module(_module(name))
    root = Path(root).expanduser()
    if not root.is_dir():
        raise SourceError(
            "this is not a folder" if root.exists() else "this folder does not exist",
            where=root,
            expected=f"the folder of {module.INFO.title} with " + ", ".join(module.INFO.layout),
            remedy="run 'medground-bench sources' to see what each source needs and where to get it",
        )
    source: Source = module.read(root)
    if not len(source):
        raise SourceError(
            "no candidate was found",
            where=source.files[0] if source.files else root,
            expected="at least one annotated finding",
            remedy="check that the annotation file is complete",
        )
    return source


def _module(name: str) -> str:
    if name not in DATASETS:
        raise SourceError(
            f"unknown source {name!r}", expected="one of " + ", ".join(DATASETS), remedy=nearest(name, DATASETS)
        )
    return f"medground_bench.sources.{name}"
