"""Uploads: a good one is scored and kept; hostile ones are refused, each with its reason, and leave nothing."""

from __future__ import annotations

import io
import json
import stat
import struct
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medground_bench.core.errors import ScoringError
from medground_bench.core.schema import masked_id
from medground_bench.dataset.folder import open_folder
from medground_bench.dataset.masking import dataset_key
from medground_bench.pages.leaderboard import archive as archive_module
from medground_bench.pages.leaderboard import collect_results, leaderboard_page
from medground_bench.pages.leaderboard.archive import Limits, UploadError, unpack
from medground_bench.pages.leaderboard.public import Register
from medground_bench.pages.leaderboard.uploads import receive_archive
from medground_bench.scoring import compare_scores, read_scores
from tests.scoring.folders import header, make_rows, perfect, write_folder

ROWS = make_rows(40)


class Server:
    """A dataset, a results folder, and where archives are put."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dataset = write_folder(root / "dataset", ROWS)
        self.results = root / "results"

    def receive(self, archive: Path, **options: Any) -> Any:
        return receive_archive(archive, self.results, self.dataset, resamples=100, **options)

    def key(self) -> bytes:
        return dataset_key(open_folder(self.dataset))

    def kept(self) -> list[Path]:
        return sorted(self.results.glob("*.json")) if self.results.is_dir() else []


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    return Server(tmp_path)


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def members(**changes: Any) -> dict[str, bytes]:
    return {
        "sub/submission.json": json.dumps(header(ROWS, **changes)).encode(),
        "sub/predictions.jsonl": jsonl(perfect(ROWS)),
    }


def pack(path: Path, files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] | None = None) -> Path:
    """A ZIP with these members; ``change`` may spoil each member's facts."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if change is not None:
                change(info)
            file.writestr(info, data)
    return path


def refused(server: Server, archive: Path, message: str, **options: Any) -> UploadError:
    with pytest.raises(UploadError, match=message) as caught:
        server.receive(archive, **options)
    assert not server.kept(), "a refused upload left a result"
    assert not list((server.root / "scratch").iterdir()), "a refused upload left files"
    assert str(server.root) not in str(caught.value), "the message tells of the server's folders"
    return caught.value


def test_a_good_upload_is_scored_and_shown(server: Server, tmp_path: Path) -> None:
    receipt = server.receive(pack(tmp_path / "a.zip", members()))
    assert receipt.iou[0] == pytest.approx(1.0)
    assert receipt.records == 40
    (path,) = server.kept()
    assert path == receipt.path
    assert len(path.stem) == 32
    assert "oracle" in leaderboard_page(*collect_results(server.results))


def test_files_may_lie_at_the_top_and_strangers_are_ignored(server: Server, tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as nested:
        nested.writestr("submission.json", "{}")
    files = {name.removeprefix("sub/"): data for name, data in members().items()}
    files |= {
        "more.zip": inner.getvalue(),
        "picture.png": b"x",
        "__MACOSX/submission.json": b"x",
        "heatmaps/a.txt": b"x",
    }
    receipt = server.receive(pack(tmp_path / "a.zip", files))
    assert receipt.ignored == ["'more.zip'", "'picture.png'", "'__MACOSX/submission.json'", "'heatmaps/a.txt'"]


def test_heat_maps_are_scored(server: Server, tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.eye(16, dtype=np.float32))
    rows = [{**row, "heatmap": "heatmaps/one.npy"} for row in perfect(ROWS)]
    files = {**members(), "sub/predictions.jsonl": jsonl(rows), "sub/heatmaps/one.npy": stream.getvalue()}
    receipt = server.receive(pack(tmp_path / "a.zip", files))
    whole = read_scores(receipt.path).submissions[0].find()
    assert whole is not None
    assert "pointing" in whole.values


# --- archives


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil.json", "leaves its folder"),
        ("sub/../../evil.json", "leaves its folder"),
        ("/etc/evil.json", "absolute path"),
        ("C:/evil.json", "absolute path"),
        ("..\\evil.json", "leaves its folder"),
        ("\\etc\\evil.json", "absolute path"),
        ("C:\\evil.json", "absolute path"),
        ("sub\\predictions.jsonl", "in the archive twice"),
        ("sub/./evil.json", "leaves its folder"),
        ("sub/CON", "device name"),
        ("sub/com1.json", "device name"),
        ("sub/a\nb", "control characters"),
        ("sub/\u202egnp.exe", "control characters"),
        ("SUB/Submission.JSON", "in the archive twice"),
        ("other/submission.json", "more than one submission"),
    ],
)
def test_path_tricks_are_refused(server: Server, tmp_path: Path, name: str, message: str) -> None:
    refused(server, pack(tmp_path / "a.zip", {**members(), name: b"x"}), message)
    assert not list(tmp_path.rglob("evil*"))


def test_an_archive_of_windows_is_read(server: Server, tmp_path: Path) -> None:
    files = {name.replace("/", "\\"): content for name, content in members().items()}
    assert any("\\" in name for name in files)
    receipt = server.receive(pack(tmp_path / "a.zip", {"sub\\": b"", **files}))
    assert len(read_scores(receipt.path).submissions) == 1


def test_a_name_that_ends_early_is_refused(server: Server, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {**members(), "sub/evil.jsonX": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"evil.jsonX", b"evil\0jsonX"))
    refused(server, archive, "control characters")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(server: Server, tmp_path: Path, kind: int) -> None:
    def change(info: zipfile.ZipInfo) -> None:
        info.create_system = 3
        info.external_attr = (kind | 0o777) << 16

    files = {**members(), "sub/predictions.jsonl": b"/etc/passwd"}
    refused(server, pack(tmp_path / "a.zip", files, change), "a link or device")


def test_a_member_that_is_there_twice_is_refused(server: Server, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {**members(), "sub/predictionz.jsonl": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"predictionz", b"predictions"))
    refused(server, archive, "twice")


def test_an_encrypted_archive_is_refused(server: Server, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", members())
    data = bytearray(archive.read_bytes())
    at = data.find(b"PK\1\2")
    while at >= 0:  # the flag in the central directory
        data[at + 8] |= 1
        at = data.find(b"PK\1\2", at + 4)
    archive.write_bytes(data)
    refused(server, archive, "encrypted")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_unusual_compression_is_refused(server: Server, tmp_path: Path, method: int) -> None:
    def change(info: zipfile.ZipInfo) -> None:
        info.compress_type = method

    refused(server, pack(tmp_path / "a.zip", members(), change), "unusual compression")


@pytest.mark.parametrize("data", [b"", b"PK", b"hello" * 100, b"\x89PNG\r\n", b"\x1f\x8b\x08" + b"\0" * 50])
def test_what_is_no_zip_is_refused(server: Server, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    refused(server, tmp_path / "a.zip", "not a ZIP file")


def test_a_cut_or_commented_archive_is_refused(server: Server, tmp_path: Path) -> None:
    data = pack(tmp_path / "a.zip", members()).read_bytes()
    for broken in (data[:-10], data[:-22], data + b"tail"):
        (tmp_path / "a.zip").write_bytes(broken)
        refused(server, tmp_path / "a.zip", "cut off")


def test_damaged_content_is_refused(server: Server, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", members())
    data = bytearray(archive.read_bytes())
    data[60:70] = b"\xff" * 10
    archive.write_bytes(data)
    refused(server, archive, "damaged|cannot be read")


def test_zip64_and_a_large_directory_are_refused(server: Server, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", members())
    data = bytearray(archive.read_bytes())
    for count, size, message in (
        (0xFFFF, 100, "ZIP64"),
        (2, 0xFFFFFFFF, "ZIP64"),
        (2, 1 << 30, "more than 20000 members"),
    ):
        data[-14:-12] = data[-12:-10] = struct.pack("<H", count)
        data[-10:-6] = struct.pack("<I", size)
        archive.write_bytes(data)
        refused(server, archive, message)


def test_too_many_members_are_refused(server: Server, tmp_path: Path) -> None:
    files = {**members(), **{f"sub/{k}": b"" for k in range(60)}}
    refused(server, pack(tmp_path / "a.zip", files), "more than 50 members", limits=Limits(members=50))


def test_a_zip_bomb_is_stopped_while_it_unpacks(server: Server, tmp_path: Path) -> None:
    bomb = {**members(), "sub/predictions.jsonl": b"\n" * (40 << 20)}
    junk = np.random.default_rng(0).bytes(1 << 20)
    refused(server, pack(tmp_path / "b.zip", {**bomb, "sub/junk.bin": junk}), "ZIP bomb")
    archive = pack(tmp_path / "a.zip", bomb)
    assert archive.stat().st_size < 100_000
    refused(server, archive, "ZIP bomb")
    refused(server, archive, "predictions.jsonl is larger than 1 MB", limits=Limits(predictions_bytes=1 << 20))
    refused(server, archive, "unpacks to more than 1 MB", limits=Limits(total_bytes=1 << 20))
    refused(server, archive, "the archive is larger than", limits=Limits(archive_bytes=1000))


def test_sizes_are_counted_not_believed(server: Server, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", {**members(), "sub/predictions.jsonl": b"\n" * (30 << 20)})
    data = bytearray(archive.read_bytes())
    size = struct.pack("<I", 30 << 20)
    at = data.find(size)
    while at >= 0:  # every header now says ten bytes
        data[at : at + 4] = struct.pack("<I", 10)
        at = data.find(size, at + 4)
    archive.write_bytes(data)
    refused(server, archive, "ZIP bomb|damaged|larger")
    written = [p.stat().st_size for p in (server.root / "scratch").rglob("*") if p.is_file()]
    assert sum(written) < 1 << 20


def test_many_maps_together_are_a_bomb_too(server: Server, tmp_path: Path) -> None:
    maps = {f"sub/heatmaps/{k}.npy": bytes(2 << 20) for k in range(12)}
    refused(server, pack(tmp_path / "a.zip", {**members(), **maps}), "ZIP bomb")
    refused(server, pack(tmp_path / "a.zip", {**members(), "sub/heatmaps/x.npy": bytes(5 << 20)}), "larger than 4 MB")


def test_a_full_disk_is_told_and_nothing_is_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(tmp_path / "a.zip", members())
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")

    def full(path: Path, mode: str = "r") -> Any:
        return open("/dev/full", "wb") if "x" in mode else open(path, mode)

    monkeypatch.setattr(archive_module, "open", full, raising=False)
    refused(server, archive, "no room left")


# --- content


def test_a_line_without_end_is_refused(server: Server, tmp_path: Path) -> None:
    rows = jsonl(perfect(ROWS)) + b'{"id": "' + b"x" * (17 << 20)
    archive = pack(tmp_path / "a.zip", {**members(), "sub/predictions.jsonl": rows})
    refused(server, archive, "longer than", limits=Limits(ratio=10_000))


def test_more_lines_than_records_are_refused(server: Server, tmp_path: Path) -> None:
    rows = jsonl(perfect(ROWS)) + b"x\n" * 5000
    refused(server, pack(tmp_path / "a.zip", {**members(), "sub/predictions.jsonl": rows}), "lines for 40 records")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset_fingerprint": "sha256:" + "1" * 64}, "made for dataset"),
        ({"mode": "reason"}, "no records for mode"),
        ({"lvlm": "nobody"}, "no record of nobody|lines for 0 records|the ids are not"),
        ({"method": "<script>alert(1)</script>"}, "cannot be shown"),
        ({"method": "x" * 65}, "cannot be shown"),
        ({"method": "ch\u0430nce"}, "cannot be shown"),  # a Cyrillic letter
        ({"method": "chance: whole image"}, "cannot be shown"),
        ({"method": "Chance (whole image)"}, "taken for a chance row"),
        ({"method": "Whole-Image"}, "taken for a chance row"),
        ({"method": "rnedfocus"}, "a published method"),
        ({"method": "centre_prior"}, "taken for a chance row"),
        ({"method": 7}, "not a text"),
        ({"authors": "x" * 501}, "longer than 500 characters"),
        ({"authors": "a\u202eb"}, "control characters"),
        ({"settings": {"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}}}, "nested too deeply"),
        ({"settings": {"x" * 501: 1}}, "longer than 500 characters"),
        ({"seed": float("nan")}, "not finite"),
    ],
)
def test_bad_headers_are_refused(server: Server, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    refused(server, pack(tmp_path / "a.zip", members(**changes)), message)


def test_an_oversized_or_broken_header_is_refused(server: Server, tmp_path: Path) -> None:
    big = json.dumps({**header(ROWS), "pad": "x" * 70_000}).encode()
    refused(server, pack(tmp_path / "a.zip", {**members(), "sub/submission.json": big}), "larger than 64 KB")
    deep = b'{"settings": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    refused(server, pack(tmp_path / "a.zip", {**members(), "sub/submission.json": deep}), "nested too deeply|not JSON")
    refused(server, pack(tmp_path / "a.zip", {**members(), "sub/submission.json": b"[]"}), "not|object")


def test_faults_are_told_without_ids_of_the_dataset(server: Server, tmp_path: Path) -> None:
    rows = perfect(ROWS)
    rows[0]["boxes"] = [[5, 5, 1, 1]]
    files = {**members(), "sub/predictions.jsonl": jsonl(rows[:3])}
    error = refused(server, pack(tmp_path / "a.zip", files), "is not valid: 1 faults")
    assert "reversed" in str(error)
    assert not any(row["id"] in str(error) for row in ROWS[1:])


def test_a_missing_record_and_a_wrong_one_are_not_told_apart(server: Server, tmp_path: Path) -> None:
    rows = perfect(ROWS)
    wrong = {**rows[0], "id": "nothing", "boxes": [[0, 0, 9e6, 9e6]]}
    answers = {
        str(refused(server, pack(tmp_path / "a.zip", {**members(), "sub/predictions.jsonl": jsonl(sent)}), "the ids"))
        for sent in (rows[1:], [wrong, *rows[1:]], [*rows, wrong])
    }
    assert len(answers) == 1


def test_too_few_answers_are_not_scored(server: Server, tmp_path: Path) -> None:
    rows = [row if k < 35 else {**row, "boxes": []} for k, row in enumerate(perfect(ROWS))]
    files = {**members(), "sub/predictions.jsonl": jsonl(rows)}
    refused(server, pack(tmp_path / "a.zip", files), "answers 35 of 40 records")


def test_a_name_belongs_to_who_sent_it_first(server: Server, tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", members())
    server.receive(archive, account="A")
    other = pack(tmp_path / "b.zip", members(method="0RACLE", lvlm="tiny_b"))
    with pytest.raises(UploadError, match="belongs to who sent it first"):
        server.receive(other, account="B")
    rows = jsonl(perfect(ROWS, "tiny_b"))
    mine = pack(tmp_path / "c.zip", {**members(lvlm="tiny_b"), "sub/predictions.jsonl": rows})
    assert server.receive(mine, account="A").lvlm == "tiny_b"
    register = json.loads((server.results / ".register").read_text())
    assert "A" not in str(register["names"].values())
    assert stat.S_IMODE((server.results / ".register").stat().st_mode) == 0o600


def test_boxes_beyond_the_limit_are_not_scored(server: Server, tmp_path: Path) -> None:
    rows = perfect(ROWS)
    rows[0]["boxes"] = [[1, 1, 5, 5]] * 20_000
    refused(server, pack(tmp_path / "a.zip", {**members(), "sub/predictions.jsonl": jsonl(rows)}), "20000 boxes")


def test_html_in_the_header_is_harmless(server: Server, tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    server.receive(pack(tmp_path / "a.zip", members(authors=evil, licence=evil, settings={evil: evil}, created=evil)))
    html = leaderboard_page(*collect_results(server.results))
    assert "<img" not in html
    assert "&lt;img src=x" in html


def test_only_documented_keys_and_no_records_are_kept(server: Server, tmp_path: Path) -> None:
    receipt = server.receive(pack(tmp_path / "a.zip", members(secret="s3cret")))
    text = receipt.path.read_text()
    assert "s3cret" not in text
    assert not any(word in text for row in ROWS for word in (row["id"], row["image_id"], row["attribute"]))
    assert not any(masked_id(row["id"], server.key()) in text for row in ROWS)
    (one,) = read_scores(receipt.path).submissions
    assert [a.records for a in one.aggregates] == [40, 20, 20]
    assert not one.scores
    with pytest.raises(ScoringError, match="no scores of single records"):
        compare_scores([read_scores(receipt.path)])


def test_masked_ids_are_recognised(server: Server, tmp_path: Path) -> None:
    rows = [{**row, "id": masked_id(row["id"], server.key())} for row in perfect(ROWS)]
    receipt = server.receive(pack(tmp_path / "a.zip", {**members(), "sub/predictions.jsonl": jsonl(rows)}))
    assert receipt.iou[0] == pytest.approx(1.0)


# --- the results folder


def test_results_are_not_replaced(server: Server, tmp_path: Path) -> None:
    first = server.receive(pack(tmp_path / "a.zip", members()))
    before = first.path.read_bytes()
    with pytest.raises(UploadError, match="already"):
        server.receive(tmp_path / "a.zip")
    empty = [{**row, "boxes": [[1, 1, 2, 2]]} for row in perfect(ROWS)]
    with pytest.raises(UploadError, match="there is a result"):
        server.receive(pack(tmp_path / "b.zip", {**members(), "sub/predictions.jsonl": jsonl(empty)}))
    assert server.kept() == [first.path]
    assert first.path.read_bytes() == before


def test_uploads_at_once_neither_get_lost_nor_double(server: Server, tmp_path: Path) -> None:
    archives = [pack(tmp_path / f"{k}.zip", members(method=f"method{k // 2}")) for k in range(8)]
    outcomes: list[str] = []

    def one(archive: Path) -> None:
        try:
            outcomes.append(server.receive(archive).method)
        except UploadError as error:
            outcomes.append(error.message)

    threads = [threading.Thread(target=one, args=(a,)) for a in archives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(o for o in outcomes if o.startswith("method")) == [f"method{k}" for k in range(4)]
    assert sum("already" in o for o in outcomes) == 4
    files, rejected = collect_results(server.results)
    assert len(files) == 4
    assert not rejected


def test_unpack_writes_only_the_submission(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    unpacked = unpack(pack(tmp_path / "a.zip", {**members(), "sub/notes.txt": b"x"}), tmp_path / "into")
    assert sorted(p.name for p in (tmp_path / "into").iterdir()) == ["predictions.jsonl", "submission.json"]
    assert unpacked.lines == 41


def test_a_name_that_became_anothers_while_it_was_scored(server: Server, tmp_path: Path) -> None:
    """Both pass the first look; who is scored first keeps the name, for the other LVLM, too."""
    register = Register(server.results)
    register.require_owner("oracle", "key b")
    server.receive(pack(tmp_path / "a.zip", members()), account="key a")
    with pytest.raises(UploadError, match="belongs to who sent it first"):
        register.claim("oracle", "key b")
    register.claim("oracle", "key a")
