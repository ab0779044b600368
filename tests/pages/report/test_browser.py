"""The report in headless Chromium: what a reader sees, clicks and types."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medground_bench.pages import write_page
from medground_bench.pages.leaderboard import leaderboard_page, link_to
from medground_bench.pages.report import write_report
from medground_bench.scoring import score_submissions
from medground_bench.sources import open_source
from tests.browser import Browser, Page, find_chromium
from tests.pages.report.conftest import HOSTILE, Chain

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def report(chain: Chain) -> Path:
    """With the anatomy of the phantoms, so that everything is on the page."""
    known = [open_source("phantom", chain.root / "source")]
    return write_report(
        chain.root / "browser.html",
        chain.dataset.path,
        chain.submissions,
        scores=[score_submissions(chain.submissions, chain.dataset, resamples=200, sources=known)],
        verdicts=[chain.verdicts],
    )


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    opened = browser.open(report.as_uri())
    yield opened
    assert opened.errors() == []
    assert opened.requests() == [report.as_uri()], "the page asked for something"
    assert opened.js("window.evil") is None, "text of a submission ran as a script"


def choose(page: Page, selector: str, value: str) -> None:
    page.js(
        f"(() => {{ const s = document.querySelector({selector!r}); s.value = {value!r};"
        " s.dispatchEvent(new Event('change')); })()"
    )


def texts(page: Page, selector: str) -> list[str]:
    return page.js(f"[...document.querySelectorAll({selector!r})].map(e => e.textContent.trim())")


def rects(page: Page, side: str = "one", kind: str = "evidence") -> list[list[float]]:
    """Boxes drawn on one of the two radiographs."""
    return page.js(
        f"[...document.querySelectorAll('#v-{side}-stage rect.{kind}')]"
        ".map(r => ['x', 'y', 'width', 'height'].map(k => +r.getAttribute(k)))"
    )


def test_every_record_has_a_card_and_the_first_is_shown(page: Page, chain: Chain) -> None:
    rows = list(chain.dataset)
    assert page.js("document.querySelectorAll('.card').length") == len(rows)
    assert texts(page, ".card span") == [row.attribute for row in rows]
    assert rows[0].question in texts(page, "#v-question")[0]
    page.until("document.querySelector('#v-one-stage img').naturalWidth > 0")
    assert page.js("document.querySelector('#v-one-stage img').naturalWidth") == 256


def test_boxes_lie_where_the_evidence_is(page: Page, chain: Chain) -> None:
    row = chain.dataset[0]
    assert rects(page) == [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in row.boxes]
    # On the screen: the drawing covers the image, and the last box is at its place in it.
    place = page.js(
        "(() => { const i = document.querySelector('#v-one-stage img').getBoundingClientRect(),"
        " r = [...document.querySelectorAll('#v-one-stage rect')].pop().getBoundingClientRect();"
        " return [(r.x - i.x) / i.width, (r.y - i.y) / i.height, r.width / i.width, r.height / i.height]; })()"
    )
    x1, y1, x2, y2 = row.boxes[-1]
    w, h = row.width, row.height
    assert place == pytest.approx([x1 / w, y1 / h, (x2 - x1) / w, (y2 - y1) / h], abs=0.03)


def test_two_methods_are_side_by_side(page: Page, chain: Chain) -> None:
    row = chain.dataset[0]
    assert rects(page, "one", "said") == rects(page), "the oracle is the best method"
    choose(page, "#v-two", HOSTILE)
    assert page.js("document.getElementById('t-two').value") == HOSTILE, "the choice is the same everywhere"
    assert rects(page, "two", "said") == []
    assert len(rects(page, "two")) == len(row.boxes)
    assert "IoU 0.000, no boxes" in texts(page, "#v-two-said")[0]
    page.js("document.getElementById('v-boxes').click()")
    assert rects(page, "one", "said") == []
    wins = f"Of {len(chain.dataset)} records oracle is better on {len(chain.dataset)}"
    assert texts(page, "#t-words")[0].startswith(wins)


def test_a_sentence_says_where_it_lies(page: Page) -> None:
    assert "% of the evidence lies" in texts(page, "#v-lies")[0]
    assert "% of the boxes' area lies" in texts(page, "#v-one-lies")[0], "the oracle has no map"
    choose(page, "#v-one", HOSTILE)
    assert "% of the map lies" in texts(page, "#v-one-lies")[0]


def test_shares_by_finding(page: Page, chain: Chain) -> None:
    rows = "[...document.querySelectorAll('#places-table tbody tr')].filter(r => r.offsetParent)"
    shown = f"{rows}.map(r => r.cells[1].textContent)"
    assert set(page.js(shown)) == {"all findings"}
    finding = chain.dataset[0].attribute
    choose(page, "[data-filter='places-table']", finding)
    assert set(page.js(shown)) == {finding}
    assert page.js("[...document.querySelectorAll('.mean img')].every(i => i.naturalWidth === 48)")


def test_arrow_keys_step_through_the_records(page: Page, chain: Chain) -> None:
    titles = [row.question for row in chain.dataset]
    page.key("ArrowRight")  # nothing has to be focused
    assert texts(page, "#v-question")[0].startswith(titles[1])
    page.key("ArrowLeft")
    page.js("document.getElementById('cards').focus()")
    for key, shown in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowLeft", 1), ("End", len(titles) - 1), ("Home", 0)):
        page.key(key)
        assert texts(page, "#v-question")[0].startswith(titles[shown])
        assert page.js("[...document.querySelectorAll('.card')].findIndex(c => c.ariaSelected === 'true')") == shown
    assert page.js("document.getElementById('cards').getAttribute('aria-activedescendant')") == "card-0"
    page.key("ArrowLeft")  # nothing before the first
    assert texts(page, "#v-question")[0].startswith(titles[0])


def test_a_link_leads_to_a_record(browser: Browser, report: Path, page: Page, chain: Chain) -> None:
    page.key("ArrowRight")
    address = page.js("location.href")
    assert address.startswith(report.as_uri() + "#record=")
    again = browser.open(address)
    assert texts(again, "#v-question")[0].startswith(chain.dataset[1].question)
    assert again.errors() == []


@pytest.mark.parametrize("method", ["oracle", HOSTILE], ids=["oracle", "hostile"])
def test_a_row_of_the_leaderboard_leads_to_a_record(browser: Browser, report: Path, chain: Chain, method: str) -> None:
    board = chain.root / "boards" / "linked.html"
    write_page(board, leaderboard_page([chain.scores], report=link_to(report, board)))
    page = browser.open(board.as_uri())
    rows = "[...document.querySelectorAll('#board tbody tr')]"
    address = page.js(
        f"{rows}.find((r) => r.cells[2].dataset.csv === {json.dumps(method)}).querySelector('a.record').href"
    )
    assert address.startswith(report.as_uri() + "#method=")
    found = browser.open(address)
    assert found.js("document.querySelector('.pick-one').selectedOptions[0].textContent") == method
    assert texts(found, "#v-question")[0]
    assert found.js("[...document.querySelectorAll('#cards [aria-selected=true]')].length") == 1
    assert found.errors() == []


def focused(page: Page) -> str:
    return page.js("document.activeElement.id || document.activeElement.textContent.trim()")


def tab_to(page: Page, name: str, most: int = 80) -> None:
    for _ in range(most):
        if focused(page) == name:
            return
        page.key("Tab")
    raise AssertionError(f"{name} is not reached by Tab; the focus is on {focused(page)}")


def test_a_walk_with_the_keyboard(page: Page, chain: Chain) -> None:
    page.key("Tab")
    assert focused(page) == "Skip to content"
    page.key("Enter")
    assert page.js("location.hash") == "#main"
    tab_to(page, "F1")
    page.key("Enter")
    assert page.js("document.querySelector('#summary-table th[aria-sort]').textContent") == "F1"
    link = "#classes-table a[data-class='no boxes']"
    tab_to(page, texts(page, link)[0])
    while not page.js(f"document.activeElement === document.querySelector({link!r})"):
        page.key("Tab")
    page.key("Enter")  # the examples of that class, and the list has the focus
    assert focused(page) == "cards"
    assert texts(page, "#g-count") == [f"{len(chain.dataset)} of {len(chain.dataset)} records"]
    assert page.js("document.getElementById('v-one').value") == HOSTILE
    page.key("ArrowRight")
    assert texts(page, "#v-question")[0].startswith(chain.dataset[1].question)
    tab_to(page, "v-next")
    page.key("Enter")
    assert texts(page, "#v-question")[0].startswith(chain.dataset[2].question)


def test_a_count_shows_its_examples(page: Page, chain: Chain) -> None:
    page.js("document.querySelector('#classes-table a[data-method=\"oracle\"][data-class=found]').click()")
    assert texts(page, "#v-one-said")[0].startswith("IoU 1.000, found")
    choose(page, "#g-class", "no boxes")  # of the oracle there is none
    assert not page.js("document.getElementById('g-none').hidden")
    assert page.js("document.getElementById('viewer').hidden")


def test_filter_and_sort(page: Page, chain: Chain) -> None:
    rows = list(chain.dataset)
    attribute = rows[-1].attribute
    choose(page, "#g-attribute", attribute)
    assert set(texts(page, ".card span")) == {attribute}
    count = sum(row.attribute == attribute for row in rows)
    assert texts(page, "#g-count") == [f"{count} of {len(rows)} records"]
    choose(page, "#g-attribute", "")
    choose(page, "#g-of", "attention")
    iou = chain.scores.submissions[0].scores["iou"].tolist()
    for value, best_first in (("best", True), ("worst", False)):
        page.js("document.querySelectorAll('.card')[2].click()")
        choose(page, "#g-sort", value)
        assert page.js("document.querySelector('.card').ariaSelected") == "true", "the first of the new order is open"
        shown = []
        for k in range(len(rows)):
            page.js(f"document.querySelectorAll('.card')[{k}].click()")
            cells = page.js(
                "[...document.querySelectorAll('#v-scores tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
            )
            shown.append(float(next(c for c in cells if c[0] == "attention")[1]))
        assert shown == pytest.approx(sorted(iou, reverse=best_first), abs=6e-4)


def test_tables_sort_by_click_and_by_key(page: Page) -> None:
    column = "[...document.querySelectorAll('#summary-table tbody tr')].map(r => +r.cells[1].dataset.v)"
    head = "document.querySelectorAll('#summary-table th')[1]"
    page.js(f"{head}.querySelector('button').click()")
    values: list[float] = page.js(column)
    assert values == sorted(values, reverse=True)
    page.js(f"{head}.querySelector('button').focus()")
    page.key("Enter")
    assert page.js(column) == sorted(values)
    assert page.js(f"{head}.getAttribute('aria-sort')") == "ascending"


def alpha(page: Page) -> list[int]:
    """Opacity of the heat map's pixels at the map's hot rectangle and away from it."""
    return page.js(
        "(() => { const c = document.querySelector('#v-one-stage canvas'), g = c.getContext('2d'),"
        " at = (x, y) => g.getImageData(x, y, 1, 1).data[3]; return [at(45, 115), at(150, 30)]; })()"
    )


def test_the_heat_map_lies_on_the_image_and_fades(page: Page) -> None:
    assert alpha(page) == [0, 0], "the oracle has none"
    choose(page, "#v-one", HOSTILE)
    hot, cold = alpha(page)
    # The frame's content is 224 x 175 of a 256 x 200 image: the map's rectangle (20 to 60, 100 to 150) is at
    # (23 to 69, 87 to 143) of it.
    assert hot > 150
    assert cold < 40
    page.js(
        "(() => { const s = document.getElementById('v-opacity'); s.value = 20;"
        " s.dispatchEvent(new Event('input')); })()"
    )
    assert alpha(page)[0] < hot / 2
    page.js("document.getElementById('v-heat').click(); document.getElementById('v-lines').click()")
    # The contours alone: a line around the rectangle, nothing inside it.
    line = "[...c.getContext('2d').getImageData(0, 115, 60, 1).data].filter((v, k) => k % 4 === 3 && v > 128).length"
    assert (
        2 <= page.js(f"(() => {{ const c = document.querySelector('#v-one-stage canvas'); return {line}; }})()") <= 16
    )
    assert alpha(page)[0] == 0


def test_tokens_and_concepts(page: Page) -> None:
    assert texts(page, "#v-response span.token") == ["Yes", HOSTILE]
    shades = page.js("[...document.querySelectorAll('#v-response span.token')].map(s => s.style.background)")
    assert "0.45" in shades[1] or "45%" in shades[1]
    assert shades[0] != shades[1]
    assert texts(page, "#v-one-concepts .concept span:first-child") == ["left lung", "mediastinum", "right lung"]
    assert texts(page, "#v-one-concepts .concept .n") == ["57 %", "29 %", "14 %"]
    assert page.js("document.querySelector('.concept.best span').textContent") == "left lung"


def test_the_page_with_a_folder_beside_it(browser: Browser, chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medground_bench.pages.report.page.INSIDE", 2)
    path = write_report(chain.root / "many.html", chain.dataset.path, chain.submissions, scores=[chain.scores])
    opened = browser.open(path.as_uri())
    opened.until("document.querySelector('#v-one-stage img').naturalWidth > 0")
    assert texts(opened, "#v-question")[0].startswith(chain.dataset[0].question)
    opened.key("ArrowRight")
    opened.until(f"document.getElementById('v-question').textContent.startsWith({chain.dataset[1].question!r})")
    assert opened.errors() == []
    inside = (chain.root / "many_files").as_uri()
    assert all(url == path.as_uri() or url.startswith(inside) for url in opened.requests())
    assert opened.js("window.evil") is None


def test_the_table_as_a_file(page: Page, chain: Chain) -> None:
    page.js("URL.createObjectURL = (blob) => { window.saved = blob; return '#'; }; 0")
    page.js("document.querySelector('#summary-table td').textContent = '=1+1,2'")
    page.js("document.querySelector('[data-csv=summary-table]').click()")
    rows = list(csv.DictReader(io.StringIO(page.js("window.saved.text()"))))
    assert rows[0]["method"] == "'=1+1,2", "a spreadsheet must not compute a name"
    hostile = next(row for row in rows if row["method"] == HOSTILE)
    assert (hostile["IoU"], hostile["records"]) == ("0.0", str(len(chain.dataset)))
    assert "chance to ceiling, 0 to 1" not in rows[0]


def test_the_leaderboard_narrows_and_unfolds(browser: Browser, chain: Chain) -> None:
    board = write_page(chain.root / "narrow.html", leaderboard_page([chain.scores]))
    opened = browser.open(board.as_uri())
    visible = "[...document.querySelectorAll('#board tbody tr')].filter(r => !r.hidden).map(r => r.cells[2].innerText)"
    everything = opened.js(visible)
    opened.js(
        "(() => { const s = document.querySelector('select[data-key=passes]'); s.value = '1';"
        " s.dispatchEvent(new Event('change')); })()"
    )
    few = opened.js(visible)
    assert set(everything) - set(few) == {"oracle", HOSTILE} - set(few), "what has no recorded cost is left out"
    assert "chance: random box" in few, "chance stays"
    opened.js("document.querySelector('#board a').click()")
    opened.until(
        "document.querySelector('details[id^=result]:target').open && document.getElementById('provenance').open"
    )
    assert opened.errors() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, report: Path, chain: Chain, dark: bool) -> None:
    axe = pytest.importorskip("axe_core_python.base", reason="axe-core-python of the dev extra is not installed")
    board = write_page(chain.root / "axe.html", leaderboard_page([chain.scores]))
    for path in (report, board):
        opened = browser.open(path.as_uri(), dark=dark)
        opened.js("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        opened.js(axe.AXE_SCRIPT + "; 0")
        found = opened.js(
            "axe.run({ resultTypes: ['violations'] }).then((r) => r.violations.map((v) =>"
            " [v.impact, v.id, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160))]))"
        )
        assert [v for v in found if v[0] in ("serious", "critical")] == [], path.name
        assert opened.js("axe.run({ runOnly: ['color-contrast'] }).then((r) => r.passes[0].nodes.length)") > 50


def test_hostile_names_are_shown_as_they_are(page: Page) -> None:
    assert HOSTILE in texts(page, "#v-two option")
    assert any(HOSTILE in text for text in texts(page, "#v-scores td"))
    assert HOSTILE in texts(page, "#summary-table td")


def test_dark_and_light(browser: Browser, report: Path, page: Page) -> None:
    def background(p: Page) -> Any:
        return p.js("getComputedStyle(document.body).backgroundColor")

    light, dark = background(page), background(browser.open(report.as_uri(), dark=True))
    assert light != dark
    page.js("document.getElementById('theme').click()")
    assert background(page) == dark
    page.js("document.getElementById('theme').click()")
    assert background(page) == light


@pytest.mark.parametrize("width", [1400, 900, 420])
def test_the_page_is_never_wider_than_the_screen(browser: Browser, report: Path, chain: Chain, width: int) -> None:
    board = write_page(chain.root / "board.html", leaderboard_page([chain.scores]))
    for path in (report, board):
        opened = browser.open(path.as_uri(), width=width)
        assert opened.js("document.documentElement.scrollWidth") <= width, path.name
        assert opened.errors() == []
