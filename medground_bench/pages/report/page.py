"""The report: scores, submissions and dataset -> one HTML page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.causal.funnel import read_funnel
from medground_bench.causal.kept import KeptEdits
from medground_bench.core.errors import MedGroundError
from medground_bench.core.files import atomic_folder
from medground_bench.dataset.folder import open_folder, open_for_mode
from medground_bench.pages import data_island, render_page, write_page
from medground_bench.pages.report.aggregated import aggregated, aggregated_rows
from medground_bench.pages.report.gallery import Judged, choose, classes, gallery_records
from medground_bench.pages.report.shelf import CHUNK, Beside, Shelf, beside_name, require_ours
from medground_bench.pages.report.tables import (
    ALL_LVLMS,
    breakdown,
    cost,
    outcome_table,
    outputs_table,
    page_row,
    pair_table,
    place_table,
    protocol_table,
)
from medground_bench.scoring import (
    ComparisonReport,
    Row,
    ScoreFile,
    SubmissionScores,
    compare_scores,
    score_submissions,
    submission_rows,
)
from medground_bench.scoring.aggatt import MOST
from medground_bench.scoring.outcomes import OUTCOMES
from medground_bench.sources import is_credentialed, source_info, source_names
from medground_bench.submission import open_submission

if TYPE_CHECKING:
    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.scoring.aggatt import AggregatedMaps
    from medground_bench.sources import Source
    from medground_bench.sources.planted.anatomy import Localizer

__all__ = ["INSIDE", "methods_shown", "report_page", "scored", "write_report"]

INSIDE = 200
"""Records that a page holds itself; of more, pictures and predictions lie in a folder beside it."""

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
    sources: Sequence[Source] = (),
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
        Verdict folders of the causal filter, for the funnel and for the pictures that the LVLM was asked about.
    sources : sequence of Source, optional
        What else is known of the images: phantoms tell where the anatomical concepts are, and so which predictions
        lie in the wrong organ, and in which place of the chest those lie that are scored here.
    records : int
        At most so many records in the gallery, a seeded sample. Of more than :data:`INSIDE` the pictures and
        predictions go into a folder beside the page, ``NAME_files``.

    Raises
    ------
    MedGroundError
        If a submission is not valid or belongs to another dataset, or the folder beside the page is something else's.
    """
    folders, files = scored(Path(dataset), submissions, scores, sources=sources)
    path = Path(path)
    options: dict[str, Any] = {"verdicts": verdicts, "sources": sources, "records": records, "seed": seed}
    total = sum(len(file.table) for file in files)
    beside = path.with_name(beside_name(path))
    if min(records, total) <= INSIDE:
        html, datasets = report_page(folders, files, submissions, **options, title=title)
        return write_page(path, html, private=bool(_credentialed(datasets)))
    require_ours(beside)
    with atomic_folder(beside) as staging:
        shelf = Beside(staging, beside.name)
        html, datasets = report_page(folders, files, submissions, **options, title=title, shelf=shelf)
        private = bool(_credentialed(datasets))
        for part in (p for p in staging.rglob("*") if private):
            part.chmod(0o700 if part.is_dir() else 0o600)
    return write_page(path, html, private=private)


def report_page(
    folders: Mapping[str, DatasetFolder],
    files: Sequence[ScoreFile],
    submissions: Sequence[str | Path],
    *,
    verdicts: Sequence[str | Path] = (),
    sources: Sequence[Source] = (),
    records: int = 60,
    seed: int = 0,
    title: str = "MedGround-Bench report",
    shelf: Shelf | None = None,
) -> tuple[str, set[str]]:
    """The page's HTML, and the sources whose images it shows (see :func:`write_report`); ``shelf`` takes the images."""
    opened = {(s := open_submission(p)).digest(): s for p in submissions}
    shelf = Shelf() if shelf is None else shelf
    edits = [KeptEdits(folder) for folder in verdicts]
    compared = compare_scores(files, metrics=("iou",))
    found = _rows(files, compared)
    ranked = _rank([s.method for f in files for s in f.submissions if s.predictions in opened], found)
    index: list[dict[str, Any]] = []
    by_class: list[tuple[str, SubmissionScores, list[str]]] = []
    total = sum(len(file.table) for file in files)
    for file in files:
        judged: list[Judged] = [(opened[s.predictions], s) for s in file.submissions if s.predictions in opened]
        ids = file.table.id.tolist()
        judged_classes = classes(folders[file.config], judged, ids, sources)
        by_class += [(s.mode, s, names) for (_, s), names in zip(judged, judged_classes, strict=True)]
        rows = _index_rows(file, judged, judged_classes, ranked)
        shows = {row["id"]: [(m, c) for m, c in enumerate(row["class"]) if c >= 0] for row in rows}
        chosen = choose(ids, max(1, round(records * len(ids) / max(total, 1))), seed, shows)
        places = gallery_records(folders[file.config], judged, file, chosen, shelf, edits)
        for row in rows:
            row["at"], row["image"] = places.get(row["id"], (None, None))
        index += rows
    shelf.close()
    shown = [row for row in index if row["at"] is not None]
    datasets = {row["dataset"] for row in shown}
    credentialed = _credentialed(datasets)
    rows = [page_row(row, spent) | {"lvlm": lvlm} for row, lvlm, spent in found]
    outputs = [row for row, lvlm, _ in found if lvlm != ALL_LVLMS]
    shared = {
        "folder": shelf.folder,
        "chunk": CHUNK,
        "methods": ranked,
        "classes": list(OUTCOMES),
        "pairs": pair_table(compared),
        "records": index,
    }
    html = render_page(
        "report.html.j2",
        title=title,
        subtitle=f"{len(ranked)} methods · {total} records of {_patients(files)} patients · made {_now()}",
        banner=_BANNER.format(sources=", ".join(credentialed)) if credentialed else "",
        summary=rows,
        outputs=outputs_table(outputs),
        lvlms=sorted({r["lvlm"] for r in rows}, key=lambda n: (n != ALL_LVLMS, n)),
        own_lvlms=sorted({r["lvlm"] for r in index}),
        modes=sorted({r["mode"] for r in rows}),
        datasets=sorted(datasets),
        attributes=sorted({r["attribute"] for r in shown}),
        methods=ranked,
        outcomes=outcome_table(by_class),
        funnel=_funnel(verdicts),
        protocol_table=protocol_table(files),
        places=place_table(files),
        most=MOST,
        aggregated=aggregated_rows(_in_order(aggregated(folders, files, submissions, opened, seed=seed), ranked)),
        breakdowns=[b for b in (breakdown(files, *level) for level in _BREAKDOWNS) if len(b["columns"]) > 1],
        gallery_note=_gallery_note(len(shown), total, seed),
        provenance=_provenance(files),
        folder=shelf.folder,
        data=data_island(shared),
        records=shelf.records,
        pictures=shelf.pictures,
    )
    return html, datasets


def _rows(files: Sequence[ScoreFile], compared: ComparisonReport) -> list[tuple[Row, str, dict[str, float]]]:
    """The rows of the main table, pooled ones first, each with whose it is and what it cost; best IoU first."""
    parts: dict[tuple[str, str], list[SubmissionScores]] = {}
    for file in files:
        for one in file.submissions:
            parts.setdefault((one.method, one.mode), []).append(one)
    found: list[tuple[Row, str, dict[str, float]]] = []
    if any(len(row.lvlms) > 1 for row in compared.rows):
        pooled = [row for row in compared.rows if row.aggregate.level == "all"]
        found = [(row, ALL_LVLMS, cost(parts[row.name, row.mode]) if _is_method(row) else {}) for row in pooled]
    for row in submission_rows(files):
        mine = [one for one in parts[row.name, row.mode] if one.lvlm == row.lvlm] if _is_method(row) else []
        found.append((row, row.lvlm, cost(mine)))
    return sorted(found, key=lambda r: (r[1] != ALL_LVLMS, r[0].mode, r[1], r[0].order))


def _is_method(row: Row) -> bool:
    return row.kind in ("method", "control")


def _patients(files: Sequence[ScoreFile]) -> str:
    """How many patients; files of different configs number theirs apart, so that there may be more."""
    counts: dict[str, set[int]] = {}
    for file in files:
        counts.setdefault(file.fingerprint, set()).update(file.table.cluster.tolist())
    return ("≥ " if len(counts) > 1 else "") + str(max(map(len, counts.values()), default=0))


def _index_rows(
    file: ScoreFile, judged: Sequence[Judged], judged_classes: Sequence[Sequence[str]], methods: Sequence[str]
) -> list[dict[str, Any]]:
    """Of every record what the page's tables, drawings and filters need; lists are in the order of the methods."""
    table, names, n = file.table, list(OUTCOMES), len(methods)
    keys = ("id", "lvlm", "mode", "dataset", "attribute")
    rows: list[dict[str, Any]] = [
        dict(zip(keys, values, strict=True)) | {"iou": [None] * n, "class": [-1] * n}
        for values in zip(*(getattr(table, key).tolist() for key in keys), strict=True)
    ]
    for row, size in zip(rows, table.evidence_fraction.tolist(), strict=True):
        row["size"] = round(size, 5)
    for (_, one), mine in zip(judged, judged_classes, strict=True):
        m = methods.index(one.method)
        for i, iou, name in zip(one.positions.tolist(), one.scores["iou"].tolist(), mine, strict=True):
            rows[i]["iou"][m], rows[i]["class"][m] = round(iou, 4), names.index(name)
            # A candidate belongs to no LVLM: it is shown under that of the submissions.
            rows[i] |= {"lvlm": rows[i]["lvlm"] or one.lvlm, "mode": rows[i]["mode"] or one.mode}
    return rows


def _gallery_note(shown: int, total: int, seed: int) -> str:
    if shown == total:
        return "All records."
    return (
        f"{shown} of {total} records, a sample with seed {seed}, up to half of it records that are the first to show "
        "a class of some method."
    )


def methods_shown(path: str | Path) -> set[tuple[str, str, str]]:
    """Method, LVLM and mode of what a report shows single records of.

    Raises
    ------
    MedGroundError
        If the file is not a report of ours.
    """
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', Path(path).read_text("utf-8"), re.S)
    try:
        data = json.loads(found[1]) if found else {}
        return {
            (name, row["lvlm"], row["mode"])
            for row in data["records"]
            if row["at"] is not None
            for name, iou in zip(data["methods"], row["iou"], strict=True)
            if iou is not None
        }
    except (KeyError, TypeError, ValueError) as error:
        raise MedGroundError(
            "this is not a report", where=path, expected="a page that medground-bench report wrote"
        ) from error


def scored(
    dataset: Path,
    submissions: Sequence[str | Path],
    scores: Sequence[ScoreFile],
    *,
    sources: Sequence[Source] = (),
    localizer: Localizer | None = None,
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
    known_by: dict[str, Any] = {"sources": sources, "localizer": localizer}
    files += [score_submissions(paths, folders[config], **known_by) for config, paths in missing.items()]
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


def _rank(methods: Sequence[str], rows: Sequence[tuple[Row, str, dict[str, float]]]) -> list[str]:
    """Methods by mean IoU over their rows, best first: the order in which they are offered."""

    def mean(method: str) -> float:
        cells = [row.cell("iou") for row, _, _ in rows if _is_method(row) and row.name == method]
        values = [cell.value for cell in cells if cell is not None]
        return sum(values) / len(values) if values else -1.0

    return sorted(set(methods), key=lambda m: (-mean(m), m))


def _in_order(found: Sequence[AggregatedMaps], ranked: Sequence[str]) -> list[AggregatedMaps]:
    return sorted(found, key=lambda one: ranked.index(one.method))


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


def _provenance(files: Sequence[ScoreFile]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What made everything: a heading and facts for every file and submission."""
    parts: list[tuple[str, list[tuple[str, str]]]] = []
    for file in files:
        facts = [
            ("dataset", f"{file.dataset_records} records, fingerprint {file.fingerprint}"),
            ("scored with", ", ".join(f"{k} {v}" for k, v in file.versions.items())),
            ("settings", ", ".join(f"{k} {v}" for k, v in file.settings.items())),
        ]
        parts.append((f"config {file.config}", facts))
        for one in file.submissions:
            p = one.provenance
            facts = [
                ("LVLM revision", str(p.get("lvlm_revision"))),
                ("settings", ", ".join(f"{k}={v}" for k, v in (p.get("settings") or {}).items())),
                ("versions", ", ".join(f"{k} {v}" for k, v in (p.get("versions") or {}).items())),
                ("predictions", one.predictions),
            ]
            parts.append((f"{one.method} · {one.lvlm} · {one.mode}", facts))
    return parts


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
