"""A folder of score files -> one page, methods x LVLM x mode x dataset, beside chance."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from medground_bench.core.errors import MedGroundError
from medground_bench.dataset.card import citation
from medground_bench.pages import render_page, write_page
from medground_bench.pages.report.page import methods_shown
from medground_bench.pages.report.tables import POOLED, cost, outputs_table, page_row, protocol_table
from medground_bench.scoring import ScoreFile, read_scores, submission_rows
from medground_bench.scoring.tiers import TIER_RULE, tiers

__all__ = ["collect_results", "leaderboard_page", "link_to", "write_leaderboard"]

_LARGEST = 256 * 1024 * 1024
"""Bytes: no score file of this benchmark comes near it; a larger one is no result of ours."""


def collect_results(folder: str | Path) -> tuple[list[ScoreFile], list[dict[str, str]]]:
    """Read every ``*.json`` score file below a folder, in path order.

    Files that are no score files are listed with the reason, not passed over in silence; so is a submission that is
    in two files (the first counts). Symbolic links are not followed.

    Returns
    -------
    files : list of ScoreFile
    rejected : list of dict
        ``path`` and ``reason``.

    Raises
    ------
    MedGroundError
        If the folder does not exist.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MedGroundError("there is no such folder", where=folder, expected="a folder of scores.json files")
    files: list[ScoreFile] = []
    rejected: list[dict[str, str]] = []
    seen: dict[tuple[str, str, str, str], str] = {}
    for path in sorted(Path(root) / name for root, _, names in os.walk(folder) for name in names):
        shown = str(path.relative_to(folder))
        # Submissions may lie beside their scores; their own files are not results.
        if path.suffix != ".json" or path.name == "submission.json" or any(p.startswith(".") for p in path.parts):
            continue
        if path.is_symlink() or path.stat().st_size > _LARGEST:
            rejected.append({"path": shown, "reason": "a link, or larger than any score file"})
            continue
        try:
            file = read_scores(path)
            _check_shown(file)
        except MedGroundError as error:
            rejected.append({"path": shown, "reason": error.message})
            continue
        kept = []
        for one in file.submissions:
            key = (file.fingerprint, one.method, one.lvlm, one.mode)
            if key in seen:
                reason = f"{one.method} for {one.lvlm}, {one.mode} is already in {seen[key]}"
                rejected.append({"path": shown, "reason": reason})
                continue
            seen[key] = shown
            kept.append(one)
        file.submissions[:] = kept
        if kept:
            files.append(file)
    return files, rejected


def _check_shown(file: ScoreFile) -> None:
    """Refuse a file that reads as scores but cannot be shown: results come from many hands."""
    try:
        for level in ("all", "dataset"):
            for row in submission_rows([file], levels=(level,)):
                for name, cell in page_row(row).items():
                    if isinstance(cell, dict) and "value" in cell:
                        # A ratio has no greatest value, and with few records its interval may be open above.
                        most, end = (1e9, math.inf) if name in ("area_ratio", "precision_lift") else (1.0, 1.0)
                        if not (-1e9 < cell["value"] <= most and (cell["high"] is None or cell["high"] <= end)):
                            raise ValueError(f"{name} is out of range")
        protocol_table([file])
        for one in file.submissions:
            if not all(isinstance(one.provenance[k], str) for k in ("method", "lvlm", "mode")):
                raise TypeError("names are not texts")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise MedGroundError(f"not a score file that can be shown ({reason})", where=file.path) from error


def leaderboard_page(
    files: Sequence[ScoreFile],
    rejected: Sequence[Mapping[str, str]] = (),
    *,
    title: str = "MedGround-Bench leaderboard",
    report: tuple[str, Collection[tuple[str, str, str]]] | None = None,
) -> str:
    """The page's HTML.

    ``report`` is the address of a report and what it shows, (method, LVLM, mode): rows of these lead to a record there.

    A rank and a tier are given within an LVLM, mode, dataset and fingerprint: only such rows were scored on the same
    records.
    """
    found = sorted(
        submission_rows(files, levels=("all", "dataset")),
        key=lambda r: (r.aggregate.group != "", r.lvlm, r.mode, r.aggregate.group, r.order),
    )
    found_tiers = tiers(files)
    ranks: Counter[tuple[str, ...]] = Counter()
    rows = []
    for row in found:
        shown = page_row(row) | {"rank": None, "tier": None, "anchor": None, "protocols": [], "record": None}
        if row.submission is not None:
            f, s = row.submission
            one = files[f].submissions[s]
            shown |= {
                "anchor": f"result-{f}-{s}",
                "protocols": sorted(name.replace("_", " ") for name in one.protocols),
                "spent": cost([one]),
            }
            if report is not None and (one.method, one.lvlm, one.mode) in report[1]:
                wanted = {"method": one.method, "lvlm": one.lvlm, "mode": one.mode}
                shown["record"] = f"{report[0]}#{urlencode(wanted, quote_via=quote)}"
        if row.submission is not None and row.kind == "method":  # a control takes no rank from anybody
            group = (row.lvlm, row.mode, row.aggregate.group, files[f].fingerprint)
            ranks[group] += 1
            shown |= {
                "rank": ranks[group],
                "tier": found_tiers.get((f, s, (row.aggregate.level, row.aggregate.group))),
            }
        rows.append(shown)
    return render_page(
        "leaderboard.html.j2",
        title=title,
        subtitle=f"{_count(len({r['method'] for r in rows if not r['chance']}), 'method')}, "
        f"{_count(sum(len(f.submissions) for f in files), 'submission')}",
        banner="",
        rows=rows,
        tier_rule=TIER_RULE,
        no_tiers=_no_tiers(files) if not found_tiers else "",
        outputs=outputs_table(found),
        lvlms=sorted({r["lvlm"] for r in rows}),
        modes=sorted({r["mode"] for r in rows}),
        datasets=sorted({r["dataset"] for r in rows}, key=lambda d: (d != POOLED, d)),
        protocol_names=sorted({name for r in rows for name in r["protocols"]}),
        budgets=_BUDGETS,
        citation=citation(),
        provenance=[_provenance(f, s, file) for f, file in enumerate(files) for s in range(len(file.submissions))],
        rejected=rejected,
        protocol_table=protocol_table(files),
        footer="Scores are of unions of boxes in native pixels; every submission was validated before it was scored.",
    )


def _no_tiers(files: Sequence[ScoreFile]) -> str:
    """Why no method has a tier."""
    if not any(one.kind == "method" for file in files for one in file.submissions):
        return ""
    if not any(len(file.table) for file in files):
        return (
            "There are no tiers: methods are told apart by their scores on the same records, and a public board keeps "
            "rounded means only, since scores of single records would give the hidden evidence away."
        )
    return "There are no tiers: from fewer than six patients no test tells methods apart."


_BUDGETS = (1, 10, 100, 1000)
"""Passes a record that a reader can ask for at most."""


def write_leaderboard(
    results: str | Path,
    path: str | Path,
    *,
    title: str = "MedGround-Bench leaderboard",
    report: str | Path | None = None,
) -> Path:
    """Write the leaderboard of a folder of score files; rows lead to records of a report.

    Raises
    ------
    MedGroundError
        If the folder does not exist, or the report is none.
    """
    link = None if report is None else link_to(report, path)
    return write_page(path, leaderboard_page(*collect_results(results), title=title, report=link))


def link_to(report: str | Path, page: str | Path) -> tuple[str, set[tuple[str, str, str]]]:
    """A report as :func:`leaderboard_page` takes it: its address from where the page will lie, and what it shows.

    Raises
    ------
    MedGroundError
        If it is not a report of ours.
    """
    try:
        place = os.path.relpath(Path(report).resolve(), Path(page).resolve().parent)
    except ValueError:  # another drive of Windows
        return Path(report).resolve().as_uri(), methods_shown(report)
    return quote(Path(place).as_posix()), methods_shown(report)


def _provenance(f: int, s: int, file: ScoreFile) -> dict[str, Any]:
    one = file.submissions[s]
    facts = [(str(key), _text(value)) for key, value in one.provenance.items()]
    facts += [
        ("predictions", one.predictions),
        ("records", f"{whole.records if (whole := one.find()) else len(one.positions)} of config {file.config}"),
        ("scored", f"{file.created} with {_text(file.versions)}"),
        *(("warning", warning) for warning in one.warnings[:5]),
    ]
    return {"anchor": f"result-{f}-{s}", "title": f"{one.method} · {one.lvlm} · {one.mode}", "facts": facts}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _text(value: Any, depth: int = 6) -> str:
    """Provenance values in a line; what is nested deeper than anybody's settings is cut off."""
    if isinstance(value, Mapping | list | tuple) and depth == 0:
        return "…"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_text(v, depth - 1)}" for k, v in value.items())[:2000]
    if isinstance(value, list | tuple):
        return ", ".join(_text(v, depth - 1) for v in value)[:2000]
    return "–" if value is None or value == "" else str(value)[:2000]
