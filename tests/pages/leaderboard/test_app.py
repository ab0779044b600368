"""The Space: launched, looked at in a browser, fed by a client."""

from __future__ import annotations

import contextlib
import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medground_bench.pages.leaderboard import app as module
from medground_bench.pages.leaderboard.app import board, build_app, main, serve
from medground_bench.scoring import read_scores
from tests.browser import Browser, Page, find_chromium
from tests.pages.leaderboard.test_uploads import ROWS, members, pack
from tests.scoring.folders import write_folder

pytest.importorskip("gradio", reason="Gradio is not installed: pip install 'medground-bench[app]'")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of a running app."""
    app = build_app(tmp_path / "results", write_folder(tmp_path / "dataset", ROWS), resamples=100)
    yield serve(app, "127.0.0.1", None, block=False)
    app.close()


def test_the_board_is_framed_and_escaped(tmp_path: Path) -> None:
    frame = board(tmp_path / "none")
    assert 'sandbox="allow-scripts allow-downloads"' in frame
    assert frame.count("<iframe") == 1
    assert "<script" not in frame.split("srcdoc=")[1]
    assert "No results yet" in frame


def test_messages_are_escaped() -> None:
    assert "<img" not in module._message("<img src=x onerror=alert(1)>", good=False)


def test_the_space_reads_its_variables(tmp_path: Path) -> None:
    path = Path(module.__file__).parent / "space" / "app.py"
    space: dict[str, Any] = runpy.run_path(str(path))
    found = space["arguments"]({"MEDGROUND_DATASET": str(tmp_path), "MEDGROUND_CONFIG": "direct", "PORT": "99"})
    dataset = ["--results", "/data/results", "--dataset", str(tmp_path)]
    assert found == [*dataset, "--host", "0.0.0.0", "--port", "99", "--config", "direct"]


def test_a_missing_dataset_is_a_user_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--results", str(tmp_path / "results"), "--dataset", str(tmp_path / "none")]) == 1
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.heavy
def test_uploads_through_a_client(served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradio_client import Client, handle_file

    client = Client(served, verbose=False)
    good = pack(tmp_path / "good.zip", members())
    answer, page = client.predict(handle_file(good), "a key", api_name="/submit")
    assert "mean IoU 1.000" in answer
    assert "oracle" in page
    bad = pack(tmp_path / "bad.zip", {**members(), "../evil": b"x"})
    answer, page = client.predict(handle_file(bad), "a key", api_name="/submit")
    assert "refused" in answer
    assert "leaves its folder" in answer
    named = pack(tmp_path / "named.zip", members(method="<img src=x onerror=alert(1)>"))
    answer, _ = client.predict(handle_file(named), "a key", api_name="/submit")
    assert "cannot be shown" in answer
    assert "<img" not in answer
    assert len(list((tmp_path / "results").glob("*.json"))) == 1

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("/secret/path")

    monkeypatch.setattr(module, "receive_apart", broken)
    answer, _ = client.predict(handle_file(good), "a key", api_name="/submit")
    assert "could not score this" in answer
    assert "secret" not in answer


@pytest.mark.heavy
def test_eight_at_once_with_one_name(tmp_path: Path) -> None:
    """Eight people, of whom each calls the app's own handler at the same moment: one result, seven plain refusals."""
    app = build_app(tmp_path / "results", write_folder(tmp_path / "dataset", ROWS), resamples=100)
    (take_in,) = (call.fn for call in app.fns.values() if call.api_name == "submit")
    archives = [pack(tmp_path / f"{k}.zip", members(authors=f"author {k}", seed=k)) for k in range(8)]
    start, answers = threading.Barrier(8), [""] * 8

    def send(k: int) -> None:
        start.wait()
        answers[k] = take_in(str(archives[k]), f"key {k}", None)[0]

    threads = [threading.Thread(target=send, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    refused = [answer for answer in answers if "refused: " in answer]
    assert sum("It is on the leaderboard." in answer for answer in answers) == 1
    assert len(refused) == 7
    assert all("already" in answer or "belongs to who sent it first" in answer for answer in refused)
    assert not any(str(tmp_path) in answer for answer in answers)
    (path,) = (tmp_path / "results").glob("*.json")
    (kept,) = read_scores(path).submissions
    assert answers[int(kept.provenance["seed"])].count("mean IoU 1.000") == 1  # the one that was told so
    assert board(tmp_path / "results").count("data-lvlm") >= 1


def upload(page: Page, path: Path) -> None:
    """Choose a file until the page shows it: Gradio draws its inputs before it listens to them."""
    shown = f"document.body.textContent.includes({path.name!r})"
    for _ in range(8):
        page.until(f"document.querySelector('input[type=file]') || {shown}")
        if not page.js(shown):
            page.js("document.querySelector('input[type=file]').value = ''")  # the same file again would change nothing
            page.choose_file("input[type=file]", path)
        with contextlib.suppress(TimeoutError):
            page.until(shown, 15)
            return
    pytest.fail(f"{path.name} never shows; asked for {page.requests()[-5:]}; errors {page.errors()}")


@pytest.mark.heavy
def test_the_app_in_a_browser(served: str, tmp_path: Path) -> None:
    if find_chromium() is None:
        pytest.skip("no Chromium on this machine")
    good = pack(tmp_path / "good.zip", members(authors="<b id=evil>A</b>"))
    with Browser() as browser:
        page = browser.open(served)
        page.until("document.querySelector('iframe.mgb-board')")
        tab = "[...document.querySelectorAll('button[role=tab]')].find(b => b.textContent.includes('Submit'))"
        page.until(f"{tab} && ({tab}.click(), document.querySelector('input[type=file]'))")
        upload(page, good)
        page.until("[...document.querySelectorAll('button')].some(b => b.textContent.includes('Validate'))")
        page.js("[...document.querySelectorAll('button')].find(b => b.textContent.includes('Validate')).click()")
        page.until("document.querySelector('.mgb-good')")
        assert "mean IoU 1.000" in page.js("document.querySelector('.mgb-good').textContent")
        assert not [url for url in page.requests() if not url.startswith(served)]
        assert not page.errors()
