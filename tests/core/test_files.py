from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medground_bench.core.errors import MedGroundError
from medground_bench.core.files import Journal, atomic_folder, atomic_write, read_journals, within


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
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    deadline = time.monotonic() + 60
    last = -1
    while last < 20 and time.monotonic() < deadline:
        last = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    reported = int(rest[-1]) if rest else last
    entries = [e["i"] for e in read_journals(tmp_path, "work")]
    assert entries[: reported + 1] == list(range(reported + 1))
    assert json.dumps(entries)  # every line that is read is whole
