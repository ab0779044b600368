"""MedGround-Bench: causally verified visual evidence for chest X-ray question answering.

The Python face of the project; everything is loaded when it is first used:

>>> import medground_bench as mgb
>>> records = mgb.open_dataset("demo/medground-bench", "direct")  # doctest: +SKIP
>>> lvlm = mgb.load_lvlm("toy_qwen")  # doctest: +SKIP
>>> result = mgb.attribute(records[0], "occlusion", lvlm)  # doctest: +SKIP
>>> report = mgb.generate(records, lvlm, ["occlusion", "lrp"], out="submissions")  # doctest: +SKIP
>>> scores = mgb.score(report, records)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterable as _Iterable
from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.versions import VERSION as __version__

if TYPE_CHECKING:
    from medground_bench.attribution.attribute import AttributionResult, attribute
    from medground_bench.attribution.generate import GenerateReport, generate
    from medground_bench.attribution.method import Method, method
    from medground_bench.attribution.results import Attribution, from_heatmap
    from medground_bench.core.errors import MedGroundError
    from medground_bench.dataset.columns import Record
    from medground_bench.dataset.folder import DatasetFolder
    from medground_bench.lvlm import load_lvlm
    from medground_bench.scoring import ComparisonReport, ScoreFile
    from medground_bench.sources import open_source
    from medground_bench.submission import ValidationReport

__all__ = [
    "Attribution",
    "AttributionResult",
    "MedGroundError",
    "Method",
    "Record",
    "__version__",
    "attribute",
    "compare",
    "from_heatmap",
    "generate",
    "load_lvlm",
    "method",
    "metric_path",
    "open_dataset",
    "open_source",
    "score",
    "validate",
]

_HOMES = {
    "Attribution": "attribution.results",
    "AttributionResult": "attribution.attribute",
    "MedGroundError": "core.errors",
    "Method": "attribution.method",
    "Record": "dataset.columns",
    "attribute": "attribution.attribute",
    "from_heatmap": "attribution.results",
    "generate": "attribution.generate",
    "load_lvlm": "lvlm",
    "method": "attribution.method",
    "open_source": "sources",
}
"""Where the names that are not defined here come from, on first use (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(_import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def open_dataset(path: str | _Path, config: str | None = None) -> DatasetFolder:
    """The records of one config of a dataset folder.

    Parameters
    ----------
    path : path
        What ``medground-bench build`` or ``medground-bench demo`` wrote.
    config : {"direct", "reason", "candidates"}, optional
        May be left out where the folder has only one.

    Returns
    -------
    DatasetFolder
        A ``Sequence[Record]``: by position, by slice and by id; iteration streams from disk.

    Raises
    ------
    BuildError
        If the folder is not one, lacks the config, or is damaged.

    Examples
    --------
    >>> records = open_dataset("demo/medground-bench", "direct")  # doctest: +SKIP
    >>> records[0].question, records[0].boxes, records[0].image.size  # doctest: +SKIP
    ('Is there evidence of aortic enlargement ...', ((241.0, 92.0, 312.0, 181.0),), (512, 448))
    >>> [r.attribute for r in records if r.model == "toy_qwen"]  # doctest: +SKIP
    """
    from medground_bench.dataset.folder import open_folder

    return open_folder(path, config)


def validate(
    submission: str | _Path, records: DatasetFolder | str | _Path | None = None, config: str | None = None
) -> ValidationReport:
    """Everything that is wrong with a submission, row by row.

    Parameters
    ----------
    submission : path
        Folder with ``submission.json`` and ``predictions.jsonl``.
    records : DatasetFolder or path, optional
        What it was made for; without it ids, image bounds and the frame cannot be checked.
    config : str, optional
        Config, where ``records`` is a path (default: the submission's mode).

    Returns
    -------
    ValidationReport
        ``.valid``, ``.faults``, ``.warnings``. Nothing in the files raises.

    Raises
    ------
    SubmissionError
        If there is no such folder.
    BuildError
        If the dataset folder cannot be read.

    Examples
    --------
    >>> report = validate("submissions/occlusion", records)  # doctest: +SKIP
    >>> report.valid, [str(fault) for fault in report.faults]  # doctest: +SKIP
    (True, [])
    """
    from medground_bench.submission import validate_submission

    return validate_submission(submission, records, config)


def score(
    submissions: str | _Path | _Iterable[str | _Path] | GenerateReport, records: DatasetFolder, **options: Any
) -> ScoreFile:
    """Validate and score submissions: the numbers of ``medground-bench score``.

    Parameters
    ----------
    submissions : path, iterable of path, or GenerateReport
        Submission folders, or what :func:`generate` returned.
    records : DatasetFolder
        What they were made for.
    **options
        ``partial``, ``heatmaps``, ``resamples``, ``confidence``, ``tolerance``, ``seed``, ``progress``: see
        :func:`medground_bench.scoring.score_submissions`.

    Returns
    -------
    ScoreFile
        Scores per record and aggregates beside the chance rows; ``medground_bench.scoring.write_scores`` writes it.

    Raises
    ------
    SubmissionError
        If a submission is not valid, or was made for another dataset.
    ScoringError
        If there is nothing to score, or two submissions are of the same method, LVLM and mode.

    Examples
    --------
    >>> scores = score(["submissions/occlusion", "submissions/lrp"], records)  # doctest: +SKIP
    >>> scores.submissions[0].find().values["iou"].value  # doctest: +SKIP
    0.218
    """
    from medground_bench.scoring import ScoringError, score_submissions

    if not isinstance(submissions, str | _Path | _Iterable):
        submissions = submissions.submissions.values()
    paths = [submissions] if isinstance(submissions, str | _Path) else list(submissions)
    if not paths:
        raise ScoringError("there is nothing to score", expected="at least one submission folder")
    return score_submissions(paths, records, **options)


def compare(scores: ScoreFile | str | _Path | _Iterable[ScoreFile | str | _Path], **options: Any) -> ComparisonReport:
    """Compare the methods of score files: the numbers of ``medground-bench compare``.

    Parameters
    ----------
    scores : ScoreFile, path, or an iterable of them
        What :func:`score` returned or ``medground-bench score`` wrote.
    **options
        See :func:`medground_bench.scoring.compare_scores`.

    Returns
    -------
    ComparisonReport
        Methods pooled over LVLMs beside chance, and every pair tested.

    Raises
    ------
    ScoringError
        If the files are of different datasets or hold no method.

    Examples
    --------
    >>> report = compare([score(submissions, records)])  # doctest: +SKIP
    >>> report.flat_rows()  # doctest: +SKIP
    """
    from medground_bench.scoring import ScoreFile, compare_scores, read_scores

    files = [scores] if isinstance(scores, ScoreFile | str | _Path) else list(scores)
    return compare_scores([f if isinstance(f, ScoreFile) else read_scores(f) for f in files], **options)


def metric_path() -> str:
    """Folder of the ``evaluate`` module: ``evaluate.load(medground_bench.metric_path())``.

    It is ``metrics/medground_bench`` of a checkout, or the copy that ships in the wheel.

    Raises
    ------
    FileNotFoundError
        If neither is there (a broken installation).
    """
    here = _Path(__file__).resolve().parent
    # evaluate looks for a script with the name of its folder.
    for folder in (here.parent / "metrics" / "medground_bench", here / "_metric" / "medground_bench"):
        if (folder / "medground_bench.py").is_file():
            return str(folder)
    raise FileNotFoundError("the metric module is missing: reinstall medground-bench")
