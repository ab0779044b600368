from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medground_bench.core import files
from medground_bench.core.errors import MedGroundError
from medground_bench.core.files import (
    Journal,
    atomic_folder,
    atomic_write,
    cache_folder,
    file_lock,
    folder_fingerprint,
    read_journals,
    sha256_of,
    sweep,
    within,
)
from tests.faults import every_kill, hidden, run_killed_at


def test_atomic_write_replaces_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.txt"
    with atomic_write(path) as file:
        file.write("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_write(path) as file:  # noqa: PT012
        file.write("half of the new")
        raise RuntimeError("stop")
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["a.txt"]
    with atomic_write(path, "wb") as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_atomic_write_follows_the_umask(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a"):
        pass
    (tmp_path / "b").write_text("")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    with atomic_write(tmp_path / "c", permissions=0o600):
        pass
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o600


def test_atomic_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_folder(out) as staging:
        (staging / "a").write_text("1")
    with pytest.raises(KeyboardInterrupt), atomic_folder(out) as staging:  # noqa: PT012
        (staging / "a").write_text("2")
        raise KeyboardInterrupt
    assert (out / "a").read_text() == "1"
    with atomic_folder(out) as staging:
        (staging / "b").write_text("3")
    assert os.listdir(out) == ["b"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), atomic_write(path) as file:
        file.write("new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("relative", ["../x", "a/../../x", "/etc/passwd", "link/x"])
def test_within_refuses_what_leaves_the_root(tmp_path: Path, relative: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(MedGroundError, match="leaves its folder"):
        within(root, relative)


def test_within_accepts_what_stays(tmp_path: Path) -> None:
    assert within(tmp_path, "a/../b.png") == tmp_path.resolve() / "b.png"


def test_journal_parts_are_read_in_order(tmp_path: Path) -> None:
    for rank in (1, 0):
        with Journal(tmp_path, "work", rank) as journal:
            journal.append({"rank": rank, "text": "é\n"})
    assert [e["rank"] for e in read_journals(tmp_path, "work")] == [0, 1]
    assert list(read_journals(tmp_path, "other")) == []


def test_journal_refuses_nan(tmp_path: Path) -> None:
    with Journal(tmp_path, "work") as journal, pytest.raises(ValueError, match="JSON compliant"):
        journal.append({"value": float("nan")})


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "work-00000.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    assert list(read_journals(tmp_path, "work")) == [{"a": 1}]
    with Journal(tmp_path, "work") as journal:
        journal.append({"a": 3})
    assert [e["a"] for e in read_journals(tmp_path, "work")] == [1, 3]
    path.write_text("{" + "x" * 200_000)  # torn and longer than one block
    Journal(tmp_path, "work").close()
    assert path.read_text() == ""


def test_a_damaged_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "work-00000.jsonl").write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    with pytest.raises(MedGroundError, match="not JSON") as caught:
        list(read_journals(tmp_path, "work"))
    assert (caught.value.where or "").endswith("work-00000.jsonl:2")


def test_a_killed_process_loses_no_finished_entry(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom medground_bench.core.files import Journal\n"
        "journal = Journal(sys.argv[1], 'work')\ni = 0\n"
        "while True:\n    journal.append({'i': i, 'pad': 'x' * 5000})\n    print(i, flush=True)\n    i += 1\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + 60
        last = -1
        while last < 20 and time.monotonic() < deadline:
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
    reported = int(rest[-1]) if rest else last
    entries = [e["i"] for e in read_journals(tmp_path, "work")]
    assert entries[: reported + 1] == list(range(reported + 1))
    assert json.dumps(entries)  # every line that is read is whole


# --- links, devices, leftovers


def test_a_link_is_written_to_its_target(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("file", "folder"):
        (tmp_path / f"link to {name}").symlink_to(tmp_path / "elsewhere" / name)
    for text in ("new", "newer"):  # the first time the link dangles
        with atomic_write(tmp_path / "link to file") as file:
            file.write(text)
        with atomic_folder(tmp_path / "link to folder") as staging:
            (staging / text).touch()
        assert (tmp_path / "elsewhere" / "file").read_text() == text
        assert os.listdir(tmp_path / "elsewhere" / "folder") == [text]
    assert all((tmp_path / f"link to {name}").is_symlink() for name in ("file", "folder"))
    assert hidden(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_device_is_written_to_and_stays_one() -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"), atomic_write("/dev/full") as file:
        file.write("x")
    assert Path("/dev/full").is_char_device()
    with atomic_write("/dev/null", "wb") as file:
        file.write(b"x")
    assert Path("/dev/null").is_char_device()


def test_a_file_where_a_folder_is_meant_and_the_reverse(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotADirectoryError, match=r"file'$"), atomic_folder(tmp_path / "file"):
        pass
    with pytest.raises(IsADirectoryError, match=r"folder'$"), atomic_write(tmp_path / "folder"):
        pass
    with pytest.raises(OSError, match="file"), atomic_write(tmp_path / "file" / "x"):
        pass
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_dead_processes_are_swept_and_those_of_others_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host, dead = files._host(), dead_pid()
    swept = [f".a.{host}-{dead}.x1_.part", f".b\n.{host}-{dead}.x2.part", f".out.{host}-{dead}.x3.old"]
    kept = [f".a.{host}-{os.getpid()}.x.part", f".a.00000000-{dead}.x.part", ".mine.part", f"a.{host}-{dead}.x.part"]
    for name in [*swept[1:], kept[0]]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").touch()
    (tmp_path / "content").touch()  # so that what the .old folder holds is not missing
    for name in [swept[0], *kept[1:]]:
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "content"])
    assert caplog.text == ""
    sweep(tmp_path / "nowhere")


def test_a_folder_that_a_killed_process_had_moved_aside_is_put_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    aside = tmp_path / f".out.{files._host()}-{dead_pid()}.x.old"
    (aside / "out").mkdir(parents=True)
    (aside / "out" / "precious").touch()
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["precious"]
    assert "restored" in caplog.text


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_survives_a_kill_at_every_renaming(
    tmp_path: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_renameat2", lambda: None)
    elif files._renameat2() is None:
        pytest.skip("this system cannot exchange two folders")
    out = tmp_path / "out"

    def write(name: str) -> None:
        with atomic_folder(out) as staging:
            (staging / name).touch()

    write("old")
    renamings = run_killed_at(0, "before", lambda: write("old"))
    assert renamings == (1 if exchange else 2)
    states = []
    for number, when in every_kill(lambda: write("new"), int(renamings)):
        there = os.listdir(out) if out.exists() else None
        states.append((number, when, there))
        files.sweep(tmp_path)
        assert os.listdir(tmp_path) == ["out"]  # nothing hidden stays
        assert os.listdir(out) in (["old"], ["new"])
        write("old")
    if exchange:
        assert states == [(1, "before", ["old"]), (1, "after", ["new"])]
    else:  # the gap that the next start closes
        assert states == [(1, "before", ["old"]), (1, "after", None), (2, "before", None), (2, "after", ["new"])]


def test_a_file_survives_a_kill_at_its_renaming(tmp_path: Path) -> None:
    def write(text: str) -> None:
        with atomic_write(tmp_path / "a") as file:
            file.write(text)

    write("old")
    for _, when in every_kill(lambda: write("new"), 1):
        assert (tmp_path / "a").read_text() == ("old" if when == "before" else "new")
        assert run_killed_at(0, "before", lambda: write("old")) == 1
        assert os.listdir(tmp_path) == ["a"]


# --- locks and journals


def test_a_journal_is_not_trimmed_under_a_live_writer(tmp_path: Path) -> None:
    with Journal(tmp_path, "work") as journal:
        journal.append({"a": 1})
        with open(journal.path, "ab") as half:  # what a writer is in the middle of
            half.write(b'{"a": 2')
        code = f"from medground_bench.core.files import Journal; Journal({str(tmp_path)!r}, 'work')"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "another process is writing here" in other.stderr
        assert journal.path.read_bytes().endswith(b'{"a": 2')
        Journal(tmp_path, "work", rank=1).close()  # another process of the same launch
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(read_journals(tmp_path, "work")) == [{"a": 1}]


def test_a_full_disk_leaves_no_torn_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def full(fd: int, data: bytes) -> int:
        if len(data) > 10:
            return write(fd, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(tmp_path, "work") as journal:
        journal.append({"a": 1})
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match=r"No space left on device: .*work-00000.jsonl'"):
            journal.append({"a": 2, "more": "than ten bytes"})
        monkeypatch.undo()
        journal.append({"a": 3})
    assert list(read_journals(tmp_path, "work")) == [{"a": 1}, {"a": 3}]


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom medground_bench.core.files import file_lock\n"
        f"with file_lock({str(tmp_path / 'x.lock')!r}):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(MedGroundError, match="another process"), file_lock(tmp_path / "x.lock"):
            pass
        threading.Timer(0.3, holder.kill).start()  # the system drops the lock of a killed process
        with file_lock(tmp_path / "x.lock", wait=True):
            assert holder.wait() != 0


# --- paths and checksums


def test_one_variable_moves_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDGROUND_CACHE", str(tmp_path / "own"))
    assert cache_folder("records") == tmp_path / "own" / "records"
    monkeypatch.delenv("MEDGROUND_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert cache_folder("records") == tmp_path / "xdg" / "medground-bench" / "records"


def test_checksums(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"abc")
    assert sha256_of(tmp_path / "config.json") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    before = folder_fingerprint(tmp_path)
    (tmp_path / "notes.txt").write_text("no part of a model")
    assert folder_fingerprint(tmp_path) == before
    (tmp_path / "config.json").write_bytes(b"abd")
    assert folder_fingerprint(tmp_path) != before
