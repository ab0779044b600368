"""The funnel: how many candidates are left after each gate, per LVLM, source and attribute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from medground_bench.causal.verdicts import ERROR, STEM, Verdict, has_verdicts, read_verdicts
from medground_bench.core.errors import MedGroundError
from medground_bench.core.files import atomic_write
from medground_bench.core.schema import GATES

__all__ = ["GROUPS", "FunnelRow", "funnel_svg", "read_funnel", "write_plot"]

GROUPS: dict[str, tuple[str, ...]] = {
    "lvlm": ("model", "mode"),
    "source": ("model", "mode", "dataset"),
    "attribute": ("model", "mode", "dataset", "attribute"),
}
"""How verdicts may be grouped, coarse to fine."""


@dataclass
class FunnelRow:
    """Counts of one group of verdicts.

    Attributes
    ----------
    group : tuple of str
        What the group is: values of the group's fields.
    candidates : int
        Candidates judged; those with errors or without a valid box are not among them.
    passed : dict of str to int
        Gate -> candidates left after it. The last is the number kept.
    undecided : int
        Candidates that fell because an answer decided nothing.
    errors, skipped : int
        Candidates that could not be judged, and those without a valid box.
    flagged : int
        Candidates with an edit that is flagged as failed.
    """

    group: tuple[str, ...]
    candidates: int = 0
    passed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(GATES, 0))
    undecided: int = 0
    errors: int = 0
    skipped: int = 0
    flagged: int = 0

    def add(self, verdict: Verdict) -> None:
        """Count one verdict."""
        if verdict.gate == ERROR:
            if verdict.verdict == "skipped":
                self.skipped += 1
            else:
                self.errors += 1
            return
        self.candidates += 1
        self.undecided += verdict.verdict == "undecided"
        self.flagged += any(":" in flag for flag in verdict.flags)
        for name in GATES[: len(GATES) if verdict.gate is None else GATES.index(verdict.gate)]:
            self.passed[name] += 1

    @property
    def kept(self) -> int:
        """Candidates that passed every gate."""
        return self.passed[GATES[-1]]

    def steps(self) -> list[tuple[str, int]]:
        """(name, candidates left), from all candidates to those kept."""
        return [("candidates", self.candidates), *self.passed.items()]


def read_funnel(folders: Iterable[str | Path], by: str = "source") -> list[FunnelRow]:
    """Count the verdicts of one or more folders.

    Parameters
    ----------
    folders : iterable of paths
        Folders of verdicts.
    by : {"lvlm", "source", "attribute"}
        How to group.

    Returns
    -------
    list of FunnelRow
        Sorted by group.

    Raises
    ------
    MedGroundError
        If a folder holds no verdicts, two folders judge the same candidate, or the grouping is unknown.
    """
    if by not in GROUPS:
        raise MedGroundError(f"cannot group by {by!r}", expected="one of " + ", ".join(GROUPS))
    rows: dict[tuple[str, ...], FunnelRow] = {}
    owner: dict[tuple[str, ...], Path] = {}
    for folder in map(Path, folders):
        seen: Counter[tuple[str, ...]] = Counter()
        if not has_verdicts(folder):
            raise MedGroundError(
                "there are no verdicts here",
                where=folder,
                expected=f"{STEM}-*.jsonl, as 'medground-bench filter --out' writes them",
            )
        for verdict in read_verdicts(folder):
            group = tuple(getattr(verdict, key) for key in GROUPS[by])
            part = tuple(getattr(verdict, key) for key in GROUPS["source"])
            if owner.setdefault(part, folder) != folder:
                raise MedGroundError(
                    f"{' '.join(part)} is judged in two folders",
                    where=folder,
                    expected="each LVLM, mode and source in one folder",
                    remedy=f"leave out this folder or {owner[part]}",
                )
            seen[group] += 1
            rows.setdefault(group, FunnelRow(group)).add(verdict)
    return [rows[group] for group in sorted(rows)]


# -- the plot ---------------------------------------------------------------------------------------------------------

_COLOURS = ("#8a97a6", "#4f7cac", "#3a9188", "#d9a441", "#b3543c")
_LABELS = ("candidates", "correct", "foreground", "background", "background, normal")
_BAR, _GAP, _LEFT, _WIDTH, _TOP = 12, 16, 250, 520, 64


def funnel_svg(rows: Sequence[FunnelRow], *, title: str = "Causal filter: candidates left after each gate") -> str:
    """The funnel as an SVG picture: for each group a bar per gate, its length the share of candidates left."""
    height = _TOP + len(rows) * (len(_LABELS) * _BAR + _GAP) + 34
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 110}" height="{height}" '
        f'viewBox="0 0 {_LEFT + _WIDTH + 110} {height}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="16" y="22" font-size="15" font-weight="bold" fill="#222">{escape(title)}</text>',
    ]
    x = 16.0
    for label, colour in zip(_LABELS, _COLOURS, strict=True):
        out.append(f'<rect x="{x:g}" y="36" width="11" height="11" fill="{colour}"/>')
        out.append(f'<text x="{x + 16:g}" y="46" fill="#333">{escape(label)}</text>')
        x += 34 + 6.2 * len(label)
    for quarter in range(5):
        at = _LEFT + _WIDTH * quarter / 4
        out.append(f'<line x1="{at:g}" x2="{at:g}" y1="{_TOP - 6}" y2="{height - 28}" stroke="#e4e7eb"/>')
        out.append(f'<text x="{at:g}" y="{height - 12}" text-anchor="middle" fill="#555">{25 * quarter} %</text>')
    y = _TOP
    for row in rows:
        out += _bars(row, y)
        y += len(_LABELS) * _BAR + _GAP
    return "\n".join([*out, "</svg>"]) + "\n"


def _bars(row: FunnelRow, y: int) -> list[str]:
    middle = y + len(_LABELS) * _BAR / 2
    head, *rest = row.group
    out = [
        f'<text x="{_LEFT - 12}" y="{middle - 2:g}" text-anchor="end" fill="#222" font-weight="bold">'
        f"{escape(_short(head))}</text>",
        f'<text x="{_LEFT - 12}" y="{middle + 12:g}" text-anchor="end" fill="#555">'
        f"{escape(_short(', '.join(rest)))}</text>",
    ]
    for place, ((name, count), colour) in enumerate(zip(row.steps(), _COLOURS, strict=True)):
        width = _WIDTH * count / row.candidates if row.candidates else 0.0
        top = y + place * _BAR
        share = f" ({count / row.candidates:.1%})" if row.candidates and place else ""
        out.append(
            f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR - 2}" fill="{colour}">'
            f"<title>{escape(name)}: {count}</title></rect>"
        )
        out.append(
            f'<text x="{_LEFT + width + 5:.1f}" y="{top + 9}" font-size="9.5" fill="#333">{count:,}{share}</text>'
        )
    return out


def _short(text: str, limit: int = 36) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def write_plot(rows: Sequence[FunnelRow], path: str | Path) -> None:
    """Write the plot to an ``.svg`` file.

    Raises
    ------
    MedGroundError
        If the name does not end in ``.svg``.
    """
    path = Path(path)
    if path.suffix.lower() != ".svg":
        raise MedGroundError(f"{path.suffix or 'no ending'!r} is not a format of the plot", where=path, expected=".svg")
    with atomic_write(path) as file:
        file.write(funnel_svg(rows))
