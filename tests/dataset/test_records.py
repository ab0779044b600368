from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medground_bench.causal.verdicts import failed_gate, read_verdicts
from medground_bench.core.errors import RecordsError
from medground_bench.core.files import Journal
from medground_bench.dataset import records
from medground_bench.dataset.records import download_released, join_released, load_records
from medground_bench.dataset.released import COUNTS, RELEASED, blob_id, read_released, write_released
from medground_bench.sources import Source, open_source
from tests.handmade import finding, write_nih, write_padchest, write_vindr


def entry(model: str = "gemma3_4b", dataset: str = "nih_cxr14", index: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "model": model,
        "dataset": dataset,
        "index": index,
        "answer": "Yes",
        "prediction_direct": "Yes.\n",
        "prediction_edited_direct": "No",
        "prediction_edited_kept_direct": "Yes",
        "prediction_edited_kept_normal_direct": "Yes.",
        **changes,
    }


def write(path: Path, entries: Any) -> Path:
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture
def nih(tmp_path: Path) -> Source:
    rows = ["00000001_000.png,Mass,1,2,3,4", "00000001_000.png,Nodule,1,2,3,4", "00000002_000.png,Mass,1,1,0,0"]
    write_nih(tmp_path / "nih", rows)
    return open_source("nih_cxr14", tmp_path / "nih")


# --- the released file


def test_real_direct_json(shared_data: Path) -> None:
    released = read_released(shared_data / "data" / "medground_bench" / "direct.json")
    assert released.official
    assert released.mode == "direct"
    assert len(released) == 1880
    assert released.counts() == COUNTS
    by_source = {d: sum(n for (_, s), n in COUNTS.items() if s == d) for d in ("imagenome", "vindr_cxr", "padchest_gr")}
    assert by_source == {"imagenome": 804, "vindr_cxr": 433, "padchest_gr": 643}
    largest = {d: max(e.index for e in released.entries if e.dataset == d) for d in by_source}
    assert largest == {"imagenome": 1404, "vindr_cxr": 2107, "padchest_gr": 2647}
    assert released.entries[0].predictions == ("Yes", "No", "Yes", "Yes")
    assert {e.predictions[0] for e in released.entries} == {"Yes", "Yes\n", "Yes.\n", "Yes."}  # as they stand


def test_a_folder_or_checkout_will_do(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "data" / "medground_bench" / "direct.json"
    assert len(read_released(source.parent, "direct")) == 1880
    inner = tmp_path / "data" / "medground_bench"
    inner.mkdir(parents=True)
    (inner / "direct.json").write_bytes(source.read_bytes())
    assert len(read_released(tmp_path)) == 1880


def test_one_changed_byte_is_noticed(shared_data: Path, tmp_path: Path) -> None:
    data = (shared_data / "data" / "medground_bench" / "direct.json").read_bytes()
    (tmp_path / "direct.json").write_bytes(data.replace(b'"index": 43,', b'"index": 44,', 1))
    with pytest.raises(RecordsError, match="not the released file") as caught:
        read_released(tmp_path / "direct.json")
    assert RELEASED["direct"].blob in (caught.value.expected or "")
    (tmp_path / "direct.json").write_bytes(data + b"\n")
    assert not read_released(tmp_path / "direct.json", allow_other=True).official


def test_blob_id_is_gits() -> None:
    assert blob_id(b"what is up, doc?") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    assert blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "no records"),
        ([], "no records"),
        ([3], "not a record"),
        ([{"model": "x"}], "not a record"),
        ([entry(), {"model": "gemma3_4b"}], "missing key.*dataset"),
        ([entry(model="gpt")], "unknown LVLM key 'gpt'"),
        ([entry(dataset="mimic")], "unknown dataset key 'mimic'"),
        ([entry(index=-1)], "'index' is -1"),
        ([entry(index=True)], "'index' is True"),
        ([entry(index="3")], "'index' is '3'"),
        ([entry(answer="No")], "'answer' is 'No'"),
        ([entry(prediction_direct=None)], "'prediction_direct' is None"),
        ([entry(), entry(index=1), entry()], "records 0 and 2 are the same"),
        ([entry(prediction_direct="No")], "gate correct"),
        ([entry(prediction_edited_direct="Yes")], "gate foreground"),
        ([entry(prediction_edited_kept_direct="Maybe")], "gate background"),
        ([entry(prediction_edited_kept_normal_direct="")], "gate background_normal"),
    ],
)
def test_malformed_records(tmp_path: Path, entries: Any, message: str) -> None:
    path = write(tmp_path / "direct.json", entries)
    with pytest.raises(RecordsError, match=message) as caught:
        read_released(path, allow_other=True)
    assert (caught.value.where or "").startswith(str(path))


def test_truncated_json(tmp_path: Path) -> None:
    path = write(tmp_path / "direct.json", [entry()])
    path.write_text(path.read_text()[:-5])
    with pytest.raises(RecordsError, match="not complete JSON"):
        read_released(path, allow_other=True)


def test_wrong_places(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="no such file"):
        read_released(tmp_path / "nowhere.json")
    with pytest.raises(RecordsError, match=r"holds no direct.json or reasoning.json"):
        read_released(tmp_path)
    write(tmp_path / "direct.json", [entry()])
    write(tmp_path / "reasoning.json", [entry()])
    with pytest.raises(RecordsError, match="both modes"):
        read_released(tmp_path, allow_other=True)
    with pytest.raises(RecordsError, match="mode 'direct'"):
        read_released(tmp_path / "reasoning.json", "reason", allow_other=True)


def test_reasoning_layout(tmp_path: Path) -> None:
    texts = ["The heart is wide. So the answer is yes.", "Nothing is seen. No.", "Yes.", "Final answer: Yes"]
    keys = (
        "prediction_cot",
        "prediction_edited_cot",
        "prediction_edited_kept_cot",
        "prediction_edited_kept_normal_cot",
    )
    item = {k: v for k, v in entry().items() if "prediction" not in k} | dict(zip(keys, texts, strict=True))
    released = read_released(write(tmp_path / "r.json", [item]), allow_other=True)
    assert released.mode == "reason"
    assert released.entries[0].predictions == tuple(texts)


def test_own_model_keys_must_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "direct.json", [entry(model="mine")])
    assert len(read_released(path, allow_other=True, models=["mine"])) == 1
    with pytest.raises(RecordsError, match="not the released file"):
        read_released(path, models=["mine"])


@pytest.mark.parametrize(
    ("texts", "gate"),
    [
        (("Yes", "No", "Yes", "Yes"), None),
        (("yes.\n", "NO.", "Yes ", "yes"), None),
        (("No", "No", "Yes", "Yes"), "correct"),
        (("Yes", None, "Yes", "Yes"), "foreground"),
        (("Yes", "No", "No", "Yes"), "background"),
        (("Yes", "No", "Yes", "unclear"), "background_normal"),
    ],
)
def test_failed_gate(texts: tuple[str | None, ...], gate: str | None) -> None:
    assert failed_gate(texts) == gate


# --- download


def test_download_verifies_and_keeps(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "data" / "medground_bench" / "direct.json"
    path = download_released("direct", tmp_path / "cache", url=source.as_uri())
    assert path.read_bytes() == source.read_bytes()
    # The second time it is there, and nothing is fetched.
    assert download_released("direct", tmp_path / "cache", url="file:///nowhere") == path


def test_download_refuses_what_is_not_the_file(tmp_path: Path) -> None:
    other = write(tmp_path / "other.json", [entry()])
    with pytest.raises(RecordsError, match="what was fetched is not"):
        download_released("direct", tmp_path / "cache", url=other.as_uri())
    assert not (tmp_path / "cache").exists()


def test_download_without_network_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RecordsError, match="cannot be fetched") as caught:
        download_released("reason", tmp_path, url="http://127.0.0.1:9/reasoning.json")
    assert "--records FILE" in (caught.value.remedy or "")
    assert list(tmp_path.iterdir()) == []


def test_the_url_is_pinned() -> None:
    assert "/4f11fafcd6d53e8338a32c7b5a4c14f7f26db73d/" in RELEASED["reason"].url


# --- joining


def test_join_carries_question_and_response(tmp_path: Path, nih: Source) -> None:
    released = read_released(write(tmp_path / "d.json", [entry(index=1), entry("gemma3_12b")]), allow_other=True)
    joined = join_released(released, {"nih_cxr14": nih})
    first, second = joined.records
    assert first.id == "gemma3_4b/direct/nih_cxr14/00000001_000.png/Nodule"
    assert first.response == "Yes.\n"
    assert first.prediction_edited_kept_normal == "Yes."
    assert first.question == (
        "Is there evidence of Nodule in the image? Answer directly with yes or no without any explanation."
    )
    assert second.candidate is nih[0]
    only = join_released(released, {"nih_cxr14": nih}, lvlms=["gemma3_12b"])
    assert [r.model for r in only.records] == ["gemma3_12b"]


def test_join_refusals(tmp_path: Path, nih: Source) -> None:
    def join(entries: list[dict[str, Any]], **options: Any) -> Any:
        released = read_released(write(tmp_path / "d.json", entries), allow_other=True)
        return join_released(released, {"nih_cxr14": nih}, **options)

    with pytest.raises(RecordsError, match="yields 3 candidates, but the records name positions up to 3"):
        join([entry(index=3)])
    with pytest.raises(RecordsError, match="without a valid box") as caught:
        join([entry(index=2)])
    assert caught.value.where == "BBox_List_2017.csv: line 4"
    with pytest.raises(RecordsError, match="no record of LVLM 'medgemma_4b'"):
        join([entry()], lvlms=["medgemma_4b"])
    with pytest.raises(RecordsError, match="1 records of vindr_cxr: its source was not given"):
        join([entry(), entry(dataset="vindr_cxr")])
    joined = join([entry(), entry(dataset="vindr_cxr")], allow_missing=True)
    assert len(joined.records) == 1
    assert joined.left_out == ["1 records of vindr_cxr: its source was not given"]


def test_a_short_source_stops_the_released_records(shared_data: Path, tmp_path: Path) -> None:
    write_vindr(tmp_path, [("a", "Edema", 1, 2, 3, 4)])
    path = shared_data / "data" / "medground_bench" / "direct.json"
    with pytest.raises(RecordsError, match="vindr_cxr yields 1 candidates, but the records name positions up to 2107"):
        load_records(path, "direct", {"vindr_cxr": open_source("vindr_cxr", tmp_path)}, allow_missing=True)


def test_the_official_padchest_list_is_not_joined(tmp_path: Path) -> None:
    study = {"StudyID": "s", "ImageID": "a.png", "findings": [finding(["mass"], [[0, 0, 1, 1]])]}
    write_padchest(tmp_path / "p", [study], name="grounded_reports_20240819.json")
    path = write(tmp_path / "d.json", [entry(dataset="padchest_gr")])
    source = open_source("padchest_gr", tmp_path / "p")
    with pytest.raises(RecordsError, match="not filtered"):
        load_records(path, "direct", {"padchest_gr": source}, allow_other=True)


def test_write_and_read_back(tmp_path: Path, nih: Source) -> None:
    entries = [entry(index=1), entry("gemma3_12b")]
    joined = join_released(read_released(write(tmp_path / "d.json", entries), allow_other=True), {"nih_cxr14": nih})
    write_released(joined.records, tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == entries
    with pytest.raises(RecordsError, match="none"):
        write_released([], tmp_path / "none.json")


# --- own verdicts


def verdict(**changes: Any) -> dict[str, Any]:
    answers = {"original": "Yes.", "foreground": "No", "background": "Yes", "background_normal": "Yes"}
    base = {
        "model": "toy",
        "mode": "direct",
        "dataset": "nih_cxr14",
        "image_id": "00000001_000.png",
        "attribute": "Mass",
        "gate": None,
        "answers": answers,
    }
    return {**base, **changes}


def journal(folder: Path, *lines: dict[str, Any], rank: int = 0) -> Path:
    with Journal(folder, "verdicts", rank) as file:
        for line in lines:
            file.append(line)
    return folder


def test_verdicts_join_by_image_and_attribute(tmp_path: Path, nih: Source) -> None:
    fallen = verdict(attribute="Nodule", gate="correct", answers={"original": "No"})
    failed = verdict(gate="error", answers={})  # the run after it reached a verdict
    journal(tmp_path / "v", fallen, failed, verdict(model="other"), verdict(mode="reason"))
    journal(tmp_path / "v", verdict(), verdict(model="other"), rank=1)  # the second is there twice, in agreement
    joined = load_records(tmp_path / "v", "direct", {"nih_cxr14": nih})
    assert [r.id for r in joined.records] == [
        "other/direct/nih_cxr14/00000001_000.png/Mass",
        "toy/direct/nih_cxr14/00000001_000.png/Mass",
    ]
    assert joined.records[0].response == "Yes."
    assert joined.origin["released"] is False
    assert len(load_records(tmp_path / "v", "direct", {"nih_cxr14": nih}, lvlms=["toy"]).records) == 1
    with pytest.raises(RecordsError, match="no record of LVLM 'gemma3_4b'"):
        load_records(tmp_path / "v", "direct", {"nih_cxr14": nih}, lvlms=["gemma3_4b"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"model": "toy"}], "not a verdict"),
        ([verdict(gate="luck")], "one is unknown"),
        ([verdict(dataset="mimic")], "one is unknown"),
        ([verdict(), verdict(gate="correct")], "contradict"),
        ([verdict(answers={"original": "Yes"})], "lacks an answer"),
        (
            [verdict(answers=dict.fromkeys(("original", "foreground", "background", "background_normal"), "Yes"))],
            "fails gate 'foreground'",
        ),
    ],
)
def test_malformed_verdicts(tmp_path: Path, lines: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RecordsError, match=message):
        read_verdicts(journal(tmp_path, *lines))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (verdict(image_id="00000009_000.png"), "no candidate with boxes"),
        (verdict(image_id="00000002_000.png"), "no candidate with boxes"),
        (verdict(ordinal=2), "no candidate with boxes"),
        (verdict(dataset="phantom"), "source was not given"),
        (verdict(mode="reason"), "no record of mode 'direct' is left"),
    ],
)
def test_verdicts_that_do_not_fit(tmp_path: Path, nih: Source, line: dict[str, Any], message: str) -> None:
    folder = journal(tmp_path / "v", line)
    with pytest.raises(RecordsError, match=message):
        load_records(folder, "direct", {"nih_cxr14": nih})


def test_download_keyword(tmp_path: Path, nih: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "d.json", [entry()])
    fetch: Callable[[str], Path] = lambda mode: path  # noqa: E731
    monkeypatch.setattr(records, "download_released", fetch)
    assert len(load_records("download", "direct", {"nih_cxr14": nih}, allow_other=True).records) == 1
