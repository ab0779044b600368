"""``medground-bench demo``: see everything work, in minutes, with nothing else on the machine."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["command"]


def command(
    out: Path = typer.Option(Path("demo"), help="Folder for everything the demo makes."),
    records: int = typer.Option(77, min=1, help="Candidates per LVLM that the causal filter judges in direct mode."),
    reason_records: int = typer.Option(
        None, min=1, help="Candidates in reason mode; by default two fifths of --records, but at least eight."
    ),
    seed: int = typer.Option(0, min=0, help="Chooses the radiographs."),
    methods: str = typer.Option(
        None, "--methods", help='Names separated by commas, or "all"; by default a dozen of all families.'
    ),
    canvas: Path = typer.Option(
        None, "--canvas", help="Folder of normal radiographs to plant findings in, in place of procedural ones."
    ),
    pose: bool = typer.Option(None, "--pose", help="Turn and crop the radiographs of --canvas before planting."),
    faint: float = typer.Option(
        None, min=0, max=1, help="Share of the procedural radiographs whose findings are faint. [default: a quarter]"
    ),
    processes: int = typer.Option(None, "--processes", min=1, help="By default two where there are two cores."),
) -> None:
    """Run the whole benchmark on procedural radiographs with two toy LVLMs; run again to resume."""
    import os

    # Before any library that reads them is imported: the demo needs no network and must not look for one.
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"
    from medground_bench.cli._lvlm import set_threads
    from medground_bench.cli._score_tables import console, print_comparison
    from medground_bench.core.console import progress_bar, stderr
    from medground_bench.core.errors import MissingDependencyError
    from medground_bench.core.schema import MODES
    from medground_bench.demo import LVLMS, run_demo
    from medground_bench.scoring import ComparisonReport

    try:
        set_threads(small=True)
    except ImportError as error:
        raise MissingDependencyError(
            "the demo needs torch and transformers", remedy='pip install "medground-bench[all]"'
        ) from error
    result = run_demo(
        out,
        records=records,
        reason_records=reason_records,
        seed=seed,
        methods=[name.strip() for name in methods.split(",") if name.strip()] if methods else None,
        canvas=canvas,
        faint=faint,
        pose=pose,
        processes=processes,
        progress=progress_bar,
        say=lambda line: stderr.print(line, highlight=False, soft_wrap=True, markup=False),
    )
    if result.comparison is not None:
        # The paired tests of a dozen methods fill pages: 'compare' prints them to those who ask.
        overview = ComparisonReport(rows=result.comparison.rows, measures=result.comparison.measures)
        print_comparison(overview, console(), levels=["all"], metric="iou")
    kept = ", ".join(f"{name} {count}" for name, count in result.records.items())
    config = next(mode for mode in MODES if any(result.records.get(f"{key} {mode}") for key in LVLMS))
    judged = sum(result.shortcut.values())
    fell = judged - result.shortcut.get("kept", 0)
    typer.echo(
        f"""
Records that passed the filter: {kept}.
Of the candidates of toy_shortcut, which answers from a marker, the filter rejected {fell} of {judged}.

Look at
  {result.report}        scores beside chance, the funnel, every record with its boxes and heat maps
  {result.leaderboard}   the same numbers as a leaderboard
  {result.dataset}      the dataset: load_dataset("{result.dataset}", "{config}")

Next
  test the differences      medground-bench compare {" ".join(map(str, result.scores))}
  score your own boxes      medground-bench validate SUBMISSION --dataset {result.dataset} --config {config}
  add your own method       see "A method of your own" in the README
  run a real LVLM           medground-bench generate --help
  build from licensed data  medground-bench sources"""
    )
