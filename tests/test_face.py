"""The Python face: light, lazy, and the same numbers as the command line."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import medground_bench as mgb
from medground_bench.core.errors import MedGroundError, ScoringError
from medground_bench.dataset.folder import DatasetFolder
from medground_bench.dataset.plan import BuildSettings
from medground_bench.dataset.write import build_folder
from medground_bench.sources import open_source
from medground_bench.sources.phantom import write_source
from tests.pages.report.conftest import write_verdicts

ROOT = Path(__file__).parents[1]


def test_every_name_is_there_and_documented() -> None:
    assert set(mgb.__all__) <= set(dir(mgb))
    for name in set(mgb.__all__) - {"__version__"}:
        assert getattr(mgb, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'atribute'"):
        _ = mgb.atribute


def test_importing_it_loads_nothing() -> None:
    code = (
        "import sys; import medground_bench; heavy = {'torch', 'numpy', 'PIL', 'datasets', 'pyarrow', 'transformers'};"
        "print(sorted(heavy & set(sys.modules)));"
        "medground_bench.method, medground_bench.open_dataset, medground_bench.Record, medground_bench.open_source;"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of 'medground-bench demo', of one phantom."""
    root = tmp_path_factory.mktemp("face")
    write_source("phantom", root / "source", 1, size=(256, 200))
    write_verdicts(root / "verdicts", open_source("phantom", root / "source"), "toy_qwen")
    settings = BuildSettings("direct", {"phantom": str(root / "source")}, records=str(root / "verdicts"))
    build_folder(settings, root / "demo" / "medground-bench")
    return root


def half(lvlm: Any, episode: Any, share: float = 0.5) -> list[list[float]]:
    width, height = episode.image.size
    return [[0, 0, width * share, height]]


def readme_code() -> str:
    """The first code block of the README, as it stands."""
    language, _, block = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[1].partition("\n")
    assert language == "python"
    return block


def test_the_first_code_of_the_readme_names_what_is_there() -> None:
    tree = ast.parse(readme_code())
    assert tree.body
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and getattr(n.value, "id", "") == "mgb"}
    assert used == {"open_dataset", "load_lvlm", "attribute", "generate", "score", "compare", "validate"}
    assert used <= set(mgb.__all__)


@pytest.mark.heavy
def test_the_first_code_of_the_readme_runs(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    names: dict[str, Any] = {}
    exec(compile(readme_code(), "README.md", "exec"), names)
    assert isinstance(names["records"], DatasetFolder)
    assert set(names["report"].submissions) == {"medfocus", "dark"}
    assert not names["report"].errors
    assert {s.method for s in names["scores"].submissions} == {"medfocus", "dark"}
    for file in ("out.png", "mine.png"):
        assert Image.open(file).width == 512
    header = json.loads(Path("submissions/toy_qwen/direct/dark/submission.json").read_text())
    assert header["settings"]["below"] == 60
    assert header["settings"]["function"].endswith(".dark")


def test_the_command_line_says_the_same(demo: Path, tmp_path: Path) -> None:
    from medground_bench.cli import app

    folder = demo / "demo" / "medground-bench"
    records = mgb.open_dataset(folder)
    lvlm = mgb.load_lvlm("toy_qwen")
    methods = ["occlusion", "lrp"]
    report = mgb.generate(records, lvlm, methods, out=tmp_path / "python", settings={"occlusion": {"rows": 4}})
    common = ["--dataset", str(folder), "--config", "direct"]
    command = ["generate", *common, "--lvlm", "toy_qwen", "--method", ",".join(methods)]
    done = CliRunner().invoke(app, [*command, "--set", "occlusion.rows=4", "--out", str(tmp_path / "command")])
    assert done.exit_code == 0, done.output
    for name in methods:
        one, other = (
            tmp_path / place / "toy_qwen/direct" / name / "predictions.jsonl" for place in ("python", "command")
        )
        assert one.read_text() == other.read_text()
        assert mgb.validate(tmp_path / "command/toy_qwen/direct" / name, records).valid
    scores = mgb.score(report, records, resamples=200)
    paths = [str(tmp_path / "command/toy_qwen/direct" / name) for name in methods]
    file = tmp_path / "scores.json"
    done = CliRunner().invoke(app, ["score", *paths, *common, "--resamples", "200", "--out", str(file)])
    assert done.exit_code == 0, done.output
    from medground_bench.scoring import read_scores

    for mine, theirs in zip(scores.submissions, read_scores(file).submissions, strict=True):
        for metric in ("iou", "precision", "recall", "f1", "energy", "auprc"):
            assert np.allclose(mine.scores[metric], theirs.scores[metric], atol=1e-6), metric
    # One record by hand: the same boxes and the same four scores.
    for k, record in enumerate(records):
        result = mgb.attribute(record, "occlusion", lvlm, rows=4)
        assert result.score() == pytest.approx(
            {m: float(scores.submissions[0].scores[m][k]) for m in ("iou", "precision", "recall", "f1")}, abs=1e-4
        )  # the file rounds boxes to thousandths
    assert mgb.compare(file, resamples=200).flat_rows() == mgb.compare([read_scores(file)], resamples=200).flat_rows()


def test_functions_resume_and_are_told_apart(demo: Path, tmp_path: Path) -> None:
    records = mgb.open_dataset(demo / "demo" / "medground-bench", "direct")
    lvlm = mgb.load_lvlm("toy_qwen")
    first = mgb.generate(records, lvlm, half, tmp_path, settings={"half": {"share": 0.25}})
    assert first.computed == len(records)
    again = mgb.generate(records, lvlm, [half], tmp_path, settings={"half": {"share": 0.25}})
    assert (again.computed, again.reused) == (0, len(records))
    with pytest.raises(MedGroundError, match=r"share was 0.25, is 0.5"):
        mgb.generate(records, lvlm, half, tmp_path)

    def other(lvlm: Any, episode: Any, share: float = 0.25) -> list[Any]:
        return []

    other.__name__ = "half"
    with pytest.raises(MedGroundError, match="code was"):
        mgb.generate(records, lvlm, other, tmp_path)
    with pytest.raises(MedGroundError, match="two methods are called 'half'"):
        mgb.generate(records, lvlm, [half, other], tmp_path / "new")
    with pytest.raises(MedGroundError, match="settings are given for occlusion"):
        mgb.generate(records, lvlm, half, tmp_path / "new", settings={"occlusion": {}})
    with pytest.raises(MedGroundError, match="must name the dataset"):
        mgb.generate(records[:1], lvlm, half, tmp_path / "new")  # type: ignore[arg-type]


def test_nothing_to_score(demo: Path) -> None:
    with pytest.raises(ScoringError, match="nothing to score"):
        mgb.score([], mgb.open_dataset(demo / "demo" / "medground-bench"))
