"""Tables and figures in the format that a file's name says: CSV, JSON, Markdown, LaTeX, PNG, SVG, PDF."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import MedGroundError, MissingDependencyError, nearest
from medground_bench.core.files import atomic_write
from medground_bench.scoring.rows import COLUMNS, Row, group_title, interval_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "FORMATS",
    "Table",
    "check_format",
    "matplotlib_figures",
    "rows_figure",
    "rows_table",
    "write_rows",
    "write_table",
]

FORMATS = (".csv", ".json", ".md", ".tex", ".png", ".svg", ".pdf")
"""Endings of the files that can be written."""

_FIGURES = (".png", ".svg", ".pdf")
_COLOURS = {"method": "#0b6e99", "control": "#8a6d3b", "chance": "#7a7a7a", "ceiling": "#7a7a7a", "human": "#3d7a3d"}
_SIGNS = {"method": "o", "control": "s", "chance": "|", "ceiling": "|", "human": "D"}


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes
    ----------
    title : str
        What it shows.
    columns : tuple of str
        Headings.
    rows : tuple of tuple of str
        Cells.
    texts : int
        How many columns, from the left, are texts; the others are numbers and stand to the right.
    notes : tuple of str
        What a reader must know; below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1
    notes: tuple[str, ...] = ()


def check_format(path: Path, others: Sequence[str] = ()) -> None:
    """Refuse a file whose name ends in no format, before anything is computed for it.

    Raises
    ------
    MedGroundError
        With the endings that there are.
    MissingDependencyError
        If it would be a figure and matplotlib is not installed.
    """
    known = [*others, *FORMATS]
    if path.suffix.lower() not in known:
        raise MedGroundError(
            f"{path.name} ends in no format that can be written",
            expected=f"a name that ends in {', '.join(known)}",
            remedy=nearest(path.suffix, known),
        )
    if path.suffix.lower() in _FIGURES:
        matplotlib_figures()


def rows_table(rows: Sequence[Row], title: str = "") -> Table:
    """The main table of rows: the four scores with intervals, skill, p-value and reach, best IoU first in its group."""
    cells = []
    for row in _ordered(rows):
        method = row.kind in ("method", "control")
        reach = "" if row.reach is None or not method else f"{row.reach:.2f}"
        cells.append(
            (
                row.mode,
                group_title(row.aggregate.level, row.aggregate.group),
                row.title,
                " ".join(row.lvlms),
                str(row.records),
                str(row.clusters),
                *(interval_text(row.cell(key)) for key, _ in COLUMNS),
                interval_text(row.skill) if method else "",
                row.p_chance if method else "",
                reach,
            )
        )
    titles = ("mode", "records of", "row", "LVLMs", "n", "patients", *(t for _, t in COLUMNS), "skill", "p", "reach")
    notes = (
        "Brackets: 95 % bootstrap-t intervals over patients. Skill: share of the way from the best chance row to 1; p: "
        "sign-flip test against it; reach: share of the way from chance to the ceiling of the method's output space.",
    )
    return Table(title, titles, tuple(cells), texts=4, notes=notes)


def rows_figure(rows: Sequence[Row], title: str = "") -> Figure:
    """IoU of every row with its interval, one panel for each mode and group; of methods the way from chance to ceiling.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figures = matplotlib_figures()
    panels: dict[tuple[str, str, str], list[Row]] = {}
    for row in _ordered(rows):
        if row.cell("iou") is not None:
            panels.setdefault((row.mode, row.aggregate.level, row.aggregate.group), []).append(row)
    heights = [len(mine) + 2 for mine in panels.values()] or [1]
    figure: Figure = figures.Figure(figsize=(7.0, 0.24 * sum(heights) + 0.8), layout="constrained")
    axes = figure.subplots(max(len(panels), 1), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for axis, ((mode, level, group), mine) in zip(axes, panels.items(), strict=False):
        for y, row in enumerate(mine):
            value, low, high = row.cell("iou") or (0.0, 0.0, 0.0)
            colour, sign = _COLOURS[row.kind], _SIGNS[row.kind]
            if row.span is not None:
                axis.plot(row.span, (y, y), color="#d8dde2", linewidth=6, solid_capstyle="butt", zorder=1)
            if low == low and high == high:  # not NaN: enough patients
                axis.plot((max(low, 0.0), min(high, 1.0)), (y, y), color=colour, linewidth=1.5, zorder=2)
            axis.plot((value,), (y,), sign, color=colour, markersize=6, zorder=3)
        axis.set_yticks(range(len(mine)), [_plain_math(row.title) for row in mine], fontsize=8)
        axis.set_ylim(len(mine) - 0.5, -0.5)
        axis.set_title(f"{mode}: {group_title(level, group)}", fontsize=9, loc="left")
        axis.grid(axis="x", color="#e6e6e6", linewidth=0.6)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(left=False)
    axes[-1].set_xlim(left=0.0)
    axes[-1].set_xlabel("IoU (95 % interval); grey: from the best chance row to the method's ceiling", fontsize=8)
    if title:
        figure.suptitle(_plain_math(title), fontsize=10)
    return figure


def write_rows(
    path: str | Path, rows: Sequence[Row], *, title: str = "", settings: Mapping[str, Any] | None = None
) -> Path:
    """Write rows in the format of a file's name: the plain values (CSV, JSON), the table, or the figure.

    Raises
    ------
    MedGroundError
        If the name ends in no format, or a figure is asked for without matplotlib.
    """
    path = Path(path)
    flat = [row.flat() for row in _ordered(rows)]
    data = {"settings": dict(settings or {}), "rows": flat}
    return write_table(path, rows_table(rows, title), flat=flat, data=data, figure=lambda: rows_figure(rows, title))


def write_table(
    path: str | Path,
    table: Table,
    *,
    flat: Sequence[Mapping[str, Any]] | None = None,
    data: Any = None,
    figure: Callable[[], Figure] | None = None,
) -> Path:
    """Write a table in the format of a file's name, whole or not at all.

    Parameters
    ----------
    path : path
        Ends in one of :data:`FORMATS`.
    table : Table
        For Markdown and LaTeX (a ``tabular`` of the package booktabs).
    flat : sequence of mapping, optional
        Plain values for CSV, a row each; by default the cells.
    data : optional
        For JSON; by default title, columns and rows.
    figure : callable, optional
        Makes what is drawn into PNG, SVG or PDF.

    Raises
    ------
    MedGroundError
        If the name ends in no format, or in one of a figure that this table has not.
    """
    path = Path(path)
    check_format(path)
    ending = path.suffix.lower()
    if ending in _FIGURES:
        if figure is None:
            raise MedGroundError("this table has no figure", where=path, expected="a name in .csv, .json, .md or .tex")
        drawn = figure()
        with atomic_write(path, "wb") as out:
            # Nothing of the moment in the file: the same rows give the same bytes.
            drawn.savefig(out, format=ending[1:], dpi=200, metadata=_METADATA[ending])
        return path
    if ending == ".json":
        shown = {"title": table.title, "columns": table.columns, "rows": table.rows} if data is None else data
        text = json.dumps(shown, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    elif ending == ".csv":
        _write_csv(path, table, flat)
        return path
    else:
        text = _markdown(table) if ending == ".md" else _latex(table)
    with atomic_write(path) as file:
        file.write(text)
    return path


_METADATA: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """Rows by mode and group as they came, best IoU first in each."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.mode, row.aggregate.level, row.aggregate.group), []).append(row)
    return [row for mine in groups.values() for row in sorted(mine, key=lambda r: r.order)]


def _write_csv(path: Path, table: Table, flat: Sequence[Mapping[str, Any]] | None) -> None:
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows] if flat is None else flat
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(table.columns)
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _markdown(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(re.sub(r"([|*_`<\\\[\]])", r"\\\1", " ".join(cell.split())) for cell in cells) + " |"

    rule = ["---" if k < table.texts else "---:" for k in range(len(table.columns))]
    lines = [f"**{table.title}**", ""] if table.title else []
    lines += [line(table.columns), "| " + " | ".join(rule) + " |", *map(line, table.rows)]
    return "\n".join([*lines, *(f"\n{note}" for note in table.notes)]) + "\n"


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
_TEX |= {c: "\\" + c for c in "&%$#_{}"} | {">": r"\textgreater{}", "∞": r"$\infty$"}


def _latex(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(_TEX.get(c, c) for c in " ".join(cell.split())) for cell in cells) + r" \\"

    columns = "l" * table.texts + "r" * (len(table.columns) - table.texts)
    lines = [f"% {' '.join(text.split())}" for text in (table.title, *table.notes) if text]
    lines += [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(table.columns), r"\midrule"]
    return "\n".join([*lines, *map(line, table.rows), r"\bottomrule", r"\end{tabular}"]) + "\n"


def _plain_math(text: str) -> str:
    """A text in which matplotlib sees no formula."""
    return text.replace("$", r"\$")


def matplotlib_figures() -> Any:
    """The module ``matplotlib.figure``.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib import figure
    except ImportError as error:
        raise MissingDependencyError(
            "figures need matplotlib", remedy='pip install "medground-bench[figures]"'
        ) from error
    return figure
