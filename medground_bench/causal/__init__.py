"""The causal filter: counterfactual editors, the yes/no reader, verdicts and the funnel (paper, section 3.2).

The reader is here at once; everything else arrives with the first name that needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medground_bench.causal.answers import Answer, read_answer

if TYPE_CHECKING:
    from medground_bench.causal.editors import Editor, EditRequest, available_editors, load_editor
    from medground_bench.causal.filter import FilterReport, filter_candidates
    from medground_bench.causal.funnel import read_funnel
    from medground_bench.dataset.export import export_released

__all__ = [
    "Answer",
    "EditRequest",
    "Editor",
    "FilterReport",
    "available_editors",
    "export_released",
    "filter_candidates",
    "load_editor",
    "read_answer",
    "read_funnel",
]

_HOMES = {
    "EditRequest": "editors",
    "Editor": "editors",
    "FilterReport": "filter",
    "available_editors": "editors",
    "export_released": "export",
    "filter_candidates": "filter",
    "load_editor": "editors",
    "read_funnel": "funnel",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
