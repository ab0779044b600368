"""Jinja2 templates -> one self-contained HTML file: no network, everything escaped."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.files import atomic_write

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["data_island", "render_page", "write_page"]

_TEMPLATES = Path(__file__).parent / "templates"


def data_island(data: Any) -> Markup:
    """JSON that is safe inside ``<script type="application/json">``.

    ``<``, ``>``, ``&`` and the line separators are written as escapes, so that no text in the data (a method's
    name, a model's response) can close the element or open another.

    Raises
    ------
    ValueError
        If the data holds NaN or an infinity, which JSON has no word for.
    """
    from markupsafe import Markup

    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Style and scripts are our own files; they go into the page as they stand.
    environment.globals["asset"] = lambda name: Markup((_TEMPLATES / name).read_text(encoding="utf-8"))
    return environment


def render_page(template: str, **values: Any) -> str:
    """Render one of the project's page templates."""
    return _environment().get_template(template).render(**values)


def write_page(path: str | Path, html: str, *, private: bool = False) -> Path:
    """Write a page atomically; ``private`` pages can be read by their owner only (mode 0600)."""
    path = Path(path)
    with atomic_write(path, permissions=0o600 if private else None) as file:
        file.write(html)
    return path
