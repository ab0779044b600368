"""The notebooks of ``examples``: they run from top to bottom in an empty folder, and are committed without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def run(path: Path, folder: Path) -> str:
    """Execute a notebook in a folder; what its cells printed. A cell that fails raises."""
    import nbformat
    from nbclient import NotebookClient

    notebook: Any = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [o["data"].get("text/html", "") for o in outputs if "data" in o]
    assert any("<img" in text for text in shown), "no result shows itself"
    return "".join(o["text"] for o in outputs if o["output_type"] == "stream")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_committed_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 4
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert path.stat().st_size < 20_000


@pytest.mark.heavy
def test_attribute(tmp_path: Path) -> None:
    said = run(FOLDER / "attribute.ipynb", tmp_path)
    assert "with: Yes | without: No" in said
    scores = {line.split()[0]: float(line.split()[-1]) for line in said.splitlines() if " IoU " in line}
    assert set(scores) == {"attention", "lrp", "occlusion", "sobel"}
    assert max(scores, key=scores.__getitem__) != "sobel"
    assert (tmp_path / "lrp.png").is_file()


@pytest.mark.heavy
def test_write_evaluate_and_submit_a_method(tmp_path: Path) -> None:
    said = run(FOLDER / "method.ipynb", tmp_path)
    assert "blurred_windows" in said
    assert "chance: whole image" in said
    assert "would" in said  # the dry run
    header = json.loads((tmp_path / "submissions/toy_qwen/direct/blurred_windows/submission.json").read_text())
    assert header["settings"]["window"] == 56
    assert "blurred_windows" in (tmp_path / "leaderboard.html").read_text(encoding="utf-8")
    assert (tmp_path / "report.html").is_file()
