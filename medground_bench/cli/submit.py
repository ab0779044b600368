"""``medground-bench submit``: a pull request with a submission."""

from __future__ import annotations

from pathlib import Path

import typer

from medground_bench.core.errors import MedGroundError

__all__ = ["command"]


def command(
    submission: Path = typer.Argument(..., help="Submission folder."),
    dataset: Path = typer.Option(..., help="Dataset folder it was made for."),
    config: str | None = typer.Option(None, help="Config of the dataset folder (default: the submission's mode)."),
    repo: str | None = typer.Option(None, "--repo", help="Results repository (a dataset repository), ORG/NAME."),
    heatmaps: bool = typer.Option(False, help="Send the heat maps too, of records of open sources."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Say what would be sent or written, and send and write nothing (but --payload)."
    ),
    payload: Path | None = typer.Option(
        None,
        "--payload",
        help="Also write what is (or, with --dry-run, would be) sent into this new folder, to look at.",
    ),
    write_eval_results: Path | None = typer.Option(
        None, "--write-eval-results", help="Also write eval.yaml and .eval_results/*.yaml, for model pages, here."
    ),
    benchmark: str | None = typer.Option(
        None, "--benchmark", help="The benchmark's dataset repository, ORG/NAME (for --write-eval-results)."
    ),
) -> None:
    """Validate a submission and open a pull request with it on a results repository of the Hub.

    Example: medground-bench submit demo/submissions/toy_qwen/direct/occlusion --dataset demo/medground-bench
    --repo ORG/NAME --dry-run

    Images are never sent. Of credentialed records neither texts nor heat maps are, and their ids go as keyed hashes.
    """
    from medground_bench.core.console import stderr
    from medground_bench.dataset.folder import open_folder, open_for_mode
    from medground_bench.submission import find_submissions, open_submission
    from medground_bench.submission.submit import require_valid, submit

    if repo is None and write_eval_results is None:
        raise MedGroundError("there is nothing to do", expected="--repo ORG/NAME, or --write-eval-results FOLDER")
    if write_eval_results is not None and benchmark is None:
        raise MedGroundError("--write-eval-results needs --benchmark", expected="ORG/NAME of the benchmark's dataset")

    def say(line: str) -> None:
        stderr.print(line, markup=False, highlight=False, soft_wrap=True)

    (submission,) = _one(find_submissions([submission]))
    mode = str(open_submission(submission).header["mode"])
    folder = open_folder(dataset, config) if config is not None else open_for_mode(dataset, mode)
    url = None
    if repo is not None:
        done = submit(submission, repo, folder, heatmaps=heatmaps, dry_run=dry_run, payload=payload, progress=say)
        for what, count in sorted(done.left_out.items()):
            say(f"stays here: {what} ({count})")
        if dry_run:
            say(f"would send, as a pull request to {repo}:")
            typer.echo("\n".join(done.files))
        else:
            url = done.url
            typer.echo(url)
    else:
        require_valid(submission, folder)
    if write_eval_results is not None and benchmark is not None:
        from medground_bench.scoring import score_submissions
        from medground_bench.scoring.eval_results import write_eval_results as write

        if dry_run:
            say(f"would write eval.yaml and .eval_results/*.yaml into {write_eval_results}")
            return
        for path in write(score_submissions([submission], folder), benchmark, write_eval_results, source_url=url):
            say(f"written: {path}")


def _one(found: list[Path]) -> list[Path]:
    if len(found) > 1:
        raise MedGroundError(
            f"{len(found)} submissions are here",
            where=found[0].parent,
            expected="one: a pull request is about one submission",
            remedy="submit them one by one: " + ", ".join(path.name for path in found[:8]),
        )
    return found
