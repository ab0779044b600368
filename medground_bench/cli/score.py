"""``medground-bench score``: submissions against a dataset folder."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["command"]


def command(
    submissions: list[Path] = typer.Argument(
        ..., help="Submission folders, or folders that hold some.", metavar="SUBMISSION"
    ),
    dataset: Path = typer.Option(..., help="Dataset folder they were made for."),
    config: str | None = typer.Option(None, help="Config of the dataset folder (default: each submission's mode)."),
    out: list[Path] = typer.Option(
        [Path("scores.json")],
        help="Score file (.json) to write; or the table, by the name: .csv, .md, .tex, .png, .svg or .pdf. Repeatable. "
        "Of submissions in two modes one each: scores.MODE.json.",
    ),
    partial: bool = typer.Option(False, help="Score incomplete submissions: missing records count as not answered."),
    heatmaps: bool = typer.Option(True, help="Also score heat maps, where rows name them."),
    resamples: int = typer.Option(10_000, min=100, help="Bootstrap resamples (and sign flips) of patients."),
    tolerance: float = typer.Option(0.05, min=0.0, help="Pointing game: tolerance, share of the longer side."),
    source: list[str] = typer.Option(
        [],
        help="NAME=DIR, repeatable: phantoms tell their concepts (a ceiling); another source of the same images is a "
        "second annotator (the human row).",
    ),
    tokens: list[Path] = typer.Option(
        [], help="Folder of token evidence (medground-bench tokens), repeatable: token scores are judged by it."
    ),
    localizer: str = typer.Option(
        "", help="Finds the anatomical concepts where no record or source tells them, e.g. multi_atlas."
    ),
    pool: str = typer.Option("", help="Reference pool of the localizer (default: its own)."),
    protocols: list[Path] = typer.Option(
        [], help="Folder that 'medground-bench evaluate' wrote, repeatable: its results join the file."
    ),
    seed: int = typer.Option(0, min=0, help="Seed of the resamples and of the random chance row."),
) -> None:
    """Score submissions: the paper's four numbers between chance and ceilings, with 95 % intervals.

    A submission that is not valid, or was made for another dataset, is refused.

    Example: medground-bench score demo/submissions --dataset demo/medground-bench --out scores.json
    """
    from medground_bench.attribution.token_evidence import read_token_evidence
    from medground_bench.cli._score_tables import console, print_scores
    from medground_bench.cli._sources import parse_sources
    from medground_bench.core.console import progress_bar
    from medground_bench.core.errors import ScoringError, printable
    from medground_bench.dataset.folder import DatasetFolder, open_folder, open_for_mode
    from medground_bench.pages.export import check_format, write_rows
    from medground_bench.scoring import score_submissions, submission_rows, write_scores
    from medground_bench.scoring.protocols.join import join_protocols
    from medground_bench.scoring.protocols.result import read_results
    from medground_bench.sources import open_source
    from medground_bench.sources.planted import load_localizer
    from medground_bench.submission import find_submissions, open_submission

    for path in out:
        check_format(path)
    sources = [open_source(name, root) for name, root in parse_sources(source).items()]
    find = load_localizer(localizer, **({"pool": pool} if pool else {})) if localizer else None
    evidence = [read_token_evidence(path) for path in tokens]
    groups: dict[str, tuple[DatasetFolder, list[Path]]] = {}
    for path in find_submissions(submissions):
        mode = str(open_submission(path).header["mode"])
        folder = open_folder(dataset, config) if config is not None else open_for_mode(dataset, mode)
        groups.setdefault(folder.config, (folder, []))[1].append(path)
    known = {folder.fingerprint for folder, _ in groups.values()}
    for path, one in zip(tokens, evidence, strict=True):
        if one.header["dataset_fingerprint"] not in known:
            raise ScoringError(
                "this token evidence is of another dataset or config",
                where=path,
                expected=" or ".join(sorted(known)),
                remedy="run medground-bench tokens on this dataset and config",
            )
    found = [result for path in protocols for result in read_results(path)]
    for name, (folder, paths) in groups.items():
        with progress_bar(f"scoring {name}") as progress:
            scores = score_submissions(
                paths,
                folder,
                partial=partial,
                heatmaps=heatmaps,
                resamples=resamples,
                tolerance=tolerance,
                seed=seed,
                sources=sources,
                localizer=find,
                tokens=[e for e in evidence if e.header["dataset_fingerprint"] == folder.fingerprint],
                progress=progress,
            )
        for line in join_protocols(scores, [r for r in found if r.dataset == folder.fingerprint]):
            typer.echo(printable(f"left out: {line}"), err=True)
        for path in out:
            target = path if len(groups) == 1 else path.with_name(f"{path.stem}.{name}{path.suffix}")
            if path.suffix.lower() == ".json":
                write_scores(scores, target)
            else:
                write_rows(target, list(submission_rows([scores], ("all", "dataset"))), title="Scores")
            typer.echo(f"written: {target}", err=True)
        print_scores(scores, console())
    if strangers := sum(result.dataset not in known for result in found):
        typer.echo(f"left out: {strangers} results of protocols on other datasets", err=True)
