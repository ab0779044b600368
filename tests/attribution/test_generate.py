"""Generate: resume, share, refuse to mix, report a bad record without losing the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import medground_bench.attribution.method as methods
from medground_bench.attribution.generate import generate
from medground_bench.attribution.method import Attribution, Method, method
from medground_bench.core.errors import MedGroundError, MethodError
from medground_bench.core.files import Journal, read_journals
from medground_bench.core.schema import question, record_id
from medground_bench.dataset.columns import Record

if TYPE_CHECKING:
    from medground_bench.lvlm import Lvlm

N = 5


class Folder:
    """Five records on images of noise, in the shape of an opened dataset folder."""

    path = Path("dataset")
    fingerprint = "sha256:" + "0" * 64

    def __init__(self, model: str) -> None:
        self.model = model

    def __iter__(self) -> Iterator[Record]:
        for k in range(N):
            row_id = record_id(self.model, "direct", "phantom", f"image{k}", "nodule")
            yield Record(
                id=row_id,
                dataset="phantom",
                model=self.model,
                mode="direct",
                image_id=f"image{k}",
                patient_id=f"patient{k}",
                width=40,
                height=60,
                attribute="nodule",
                question=question("nodule", "direct"),
                response="Yes",
                boxes=((1, 2, 30, 50),),
                load_image=partial(self.image, row_id),
            )

    def image(self, row_id: str) -> Image.Image:
        rng = np.random.default_rng(sum(row_id.encode()))
        return Image.fromarray(rng.integers(0, 255, (60, 40), dtype=np.uint8))


@pytest.fixture
def folder(tiny_qwen: Lvlm) -> Folder:
    return Folder(tiny_qwen.key)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two methods, registered for the test; every call is noted."""
    seen: list[str] = []

    @method("bright", family="test")
    def bright(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
        seen.append("bright")
        return np.asarray(episode.frame_array, float)

    @method("tokens", family="test")
    def tokens(lvlm: Any, episode: Any, parameters: Any) -> Attribution:
        seen.append("tokens")
        scores = -lvlm.log_probs(episode, [episode.frame])[0]
        return Attribution(
            boxes=[(1, 2, 30, 50)], token_scores=scores, concept="left lung", concept_scores={"left lung": 1.0}
        )

    registry: dict[str, Method] = {m.name: m for m in (bright, tokens)}

    def get(name: str) -> Method:
        if name not in registry:
            raise MethodError(f"no method named {name!r}")
        return registry[name]

    monkeypatch.setattr(methods, "get_method", get)
    return seen


def predictions(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "predictions.jsonl").read_text().splitlines()]


def place(out: Path) -> Path:
    """Where the submissions of these tests lie."""
    return out / "tiny_qwen" / "direct"


def test_writes_one_submission_per_method_with_provenance(
    tmp_path: Path, folder: Folder, tiny_qwen: Lvlm, calls: list[str]
) -> None:
    report = generate(folder, tiny_qwen, ["bright", "tokens"], tmp_path, authors="A")
    assert report.computed == 2 * N
    assert not report.errors
    header = json.loads((place(tmp_path) / "tokens" / "submission.json").read_text())
    assert header["dataset_fingerprint"] == folder.fingerprint
    assert (header["lvlm"], header["mode"], header["method"]) == (tiny_qwen.key, "direct", "tokens")
    assert "transformers" in header["versions"]
    rows = predictions(place(tmp_path) / "tokens")
    assert [r["id"] for r in rows] == [r.id for r in folder]
    assert rows[0]["boxes"] == [[1, 2, 30, 50]]
    assert "".join(rows[0]["extras"]["token_texts"]) == "Yes"
    assert len(rows[0]["tokens"]) == len(rows[0]["extras"]["token_texts"])
    heat = np.load(
        place(tmp_path) / "bright" / predictions(place(tmp_path) / "bright")[0]["heatmap"], allow_pickle=False
    )
    assert heat.shape == (224, 224)


def test_a_second_run_in_one_folder_is_refused(
    tmp_path: Path, folder: Folder, tiny_qwen: Lvlm, calls: list[str]
) -> None:
    with Journal(place(tmp_path) / ".parts", "attributions") as first:
        first.append({"method": "bright", "row": {"id": "of the first run", "boxes": []}})
        with pytest.raises(MedGroundError, match="another process is writing here"):
            generate(folder, tiny_qwen, ["bright"], tmp_path)
        assert calls == []
    assert generate(folder, tiny_qwen, ["bright"], tmp_path).computed == N


def test_interrupted_run_resumes_to_the_same_submission(
    tmp_path: Path, folder: Folder, tiny_qwen: Lvlm, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(folder, tiny_qwen, ["bright", "tokens"], tmp_path / "whole")
    calls.clear()
    image = Folder.image
    third = [r.id for r in folder][2]

    def interrupted(self: Folder, row_id: str) -> Image.Image:
        if row_id == third:
            raise KeyboardInterrupt
        return image(self, row_id)

    monkeypatch.setattr(Folder, "image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(folder, tiny_qwen, ["bright", "tokens"], tmp_path / "cut")
    assert len(calls) == 4
    assert not (place(tmp_path / "cut") / "bright" / "submission.json").exists()
    # A line torn by a crash is dropped and its pair computed again.
    part = next((place(tmp_path / "cut") / ".parts").glob("*.jsonl"))
    part.write_bytes(part.read_bytes()[:-10])
    monkeypatch.setattr(Folder, "image", image)
    report = generate(folder, tiny_qwen, ["bright", "tokens"], tmp_path / "cut")
    assert (report.reused, report.computed) == (3, 7)
    for name in ("bright", "tokens"):
        assert predictions(place(tmp_path / "cut") / name) == predictions(place(tmp_path / "whole") / name)


def test_two_shares_equal_one(tmp_path: Path, folder: Folder, tiny_qwen: Lvlm, calls: list[str]) -> None:
    generate(folder, tiny_qwen, ["bright"], tmp_path / "one")
    first = generate(folder, tiny_qwen, ["bright"], tmp_path / "two", rank=0, world_size=2)
    assert not first.submissions
    second = generate(folder, tiny_qwen, ["bright"], tmp_path / "two", rank=1, world_size=2)
    assert set(second.submissions) == {"bright"}
    assert first.computed + second.computed == N
    assert len(list(read_journals(place(tmp_path / "two") / ".parts", "attributions"))) == N
    assert predictions(place(tmp_path / "one") / "bright") == predictions(place(tmp_path / "two") / "bright")


def test_bad_record_is_reported_and_does_not_lose_the_others(
    tmp_path: Path, folder: Folder, tiny_qwen: Lvlm, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Folder.image
    bad = [r.id for r in folder][1]

    def broken(self: Folder, row_id: str) -> Image.Image:
        if row_id == bad:
            raise MedGroundError("the image is broken")
        return image(self, row_id)

    monkeypatch.setattr(Folder, "image", broken)
    report = generate(folder, tiny_qwen, ["bright"], tmp_path)
    assert report.computed == N
    assert not report.submissions
    assert len(report.errors) == 1
    assert bad in report.errors[0]
    assert "the image is broken" in report.errors[0]
    answered = generate(folder, tiny_qwen, ["bright"], tmp_path, answer_errors=True)
    assert answered.reused == N - 1
    row = predictions(place(tmp_path) / "bright")[1]
    assert row["boxes"] == []
    assert "the image is broken" in row["error"]


def test_parts_of_other_settings_are_refused(tmp_path: Path, folder: Folder, tiny_qwen: Lvlm, calls: list[str]) -> None:
    generate(folder, tiny_qwen, ["bright"], tmp_path)
    with pytest.raises(MedGroundError, match="side was 224, is 112"):
        generate(folder, tiny_qwen, ["bright"], tmp_path, side=112)


def test_parts_from_before_a_method_was_signed_are_refused(tmp_path: Path, folder: Folder, tiny_qwen: Lvlm) -> None:
    """Boxes of 0.1.0 came from the whole map: they are not mixed with those of the positive part."""

    @methods.method("drops", family="test", over="frame", signed=True)
    def drops(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
        return np.array([[-1.0, 2.0], [0.0, -3.0]])

    report = generate(folder, tiny_qwen, [drops], tmp_path)
    header = json.loads((report.submissions["drops"] / "submission.json").read_text())
    assert header["settings"]["signed"] is True
    (settings,) = (place(tmp_path) / ".parts").glob("settings-drops.json")
    settings.write_text("{}")  # as version 0.1.0 wrote it
    with pytest.raises(MedGroundError, match="signed was None, is True"):
        generate(folder, tiny_qwen, [drops], tmp_path)


def test_a_control_says_in_its_submission_that_it_is_one(tmp_path: Path, folder: Folder, tiny_qwen: Lvlm) -> None:
    report = generate(folder, tiny_qwen, ["intensity", "sobel"], tmp_path, limit=1)
    for folder_ in report.submissions.values():
        assert json.loads((folder_ / "submission.json").read_text())["settings"]["control"] is True


def test_unknown_lvlm_and_method_are_named(
    tmp_path: Path, folder: Folder, tiny_gemma: Lvlm, tiny_qwen: Lvlm, calls: list[str]
) -> None:
    with pytest.raises(MedGroundError, match="no record of LVLM") as caught:
        generate(folder, tiny_gemma, ["bright"], tmp_path)
    assert folder.model in str(caught.value)
    with pytest.raises(MethodError, match="no method named 'nope'"):
        generate(folder, tiny_qwen, ["nope"], tmp_path)


def test_the_submission_states_the_token_grid(tmp_path: Path, folder: Folder, tiny_qwen: Lvlm) -> None:
    record = next(iter(folder))
    for side, expected in ((224, True), (None, False)):  # native frames have no grid in common
        report = generate(folder, tiny_qwen, "occlusion", tmp_path / str(side), limit=1, side=side)
        settings = json.loads((report.submissions["occlusion"] / "submission.json").read_text())["settings"]
        grid = tiny_qwen.prepare(record.image, record.question, record.response or "", side=224).grid
        assert settings["token_grid"] == ([grid.rows, grid.cols] if expected else None)


def test_variants_of_a_method_lie_beside_each_other(tmp_path: Path, folder: Folder, tiny_qwen: Lvlm) -> None:
    fine = methods.get_method("occlusion").named("occlusion_4x4")
    settings = {"occlusion_4x4": {"rows": 4, "cols": 4}}
    report = generate(folder, tiny_qwen, ["occlusion", fine], tmp_path, settings=settings, limit=1)
    assert set(report.submissions) == {"occlusion", "occlusion_4x4"}
    header = json.loads((place(tmp_path) / "occlusion_4x4" / "submission.json").read_text())
    assert header["method"] == "occlusion_4x4"
    assert (header["settings"]["variant_of"], header["settings"]["rows"]) == ("occlusion", 4)
    for wrong in ("../up", "", ".hidden", "a/b", "x" * 97):
        with pytest.raises(MethodError, match="no name of a method"):
            fine.named(wrong)


def test_parts_at_the_top_are_of_an_old_run(tmp_path: Path, folder: Folder, tiny_qwen: Lvlm, calls: list[str]) -> None:
    """Version 0.1.0 wrote METHOD and .parts into --out itself; a nested folder given as --out is the same mistake."""
    generate(folder, tiny_qwen, ["bright"], tmp_path / "new")
    with pytest.raises(MedGroundError, match="LVLM/MODE/METHOD below --out") as caught:
        generate(folder, tiny_qwen, ["bright"], place(tmp_path / "new"))
    assert caught.value.remedy == f"give --out {tmp_path / 'new'}"
    place(tmp_path / "new").rename(tmp_path / "old")
    with pytest.raises(MedGroundError, match="LVLM/MODE/METHOD below --out") as caught:
        generate(folder, tiny_qwen, ["bright"], tmp_path / "old")
    assert str(place(tmp_path / "old")) in str(caught.value.remedy)
    calls.clear()
    (tmp_path / "moved" / "tiny_qwen").mkdir(parents=True)
    (tmp_path / "old").rename(place(tmp_path / "moved"))  # what the remedy says
    assert generate(folder, tiny_qwen, ["bright"], tmp_path / "moved").reused == N
    assert calls == []


def test_what_a_method_lacks_is_told_at_the_start_and_the_others_go_on(
    folder: Folder, tiny_qwen: Lvlm, tmp_path: Path
) -> None:
    said: list[str] = []
    wanted = ["centre_prior", "localization_heads"]
    settings = {"localization_heads": {"calibration": "nowhere.json"}}
    report = generate(folder, tiny_qwen, wanted, tmp_path / "out", settings=settings, say=said.append)  # type: ignore[arg-type]
    assert list(report.submissions) == ["centre_prior"]
    assert said == [f"left out: localization_heads: {report.left_out['localization_heads']}"]
    with pytest.raises(MethodError, match="no method can run here: localization_heads"):
        generate(folder, tiny_qwen, ["localization_heads"], tmp_path / "none", settings=settings)  # type: ignore[arg-type]


def test_a_method_that_takes_too_long_fails_on_that_record(folder: Folder, tiny_qwen: Lvlm, tmp_path: Path) -> None:
    import time

    def slow(lvlm: Any, episode: Any) -> Any:
        slow.calls += 1  # type: ignore[attr-defined]
        time.sleep(5 if slow.calls == 2 else 0)  # type: ignore[attr-defined]
        return [[1, 1, 20, 20]]

    slow.calls = 0  # type: ignore[attr-defined]
    report = generate(folder, tiny_qwen, slow, tmp_path, method_timeout=0.5)  # type: ignore[arg-type]
    (error,) = report.errors
    assert "more than 0.5 seconds" in error
    assert report.computed == N


def test_the_submission_tells_what_a_record_costs(folder: Folder, tiny_qwen: Lvlm, tmp_path: Path) -> None:
    def twice(lvlm: Any, episode: Any) -> Any:
        lvlm.log_probs(episode, [episode.frame] * 2)
        return [[1, 1, 20, 20]]

    report = generate(folder, tiny_qwen, twice, tmp_path)  # type: ignore[arg-type]
    header = json.loads((report.submissions["twice"] / "submission.json").read_text())
    assert (header["cost"]["forward"], header["cost"]["backward"]) == (2, 0)
    assert header["cost"]["seconds"] > 0
