"""The report in headless Chromium: what a reader sees, clicks and types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medground_bench.pages import write_page
from medground_bench.pages.leaderboard import leaderboard_page
from medground_bench.pages.report import write_report
from tests.browser import Browser, Page, find_chromium
from tests.pages.report.conftest import HOSTILE, Chain

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def report(chain: Chain) -> Path:
    return write_report(
        chain.root / "browser.html",
        chain.dataset.path,
        chain.submissions,
        scores=[chain.scores],
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


def rects(page: Page) -> list[list[float]]:
    return page.js(
        "[...document.querySelectorAll('#v-boxes rect')]"
        ".map(r => ['x', 'y', 'width', 'height'].map(k => +r.getAttribute(k)))"
    )


def test_every_record_has_a_card_and_the_first_is_shown(page: Page, chain: Chain) -> None:
    rows = list(chain.dataset)
    assert page.js("document.querySelectorAll('.card').length") == len(rows)
    assert texts(page, ".card span") == [row.attribute for row in rows]
    assert rows[0].question in texts(page, "#v-question")[0]
    page.until("document.getElementById('v-img').naturalWidth > 0")
    assert page.js("document.getElementById('v-img').naturalWidth") == 256


def test_boxes_lie_where_the_evidence_is(page: Page, chain: Chain) -> None:
    row = chain.dataset[0]
    evidence = [[x1, y1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in row.boxes]
    drawn = rects(page)
    assert all(box in drawn for box in evidence)
    # On the screen: the drawing covers the image, and the first box is at its place in it.
    place = page.js(
        "(() => { const i = document.getElementById('v-img').getBoundingClientRect(),"
        " r = [...document.querySelectorAll('#v-boxes rect')].pop().getBoundingClientRect();"
        " return [(r.x - i.x) / i.width, (r.y - i.y) / i.height, r.width / i.width, r.height / i.height]; })()"
    )
    x1, y1, x2, y2 = row.boxes[-1]
    w, h = row.width, row.height
    assert place == pytest.approx([x1 / w, y1 / h, (x2 - x1) / w, (y2 - y1) / h], abs=0.02)


def test_methods_can_be_switched_off(page: Page, chain: Chain) -> None:
    row = chain.dataset[0]
    page.js("document.querySelectorAll('#v-methods input').forEach(i => { if (i.checked) i.click(); })")
    assert len(rects(page)) == len(row.boxes)
    page.js("document.querySelector('#v-methods input').click()")
    assert len(rects(page)) == 2 * len(row.boxes)  # the oracle comes first


def test_keys_step_through_the_records(page: Page, chain: Chain) -> None:
    titles = [row.question for row in chain.dataset]
    page.js("document.getElementById('cards').focus()")
    for key, shown in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowLeft", 1), ("End", len(titles) - 1), ("Home", 0)):
        page.key(key)
        assert texts(page, "#v-question")[0].startswith(titles[shown])
        assert page.js("[...document.querySelectorAll('.card')].findIndex(c => c.ariaSelected === 'true')") == shown
    assert page.js("document.getElementById('cards').getAttribute('aria-activedescendant')") == "card-0"
    page.key("ArrowLeft")  # nothing before the first
    assert texts(page, "#v-question")[0].startswith(titles[0])


def test_filter_and_sort(page: Page, chain: Chain) -> None:
    rows = list(chain.dataset)
    attribute = rows[-1].attribute
    choose(page, "#g-attribute", attribute)
    assert set(texts(page, ".card span")) == {attribute}
    count = sum(row.attribute == attribute for row in rows)
    assert texts(page, "#g-count") == [f"{count} of {len(rows)} records"]
    choose(page, "#g-attribute", "")
    iou = dict(zip((r.id for r in rows), chain.scores.submissions[0].scores["iou"].tolist(), strict=True))
    for value, best_first in (("attention", True), ("-attention", False)):
        choose(page, "#g-sort", value)
        shown = []
        for k in range(len(rows)):
            page.js(f"document.querySelectorAll('.card')[{k}].click()")
            cells = page.js(
                "[...document.querySelectorAll('#v-scores tbody tr')].map(r => [...r.cells].map(c => c.textContent))"
            )
            shown.append(float(next(c for c in cells if c[0] == "attention")[1]))
        assert shown == pytest.approx(sorted(iou.values(), reverse=best_first), abs=6e-4)


def test_tables_sort_by_click_and_by_key(page: Page) -> None:
    column = "[...document.querySelectorAll('#summary-table tbody tr')].map(r => +r.cells[5].dataset.v)"
    head = "document.querySelectorAll('#summary-table th')[5]"
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
        "(() => { const c = document.getElementById('v-heat'), g = c.getContext('2d'),"
        " at = (x, y) => g.getImageData(x, y, 1, 1).data[3]; return [at(45, 115), at(150, 30)]; })()"
    )


def test_the_heat_map_lies_on_the_image_and_fades(page: Page) -> None:
    assert alpha(page) == [0, 0]
    choose(page, "#v-heatmap", HOSTILE)
    hot, cold = alpha(page)
    # The frame's content is 224 x 175 of a 256 x 200 image: the map's rectangle (20 to 60, 100 to 150) is at
    # (23 to 69, 87 to 143) of it.
    assert hot > 150
    assert cold < 10
    page.js(
        "(() => { const s = document.getElementById('v-opacity'); s.value = 20;"
        " s.dispatchEvent(new Event('input')); })()"
    )
    assert alpha(page)[0] < hot / 2


def test_tokens_and_concepts(page: Page) -> None:
    assert texts(page, "#v-response span")[:2] == ["Yes", HOSTILE]
    shades = page.js("[...document.querySelectorAll('#v-response span')].slice(0, 2).map(s => s.style.background)")
    assert "70%" in shades[1]
    assert shades[0] != shades[1]
    assert texts(page, ".concept span:first-child") == ["left lung", "mediastinum", "right lung"]
    assert page.js("document.querySelector('.concept.best span').textContent") == "left lung"


def test_hostile_names_are_shown_as_they_are(page: Page) -> None:
    assert HOSTILE in texts(page, "#v-methods label")
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
