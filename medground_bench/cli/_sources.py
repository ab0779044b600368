"""``--source NAME=DIR`` options."""

from __future__ import annotations

from medground_bench.core.errors import SourceError


def parse_sources(pairs: list[str]) -> dict[str, str]:
    """``NAME=DIR`` pairs -> name -> folder, in the order given.

    Raises
    ------
    SourceError
        If a pair is not of that form, or a name is unknown or given twice.
    """
    from medground_bench.sources import source_info

    sources: dict[str, str] = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder):
            raise SourceError(f"--source {pair!r} is not understood", expected="NAME=DIR, e.g. nih_cxr14=/data/nih")
        source_info(name)
        if name in sources:
            raise SourceError(f"--source {name} is given twice", expected="every source once")
        sources[name] = folder
    return sources
