"""``medground-bench meta``: which protocol ranks methods as the causally verified evidence does."""

from __future__ import annotations

from pathlib import Path

import typer

from medground_bench.core.errors import ScoringError

__all__ = ["command"]


def command(
    folders: list[Path] = typer.Argument(..., help="Folders that 'medground-bench evaluate' wrote.", metavar="DIR..."),
    scores: list[Path] = typer.Option([], help="Score files of the same submissions, repeatable."),
    truth: str = typer.Option(
        "", help="What is taken for the truth, PROTOCOL.MEASURE [default: scores.iou, else necessity_edited.verified]."
    ),
    out: Path = typer.Option(None, help="Also write a .json file."),
    resamples: int = typer.Option(1000, min=100, help="Bootstrap resamples of patients."),
    seed: int = typer.Option(0, min=0, help="Seed of the resamples."),
) -> None:
    """Rank agreement (Kendall's tau) of every protocol with the truth, over methods x LVLMs, with intervals.

    Which cheap protocol predicts the verified one? Rankings are of the methods of one LVLM, mode and dataset, and the
    mean over these is shown.
    """
    import json
    import math

    from medground_bench.cli._score_tables import console, print_agreements
    from medground_bench.core.files import atomic_write
    from medground_bench.scoring import read_scores
    from medground_bench.scoring.protocols.meta import kendall_matrix, rank_agreement
    from medground_bench.scoring.protocols.result import read_results

    results = [result for folder in folders for result in read_results(folder)]
    files = [read_scores(path) for path in scores]
    name = truth or ("scores.iou" if files else "necessity_edited.verified")
    protocol, dot, measure = name.partition(".")
    if not dot:
        raise ScoringError(f"--truth {name!r} is not understood", expected="PROTOCOL.MEASURE, e.g. scores.iou")
    found = rank_agreement(results, files, (protocol, measure), resamples=resamples, seed=seed)
    names, matrix = kendall_matrix(results, files)
    if out is not None:
        plain = [
            {
                "protocol": a.protocol,
                "measure": a.measure,
                "tau": [v if math.isfinite(v) else None for v in a.tau],
                "tau_controls": [v if math.isfinite(v) else None for v in a.tau_controls],
                "methods": a.methods,
                "strata": a.strata,
                "passes": a.passes,
                "runs": a.runs,
            }
            for a in found
        ]
        table = [[v if math.isfinite(v) else None for v in row] for row in matrix.tolist()]
        with atomic_write(out) as file:
            json.dump({"truth": name, "rows": plain, "protocols": names, "matrix": table}, file, indent=1)
            file.write("\n")
    print_agreements(found, name, names, matrix, console())
    if out is not None:
        typer.echo(f"written: {out}", err=True)
