"""The report: scores, submissions and dataset -> one HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.causal.funnel import read_funnel
from medground_bench.core.errors import MedGroundError
from medground_bench.dataset.folder import open_folder, open_for_mode
from medground_bench.pages import data_island, render_page, write_page
from medground_bench.pages.report.gallery import Judged, choose, gallery_records
from medground_bench.pages.report.tables import breakdown, outputs_table, page_row, protocol_table
from medground_bench.scoring import Row, ScoreFile, score_submissions, submission_rows
from medground_bench.sources import is_credentialed, source_info, source_names
from medground_bench.submission import open_submission

if TYPE_CHECKING:
    from medground_bench.dataset.folder import DatasetFolder

__all__ = ["report_page", "scored", "write_report"]

_BANNER = (
    "This page shows images and text of credentialed sources ({sources}). Their data use agreements apply: "
    "do not pass it on or put it on a server others can reach."
)


def write_report(
    path: str | Path,
    dataset: str | Path,
    submissions: Sequence[str | Path],
    *,
    scores: Sequence[ScoreFile] = (),
    verdicts: Sequence[str | Path] = (),
    records: int = 60,
    seed: int = 0,
    title: str = "MedGround-Bench report",
) -> Path:
    """Write the report of some submissions.

    Parameters
    ----------
    path : path
        The page. With images of credentialed sources only its owner can read it.
    dataset : path
        Dataset folder; a submission belongs to the config named like its mode.
    submissions : sequence of path
        Submission folders.
    scores : sequence of ScoreFile, optional
        Their scores, where they have been computed; others are computed here.
    verdicts : sequence of path, optional
        Verdict folders of the causal filter, for the funnel.
    records : int
        At most so many records in the gallery, a seeded sample.

    Raises
    ------
    MedGroundError
        If a submission is not valid or belongs to another dataset.
    """
    folders, files = scored(Path(dataset), submissions, scores)
    html, datasets = report_page(
        folders, files, submissions, verdicts=verdicts, records=records, seed=seed, title=title
    )
    return write_page(path, html, private=bool(_credentialed(datasets)))


def report_page(
    folders: Mapping[str, DatasetFolder],
    files: Sequence[ScoreFile],
    submissions: Sequence[str | Path],
    *,
    verdicts: Sequence[str | Path] = (),
    records: int = 60,
    seed: int = 0,
    title: str = "MedGround-Bench report",
) -> tuple[str, set[str]]:
    """The page's HTML, and the sources whose images it shows (see :func:`write_report`)."""
    opened = {(s := open_submission(p)).digest(): s for p in submissions}
    methods: list[str] = []
    images: dict[str, str] = {}
    shown: list[dict[str, Any]] = []
    total = sum(len({i for s in f.submissions for i in s.positions.tolist()}) for f in files)
    for file in files:
        judged: list[Judged] = [(opened[s.predictions], s) for s in file.submissions if s.predictions in opened]
        methods += [s.method for _, s in judged]
        ids = file.table.id.tolist()
        share = max(1, round(records * len(ids) / max(total, 1)))
        shown += gallery_records(folders[file.config], judged, ids, choose(ids, share, seed), images)
    found = sorted(submission_rows(files), key=lambda r: (r.lvlm, r.mode, r.order))
    rows = [page_row(row) for row in found]
    ranked = _rank(methods, found)
    datasets = {r["dataset"] for r in shown}
    credentialed = _credentialed(datasets)
    html = render_page(
        "report.html.j2",
        title=title,
        subtitle=f"{len(ranked)} methods · {total} records · made {_now()}",
        banner=_BANNER.format(sources=", ".join(credentialed)) if credentialed else "",
        summary=rows,
        outputs=outputs_table(found),
        lvlms=sorted({r["lvlm"] for r in rows}),
        modes=sorted({r["mode"] for r in rows}),
        datasets=sorted(datasets),
        attributes=sorted({r["attribute"] for r in shown}),
        methods=ranked,
        funnel=_funnel(verdicts),
        protocol_table=protocol_table(files),
        breakdowns=[b for b in (breakdown(files, *level) for level in _BREAKDOWNS) if len(b["columns"]) > 1],
        gallery_note="All records."
        if len(shown) == total
        else f"{len(shown)} of {total} records, a sample with seed {seed}.",
        provenance=_provenance(files),
        records=data_island({"methods": ranked, "records": shown, "images": images}),
    )
    return html, datasets


def scored(
    dataset: Path, submissions: Sequence[str | Path], scores: Sequence[ScoreFile]
) -> tuple[dict[str, DatasetFolder], list[ScoreFile]]:
    """The dataset's configs that are needed, and the scores of every submission, computed where they are not given.

    Raises
    ------
    MedGroundError
        If there is no submission, one is not valid or belongs to another dataset, or scores are of another one.
    """
    if not submissions:
        raise MedGroundError("there is nothing to report", expected="at least one submission folder")
    known = {s.predictions for file in scores for s in file.submissions}
    missing: dict[str, list[str | Path]] = {}
    for path in submissions:
        submission = open_submission(path)
        if submission.digest() not in known:
            config = open_for_mode(dataset, str(submission.header["mode"])).config
            missing.setdefault(config, []).append(path)
    files = list(scores)
    folders = {config: open_folder(dataset, config) for config in {*missing, *(f.config for f in files)}}
    for file in files:
        file.require_records()
        if file.fingerprint != folders[file.config].fingerprint:
            raise MedGroundError(
                "these scores are of another dataset",
                where=file.path,
                expected=folders[file.config].fingerprint,
                remedy="score the submissions against this dataset folder",
            )
    files += [score_submissions(paths, folders[config]) for config, paths in missing.items()]
    return folders, files


def _credentialed(datasets: Iterable[str]) -> list[str]:
    """Titles of the sources whose images may not be passed on; one we know nothing about is taken to be such."""
    known = source_names()
    return sorted(source_info(n).title if n in known else n for n in datasets if is_credentialed(n))


_BREAKDOWNS = (
    ("size", "evidence size"),
    ("lvlm", "LVLM"),
    ("mode", "mode"),
    ("dataset", "source"),
    ("attribute", "finding"),
)


def _rank(methods: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Methods by mean IoU over their rows, best first: the order of colours and columns."""

    def mean(method: str) -> float:
        cells = [row.cell("iou") for row in rows if row.kind in ("method", "control") and row.name == method]
        values = [cell.value for cell in cells if cell is not None]
        return sum(values) / len(values) if values else -1.0

    return sorted(set(methods), key=lambda m: (-mean(m), m))


def _funnel(verdicts: Sequence[str | Path]) -> list[dict[str, Any]]:
    if not verdicts:
        return []
    return [
        {
            **dict(zip(("lvlm", "mode", "dataset"), row.group, strict=True)),
            "steps": [{"name": name.replace("_", ", "), "count": count} for name, count in row.steps()],
        }
        for row in read_funnel(verdicts, by="source")
    ]


def _provenance(files: Sequence[ScoreFile]) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    for file in files:
        facts += [(f"config {file.config}", f"{file.dataset_records} records, fingerprint {file.fingerprint}")]
        facts += [("scored with", ", ".join(f"{k} {v}" for k, v in file.versions.items()))]
        facts += [("settings", ", ".join(f"{k} {v}" for k, v in file.settings.items()))]
        for one in file.submissions:
            p = one.provenance
            settings = ", ".join(f"{k}={v}" for k, v in (p.get("settings") or {}).items())
            versions = ", ".join(f"{k} {v}" for k, v in (p.get("versions") or {}).items())
            facts.append(
                (
                    f"{one.method} · {one.lvlm} · {one.mode}",
                    f"revision {p.get('lvlm_revision')}; {settings}; {versions}; {one.predictions}",
                )
            )
    return facts


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
