"""report.html in Debian's Chromium: on a screen and a phone, light and dark, by keyboard, and printed."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from browsers import SIZES, Window, chromium
from pages import HOSTILE, made_audit, made_config, made_curve
from test_page import hostile_audit

from mia_batch.report import words
from mia_batch.report.page import to_page

PAGE_MM = 297.0
LEAST = {"marks": 3, "texts": 5, "width": 250, "height": 60}  # of a chart
# Of each SVG: what it is called, and how many of its marks and texts have a place on the page.
CHARTS = """[...document.querySelectorAll('svg')].map(svg => ({
  title: svg.querySelector('title').textContent, description: svg.querySelector('desc').textContent,
  marks: [...svg.querySelectorAll('path, use')].filter(e => e.closest('defs') === null && drawn(e)).length,
  texts: [...svg.querySelectorAll('text')].filter(e => e.textContent.trim() && drawn(e)).length,
  named: svg.getAttribute('aria-labelledby').split(' ').every(id => document.getElementById(id)),
  width: svg.getBoundingClientRect().width, height: svg.getBoundingClientRect().height,
}))
function drawn(e) { const box = e.getBoundingClientRect(); return box.width + box.height > 0 }"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    config = made_config(report={"slices": {"class": True}}, dossier={"measures": ("DP-SGD",), "notes": "n\nm"})
    path = folder / "report.html"
    path.write_text(to_page(*made_audit(folder, config=config, provenance={"lr": made_curve([1, 2, 4])})), "utf-8")
    return path


@pytest.fixture
def show(browser: Any, file: Path) -> Iterator[Callable[..., Window]]:
    windows: list[Window] = []

    def opened(*options: str, of: Path = file) -> Window:
        windows.append(Window(browser, of, *options))
        return windows[-1]

    yield opened
    for window in windows:
        window.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", list(SIZES))
def test_the_page_shows_the_verdict_first_and_every_chart(
    show: Callable[..., Window], file: Path, size: str, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    window = show(size, scheme)
    page = window.page
    assert window.said == []
    assert [url for url in window.asked if not url.startswith("data:")] == [file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    heading = page.locator("h1").bounding_box()
    assert page.locator("h1").inner_text() == words.HEADLINES["leak"]
    assert heading["y"] + heading["height"] < SIZES[size][1] / 2
    cards = [card.bounding_box() for card in page.locator(".card").all()]
    assert len(cards) == 4
    assert all(box["y"] + box["height"] <= SIZES[size][1] for box in cards)
    charts = page.evaluate(CHARTS)
    assert len(charts) == 8
    for chart in charts:
        assert all(chart[name] for name in ("title", "description", "named"))
        assert all(chart[name] >= least for name, least in LEAST.items()), chart
    serious = [
        f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in Axe().run(page).response["violations"]
        if each["impact"] in ("serious", "critical")
    ]  # fmt: skip
    assert serious == []


def test_charts_follow_the_dark_mode(show: Callable[..., Window]) -> None:
    stroke = "getComputedStyle([...document.querySelectorAll('svg path')].find(e => " \
        "e.getAttribute('style')?.includes('--member'))).stroke"  # fmt: skip
    text = "getComputedStyle(document.querySelector('svg text')).fill"
    light, dark = ([show("screen", scheme).page.evaluate(what) for what in (stroke, text)]
                   for scheme in ("light", "dark"))  # fmt: skip
    assert light[0] != dark[0]
    assert all(re.match(r"rgb\(\d+, \d+, \d+\)", each) for each in (*light, *dark))
    assert [min(map(int, re.findall(r"\d+", each))) > 150 for each in (light[1], dark[1])] == [False, True]


def test_the_keyboard_reaches_contents_tables_and_numbers(show: Callable[..., Window]) -> None:
    page = show().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.tagName"))
        if seen[-1] == "SUMMARY":
            break
    assert "A" in seen
    assert seen[-1] == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")
    assert page.locator("details[open] table").first.is_visible()


def pages_of(window: Window) -> list[str]:
    """The text of each printed page."""
    from pypdf import PdfReader

    printed = window.page.pdf(prefer_css_page_size=True, print_background=True)
    return [normalize("NFKC", page.extract_text()) for page in PdfReader(io.BytesIO(printed)).pages]  # no ligatures


def test_no_chart_is_cut_when_printed(show: Callable[..., Window]) -> None:
    """Each chart's first and last words, its title and its axis, are on one page."""
    window = show()
    ends = window.page.evaluate("""[...document.querySelectorAll('figure')].map(figure => {
      const texts = [...figure.querySelectorAll('svg text')].map(e => [e.getBoundingClientRect().bottom, e.textContent])
      return [figure.querySelector('figcaption b').textContent, texts.sort((a, b) => b[0] - a[0])[0][1]]
    })""")
    pages = pages_of(window)
    assert 4 < len(pages) < 40
    squeezed = ["".join(text.split()) for text in pages]
    for title, last in ends:
        where = [i for i, text in enumerate(squeezed) if "".join(title.split()) in text]
        assert where, title
        assert any("".join(last.split()) in squeezed[i] for i in where), (title, last)
    counts = [(sum(t.count("ROCcurveof") for t in (text,)), text.count("truepositiverate")) for text in squeezed]
    assert all(axes >= titles for titles, axes in counts)
    sizes = window.page.evaluate("[...document.querySelectorAll('figure')].map(e => getComputedStyle(e).breakInside)")
    window.page.emulate_media(media="print")
    printed = "[...document.querySelectorAll('figure')].map(e => [getComputedStyle(e).breakInside, " \
        "e.getBoundingClientRect().height])"  # fmt: skip
    assert len(sizes) == len(ends)
    for rule, height in window.page.evaluate(printed):
        assert rule == "avoid"
        assert height * 25.4 / 96 < PAGE_MM - 28  # a figure that is higher than the page would be cut all the same


def test_what_is_printed_is_complete(show: Callable[..., Window]) -> None:
    text = "\n".join(pages_of(show()))
    squeezed = "".join(text.split())
    for said in ("The whole config as it was in force", "claimed_epsilon", "Search of lr", words.PASSING, "DP-SGD"):
        assert "".join(said.split()) in squeezed, said


def test_hostile_text_does_nothing(show: Callable[..., Window], tmp_path: Path) -> None:
    path = tmp_path / "hostile.html"
    path.write_text(to_page(*hostile_audit(tmp_path)), encoding="utf-8")
    window = show("phone", of=path)
    assert window.said == []
    assert [url for url in window.asked if not url.startswith("data:")] == [path.as_uri()]
    assert window.page.evaluate("document.scripts.length + document.images.length") == 0
    assert window.page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"][0]
    assert HOSTILE[0] in window.page.inner_text("body")
    assert window.page.locator("style").count() == 1


@pytest.mark.parametrize("width", [360, 375])
def test_accuracies_stay_on_a_line_of_a_narrow_phone(show: Callable[..., Window], width: int) -> None:
    page = show("phone").page
    page.set_viewport_size({"width": width, "height": 844})
    page.evaluate("document.querySelectorAll('.bars b').forEach(each => each.textContent = '100.0%')")
    for figure in page.locator(".bars b").all():
        box, card = figure.bounding_box(), figure.locator("xpath=ancestor::*[@class='card']").bounding_box()
        assert box["height"] < 24
        assert box["x"] + box["width"] < card["x"] + card["width"]
