"""Aggregated attributions of the submissions: for the page, and as a table or figure of their own."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.attribution.picture import colour_map
from medground_bench.pages.export import Table, matplotlib_figures, write_table
from medground_bench.scoring.aggatt import QUANTILES, AggregatedMaps, Bin, Evidence, aggregate_maps
from medground_bench.scoring.rows import row_title
from medground_bench.submission import open_submission

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.scoring import ScoreFile
    from medground_bench.submission import Submission

__all__ = ["aggregated", "aggregated_figure", "aggregated_rows", "write_aggregated"]

_BEYOND = (128, 128, 128)  # where no image reaches


def aggregated(
    folders: Mapping[str, DatasetFolder],
    files: Sequence[ScoreFile],
    submissions: Sequence[str | Path],
    opened: Mapping[str, Submission] | None = None,
    *,
    seed: int = 0,
) -> list[AggregatedMaps]:
    """The pictures of every method of the submissions (see :mod:`medground_bench.scoring.aggatt`).

    Parameters
    ----------
    folders : mapping of str to DatasetFolder
        Config -> dataset folder.
    files : sequence of ScoreFile
        The submissions' scores.
    submissions : sequence of path
        Submission folders.
    opened : mapping of str to Submission, optional
        The same, by digest, where they are open already.
    """
    known = {(s := open_submission(p)).digest(): s for p in submissions} if opened is None else opened
    evidence: dict[tuple[str, str], Evidence] = {}
    for file in files:
        for key, boxes, width, height in folders[file.config].values("id", "boxes", "width", "height"):
            evidence[file.fingerprint, str(key)] = boxes, (int(width), int(height))
    judged = [(known[s.predictions], s, file) for file in files for s in file.submissions if s.predictions in known]
    return aggregate_maps(judged, evidence, seed=seed)


def aggregated_rows(found: Sequence[AggregatedMaps]) -> list[dict[str, Any]]:
    """For a template: method, of, missing, and a cell for each bin with its picture as a PNG in a data URI."""
    return [
        {
            "method": row_title(one.kind, one.method),
            "chance": one.kind != "method",
            "of": one.of,
            "missing": one.missing,
            "cells": [
                {"records": b.records, "drawn": b.drawn, "score": b.score, "title": _title(b), "image": _png(b)}
                for b in one.bins
            ],
        }
        for one in found
    ]


def _title(one: Bin) -> str:
    return f"{100 * one.low:.0f} to {100 * one.high:.0f} %"


def _png(one: Bin) -> str:
    """A picture as a data URI; empty where there is no record."""
    from PIL import Image

    if not one.drawn:
        return ""
    beyond = np.isnan(one.picture)
    pixels = colour_map(np.where(beyond, 0.0, one.picture))
    pixels[beyond] = _BEYOND
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def aggregated_figure(found: Sequence[AggregatedMaps]) -> Figure:
    """A row of pictures for each method, best records to the left; the evidence's box is outlined.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    bins = len(QUANTILES) - 1
    figure: Figure = matplotlib_figures().Figure(figsize=(1.3 * bins + 1.4, 1.45 * len(found) + 0.6))
    axes = figure.subplots(len(found), bins, squeeze=False)
    figure.subplots_adjust(left=0.15, right=0.99, top=1 - 0.35 / (1.45 * len(found) + 0.6), bottom=0.02, hspace=0.28)
    for one, row in zip(found, axes, strict=True):
        for b, axis in zip(one.bins, row, strict=True):
            axis.set(xticks=[], yticks=[], facecolor=np.divide(_BEYOND, 255))
            side = b.picture.shape[0]
            axis.set(xlim=(0, side), ylim=(side, 0), aspect="equal")
            if b.drawn:
                pixels = np.ma.masked_invalid(b.picture)
                axis.imshow(pixels, cmap="inferno", vmin=0, vmax=1, extent=(0, side, side, 0), interpolation="nearest")
            third = side / 3
            x, y = third * np.array([1, 2, 2, 1, 1]), third * np.array([1, 1, 2, 2, 1])
            axis.plot(x, y, color="white", linewidth=0.8)
            axis.set_xlabel(f"n {b.records}" + (f", {b.score:.2f}" if b.records else ""), fontsize=6, labelpad=2)
        name = row_title(one.kind, one.method).replace("$", r"\$")
        row[0].set_ylabel(f"{name}\n({one.of})", fontsize=7, rotation=0, ha="right", va="center")
    for b, axis in zip(found[0].bins, axes[0], strict=True):
        axis.set_title(_title(b), fontsize=7)
    return figure


def write_aggregated(path: str | Path, found: Sequence[AggregatedMaps]) -> Path:
    """Write the pictures (PNG, SVG, PDF), or numbers of every bin (CSV, JSON with the pictures, Markdown, LaTeX)."""
    flat = [row for one in found for row in one.flat()]
    cells = [
        (
            row["method"],
            row["of"],
            f"{100 * row['from']:.0f} to {100 * row['to']:.0f} %",
            str(row["records"]),
            *("" if row[k] is None else f"{row[k]:.3f}" for k in ("score", "inside", "outside")),
        )
        for row in flat
    ]
    titles = ("method", "of", "records, best first", "n", "score", "mean heat inside", "around")
    notes = (
        "Score: AUPRC of maps, IoU of boxes; mean of the maps scaled to [0, 1], in the evidence's box and around it.",
    )
    pictures = [[_cells(b.picture) for b in one.bins] for one in found]
    data = {"bins": flat, "pictures": dict(zip((f"{o.method} ({o.of})" for o in found), pictures, strict=True))}
    table = Table("Aggregated attributions", titles, tuple(cells), 3, notes)
    return write_table(path, table, flat=flat, data=data, figure=lambda: aggregated_figure(found))


def _cells(picture: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(v) else round(v, 3) for v in row] for row in picture.tolist()]
