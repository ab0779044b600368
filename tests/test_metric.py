"""The evaluate module: loaded as users load it, its card, its limits."""

from __future__ import annotations

import doctest
import importlib.util
import json
import math
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medground_bench
from medground_bench.scoring import METRICS, ScoringError, evaluate_boxes, score_boxes

evaluate = pytest.importorskip("evaluate")

ROOT = Path(medground_bench.metric_path())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture
def metric(cache: Path) -> Any:
    return evaluate.load(str(ROOT), cache_dir=str(cache))


def random_inputs(n: int, seed: int = 0) -> tuple[list, list, list]:
    rng = np.random.default_rng(seed)

    def boxes() -> list:
        corner = rng.random((int(rng.integers(0, 4)), 2)) * 150
        return np.concatenate([corner, corner + 5 + rng.random(corner.shape) * 90], axis=1).tolist()

    return [boxes() for _ in range(n)], [[*boxes(), [10.0, 10.0, 60.0, 70.0]] for _ in range(n)], [[256, 256]] * n


def test_it_is_thin_over_the_package(metric: Any) -> None:
    predictions, references, sizes = random_inputs(40)
    result = metric.compute(predictions=predictions, references=references, image_sizes=sizes, per_record=True)
    scores = score_boxes(predictions, references)
    for name in METRICS:
        assert result[name] == pytest.approx(getattr(scores, name).mean())
        assert result["per_record"][name] == pytest.approx(getattr(scores, name).tolist())
        low, high = result["intervals"][name]
        assert low <= result[name] <= high
    assert result["records"] == 40
    assert result["coverage"] == pytest.approx(np.mean([len(p) > 0 for p in predictions]))
    assert set(result["chance"]) == {"whole_image", "random_box"}
    json.dumps(result)


def test_optional_columns(metric: Any) -> None:
    predictions, references, sizes = random_inputs(30)
    groups = [k // 3 for k in range(30)]
    result = metric.compute(
        predictions=predictions,
        references=references,
        datasets=["a", "b", "c"] * 10,
        models=["x"] * 10 + ["y"] * 20,
        groups=groups,
        image_sizes=sizes,
        attributes=["f", "g"] * 15,
    )
    iou = score_boxes(predictions, references).iou
    assert result["by_dataset"]["b"] == {
        **result["by_dataset"]["b"],
        "iou": pytest.approx(iou[1::3].mean()),
        "records": 10,
    }
    assert result["macro"]["iou"] == pytest.approx((iou[:10].mean() + iou[10:].mean()) / 2)
    assert set(result["chance"]) == {"whole_image", "random_box", "centre_prior"}
    chance = result["chance"]["centre_prior"]["iou"]
    assert result["skill"]["centre_prior"]["iou"] == pytest.approx((result["iou"] - chance) / (1 - chance))
    alone = evaluate_boxes(predictions, references)
    assert result["intervals"]["iou"] != alone["intervals"]["iou"]


def test_empty_lists(metric: Any) -> None:
    nothing = metric.compute(predictions=[], references=[])
    assert nothing["records"] == 0
    assert all(math.isnan(nothing[m]) for m in METRICS)
    nothing = metric.compute(
        predictions=[], references=[], datasets=[], models=[], groups=[], image_sizes=[], attributes=[], per_record=True
    )
    assert nothing["by_dataset"] == {}
    assert nothing["per_record"]["iou"] == []
    empty = metric.compute(predictions=[[], []], references=[[], [[0, 0, 1, 1]]])
    assert (empty["iou"], empty["coverage"]) == (0.5, 0.0)


def test_reversed_boxes_are_refused_as_validate_refuses_them_or_counted(metric: Any) -> None:
    predictions, references = [[[0, 0, 10, 10]], [[9, 0, 5, 5], [0, 0, 1, 2]]], [[[0, 0, 10, 20]], [[3, 3, 3, 9]]]
    with pytest.raises(ScoringError, match="box 0 is reversed or has no area") as caught:
        metric.compute(predictions=predictions, references=references)
    assert caught.value.where == "predictions[1]"
    with pytest.raises(ScoringError, match="reversed") as caught:
        metric.compute(predictions=predictions[:1] * 2, references=references)
    assert caught.value.where == "references[1]"
    result = metric.compute(predictions=predictions, references=references, drop_invalid=True)
    assert result["dropped_boxes"] == {"predictions": 1, "references": 1}
    assert result["iou"] == 0.25


def test_the_golden_cases_hold_through_the_metric(metric: Any, shared_data: Path) -> None:
    golden = json.loads((shared_data / "golden" / "eval_union_boxes.json").read_text())
    result = metric.compute(
        predictions=golden["preds"], references=golden["gts"], per_record=True, drop_invalid=True, resamples=0
    )
    assert result["dropped_boxes"] == {"predictions": 6, "references": 3}
    for name in METRICS:
        assert result["per_record"][name] == pytest.approx(golden["half_open"][name], abs=1e-9)


def test_few_groups_have_no_interval_and_no_p(metric: Any) -> None:
    predictions, references, sizes = random_inputs(30)
    for count in (1, 5, 6):
        groups = [k % count for k in range(30)]
        result = metric.compute(predictions=predictions, references=references, image_sizes=sizes, groups=groups)
        assert result["clusters"] == count
        assert ("intervals" in result) == ("p_value" in result["against_chance"]) == (count >= 6)
        assert "NaN" not in json.dumps(result)
    one = metric.compute(predictions=predictions[:1], references=references[:1], image_sizes=sizes[:1])
    assert (one["records"], one["clusters"]) == (1, 1)
    assert "intervals" not in one


def test_batches(metric: Any) -> None:
    predictions, references, _ = random_inputs(25)
    whole = metric.compute(predictions=predictions, references=references)
    for k in range(0, 24, 5):
        metric.add_batch(predictions=predictions[k : k + 5], references=references[k : k + 5])
    metric.add_batch(predictions=[], references=[])
    batched = metric.compute()
    assert batched == whole
    for p, r in zip(predictions, references, strict=True):
        metric.add(prediction=p, reference=r)
    assert metric.compute() == whole
    arrays = metric.compute(predictions=[np.array(p).reshape(-1, 4) for p in predictions], references=references)
    assert arrays == whole


@pytest.mark.parametrize(
    ("predictions", "what"),
    [
        ([[], [[0, 0, 1]]], "four numbers"),
        ([[], [[0, 0, 1, math.nan]]], "not finite"),
        ([[], [[0, 0, 1, math.inf]]], "not finite"),
        ([[], [0, 0, 1, 1]], "four numbers"),
        ([[], [["a", 0, 1, 1]]], "not numbers"),
        ([[], None], "not a list of boxes"),
    ],
)
def test_faulty_boxes_are_named_and_leave_nothing_behind(metric: Any, predictions: list, what: str) -> None:
    with pytest.raises(ScoringError, match=what) as caught:
        metric.add_batch(predictions=predictions, references=[[], []])
    assert caught.value.where == "predictions[1]"
    with pytest.raises(ScoringError, match=r"references\[1\]"):
        metric.add_batch(predictions=[[], []], references=predictions)
    assert metric.compute(predictions=[[]], references=[[]])["records"] == 1


def test_columns_and_lengths_must_agree(metric: Any) -> None:
    with pytest.raises(ScoringError, match="1 predictions for 2 references"):
        metric.compute(predictions=[[]], references=[[], []])
    with pytest.raises(ScoringError, match="2 datasets for 1 records"):
        metric.compute(predictions=[[]], references=[[]], datasets=["a", "b"])
    assert metric.compute(predictions=[[]], references=[[]])["iou"] == 1


def one_process(rank: int, cache: str, queue: Any) -> None:
    metric = evaluate.load(str(ROOT), num_process=2, process_id=rank, experiment_id="test", cache_dir=cache)
    metric.add_batch(predictions=[[[0, 0, 10, 10 + 10 * rank]]] * 3, references=[[[0, 0, 10, 40]]] * 3)
    queue.put((rank, metric.compute(models=["a"] * 3 + ["b"] * 3 if rank == 0 else None)))


def test_several_processes(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=one_process, args=(rank, str(tmp_path), queue)) for rank in (0, 1)]
    for process in processes:
        process.start()
    results = dict(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert results[1] is None
    first = results[0]
    assert first["records"] == 6
    assert first["iou"] == pytest.approx(0.375)
    assert (first["by_model"]["a"]["iou"], first["by_model"]["b"]["iou"]) == (0.25, 0.5)


@pytest.mark.heavy
def test_loading_beside_the_checkout(tmp_path: Path) -> None:
    """The module has the package's name: in whatever folder, it must find the package and not itself."""
    code = (
        "import evaluate; m = evaluate.load('metrics/medground_bench');"
        "print(m.compute(predictions=[[[0, 0, 1, 1]]], references=[[[0, 0, 1, 1]]])['iou'])"
    )
    (tmp_path / "metrics").symlink_to(ROOT.parent)
    environment = {
        **os.environ,
        "HF_MODULES_CACHE": str(tmp_path / "modules"),
        "HF_EVALUATE_CACHE": str(tmp_path / "c"),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "1.0"


def test_the_cards_examples(cache: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    parser = doctest.DocTestParser()
    examples = parser.get_doctest(text, {}, "README.md", "README.md", 0)
    assert len(examples.examples) >= 10
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    runner.run(examples)
    assert runner.summarize(verbose=False).failed == 0


def test_the_description_is_complete(metric: Any) -> None:
    assert "IoU" in metric.description
    assert "bibtex" in (ROOT / "README.md").read_text()
    assert "@misc" in metric.citation
    for name in ("predictions", "references", "datasets", "models", "groups", "image_sizes", "attributes"):
        assert name in metric.inputs_description
        assert f"`{name}`" in (ROOT / "README.md").read_text()
    requirements = (ROOT / "requirements.txt").read_text().split()
    assert any(r.startswith("medground-bench") for r in requirements)


def load_app() -> Any:
    spec = importlib.util.spec_from_file_location("metric_app", ROOT / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.heavy
def test_the_spaces_page() -> None:
    gradio = pytest.importorskip("gradio")
    assert isinstance(load_app().build(), gradio.Blocks)


def test_the_space() -> None:
    app = load_app()
    for example in app.EXAMPLES:
        assert "iou" in app.score(*example)
    assert "four numbers" in app.score("[[[0, 0, 1]]]", "[[]]")["error"]
    assert "error" in app.score("not json", "[]")
    assert app.score("[]", "[]")["iou"] is None
    assert app.card().lstrip().startswith("# Metric card")


@pytest.mark.heavy
def test_the_space_runs_from_its_own_folder(tmp_path: Path) -> None:
    """As a Space does: the script's folder, with the file of the package's name, is first on the path."""
    code = "import runpy, sys; m = runpy.run_path('app.py'); print(m['score']('[[[0,0,1,1]]]', '[[[0,0,1,2]]]')['iou'])"
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "0.5"


@pytest.mark.heavy
def test_the_wheel_ships_the_metric(tmp_path: Path) -> None:
    checkout = Path(medground_bench.__file__).resolve().parent.parent
    if not (checkout / "pyproject.toml").is_file():
        pytest.skip("the package is not a checkout: there is nothing to build a wheel from")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", str(tmp_path), str(checkout)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("medground_bench-*.whl")
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target), str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    code = (
        "import evaluate, medground_bench; path = medground_bench.metric_path(); print(path);"
        "print(evaluate.load(path).compute(predictions=[[[0, 0, 1, 1]]], references=[[[0, 0, 1, 2]]])['iou'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(target), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    path, iou = done.stdout.strip().splitlines()[-2:]
    assert Path(path).is_relative_to(target)
    assert float(iou) == 0.5
