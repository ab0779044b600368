"""Scores in the Hub's format: ``eval.yaml`` for a benchmark's repository, ``.eval_results/*.yaml`` for a model's.

The first makes a dataset repository a benchmark with one task per config; the second puts a score on a model's page.
A model has one file per method and mode, because a file with several results of one task is ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import MissingDependencyError, ScoringError
from medground_bench.core.files import atomic_write
from medground_bench.core.hub import require_repo_id
from medground_bench.scoring.rows import too_few

if TYPE_CHECKING:
    from medground_bench.scoring import ScoreFile, SubmissionScores

__all__ = ["benchmark_file", "result_entry", "write_eval_results"]

_NAME = "MedGround-Bench"
_DESCRIPTION = (
    "Visual evidence of yes/no answers about chest radiographs, verified by editing the image: how well do the boxes "
    "of an attribution method cover what the answer depends on? The value of a task is the mean IoU (0 to 1) of the "
    "unions of predicted and expert boxes."
)


def benchmark_file(configs: Iterable[str]) -> dict[str, Any]:
    """Content of ``eval.yaml``: one task per config of the dataset.

    The optional ``evaluation_framework`` is left out: the Hub takes only names it has listed.
    """
    tasks = [{"id": config, "config": config, "split": "test"} for config in configs]
    return {"name": _NAME, "description": _DESCRIPTION, "tasks": tasks}


def result_entry(scores: ScoreFile, one: SubmissionScores, benchmark: str, source_url: str | None = None) -> Any:
    """The ``EvalResultEntry`` of a submission: its mean IoU, with the interval and the method in the notes.

    Raises
    ------
    ScoringError
        If the submission has no mean IoU.
    """
    try:
        from huggingface_hub import EvalResultEntry
    except ImportError as error:
        raise MissingDependencyError(
            "this huggingface_hub does not know the Hub's evaluation results",
            remedy="pip install --upgrade huggingface_hub",
        ) from error
    whole = one.find()
    interval = whole.values.get("iou") if whole is not None else None
    if whole is None or interval is None or interval.value != interval.value:
        raise ScoringError("there is no mean IoU", where=f"{one.method} for {one.lvlm}, {one.mode}")
    ends = too_few(whole.clusters) or f"95 % interval {interval.low:.4f} to {interval.high:.4f}"
    return EvalResultEntry(
        dataset_id=benchmark,
        task_id=scores.config,
        value=round(interval.value, 4),
        date=scores.created or None,
        source_url=source_url,
        notes=f"attribution by {one.method}; mean IoU of {whole.records} records of {whole.clusters} patients, "
        f"{ends}; {scores.fingerprint}",
    )


def write_eval_results(
    scores: ScoreFile, benchmark: str, out: str | Path, *, source_url: str | None = None
) -> list[Path]:
    """Write ``eval.yaml`` and one ``.eval_results/*.yaml`` per submission of a score file.

    Parameters
    ----------
    scores : ScoreFile
        What was scored.
    benchmark : str
        The benchmark's dataset repository, ``ORG/NAME``; ``eval.yaml`` belongs at its root.
    out : path
        Folder to write to; the files under ``.eval_results`` belong into the LVLM's repository.
    source_url : str, optional
        Where the result comes from, for instance the pull request.

    Returns
    -------
    list of Path

    Raises
    ------
    PublishError
        If ``benchmark`` is not ORG/NAME.
    """
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml

    require_repo_id(benchmark, "my-lab/medground-bench")
    out, written = Path(out), [Path(out) / "eval.yaml"]
    contents: list[Any] = [benchmark_file([scores.config])]
    for one in scores.submissions:
        name = re.sub(r"[^A-Za-z0-9+-]+", "_", f"medground_bench_{one.mode}_{one.method}")
        written.append(out / ".eval_results" / f"{name}.yaml")
        contents.append(eval_result_entries_to_yaml([result_entry(scores, one, benchmark, source_url)]))
    for path, content in zip(written, contents, strict=True):
        with atomic_write(path) as file:
            yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True, width=100)
    return written
