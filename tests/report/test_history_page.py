"""The history's page in Debian's Chromium: charts, sort, filter, links, hostile names, 1,000 audits."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from browsers import Window, chromium

from mia_batch.report.entries import Entry
from mia_batch.report.history_page import TrainingOnPage, history_page

HOSTILE = (
    "<script>document.title = 'owned'</script>", '"><img src=x onerror="alert(1)">', "</script><b>x", "{{ 7 * 7 }}",
    "a\x1b[31mb\x00", "left\u202eright", "&lt;b&gt;", "' onmouseover='alert(1)", "\udcff", "日本語 🎉",
)  # fmt: skip


def entry(number: int, *, outcome: str = "leak", training: str = "t", **fields: Any) -> Entry:
    value = 0.5 + 0.4 * (number % 100) / 100
    known: dict[str, Any] = {
        "run": f"run{number}", "checkpoint": f"net-{number}.ckpt", "sha256": f"{number:064x}", "state": "done",
        "modified": f"2030-01-{1 + number % 28:02d}T01:{number % 60:02d}:00+00:00", "step": str(number),
        "detail": f"Said of {number}.", "outcome": outcome, "training": training, "test_accuracy": 0.4 + value / 3,
        "member_accuracy": 0.9, "auc_change": 0.01, "auc_change_low": -0.02, "auc_change_high": 0.04,
    }  # fmt: skip
    for name in ("auc", "balanced_accuracy", "tpr"):
        known |= {name: value, f"{name}_low": value - 0.03, f"{name}_high": value + 0.03}
        known[f"{name}_attack"] = f"lr{number % 3}"
    return Entry(**known | fields)


OUTCOMES = ("no leak", "inconclusive", "leak")


def many(n: int) -> list[TrainingOnPage]:
    """Audits of two trainings, whose verdicts get worse."""
    half, made = n // 2, []
    for name, first in (("t", 0), ("u", half)):
        outcomes = [OUTCOMES[min(2, 3 * i // half)] for i in range(half)]
        entries = tuple(entry(first + i, training=name, outcome=outcome) for i, outcome in enumerate(outcomes))
        made.append(TrainingOnPage(name, f"training {name}", entries, "First leak found: somewhere."))
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Window]]:
    windows: list[Window] = []

    def opened(trainings: list[TrainingOnPage], *options: str, links: dict[str, str] | None = None) -> Window:
        file = tmp_path / "history.html"
        file.write_text(history_page("Audits", trainings, links or {}, level=0.95), encoding="utf-8")
        windows.append(Window(browser, file, *options))
        return windows[-1]

    yield opened
    for window in windows:
        assert window.said == []
        assert all(url.startswith("file:") for url in window.asked)
        assert len(window.asked) == 1
        window.context.close()


def visible(window: Window) -> list[str]:
    """Runs of the rows that are shown, in their order."""
    return texts(window, "#audits tbody tr:not([hidden]):not(.later) td:nth-child(4)")


def texts(window: Window, selector: str) -> list[str]:
    found: list[str] = window.page.eval_on_selector_all(selector, "all => all.map(e => e.textContent)")
    return found


def interval(entry: Entry, name: str) -> str:
    value, low, high = (getattr(entry, f"{name}{end}") for end in ("", "_low", "_high"))
    return f"{value:.3f} {low:.3f} to {high:.3f}"


def test_every_figure_is_a_mark_and_a_row(show: Callable[..., Window]) -> None:
    window = show(many(12))
    page = window.page
    charts = page.locator("figure svg")
    assert charts.count() == 4
    for number in range(4):
        assert charts.nth(number).locator(".mark").count() == 12
        assert charts.nth(number).locator("text").count() > 5
    each = entry(5)
    cells = page.locator("#a5 td").all_text_contents()
    assert [" ".join(cell.split()) for cell in cells[6:11]] == [
        *(interval(each, name) for name in ("balanced_accuracy", "auc", "tpr")), f"{each.test_accuracy:.3f}", "0.900"
    ]
    assert page.locator(".mark.first").count() == 2 * 4
    assert texts(window, "figure:first-of-type .mark title")[5] == "step 5 (run5): leak, lr2 0.520 (0.490 to 0.550)"


def test_marks_lie_where_their_figures_are(show: Callable[..., Window]) -> None:
    """By the axis' own ticks: a linear fit of places to numbers takes each mark to its figure."""
    page = show(many(40)).page
    number_and_place = "all => all.map(e => [Number(e.textContent), Number(e.getAttribute('y')) - 3.5])"
    ticks = page.eval_on_selector_all("figure:first-of-type svg > text", number_and_place)
    (a, at_a), (b, at_b) = ticks[0], ticks[-1]
    down = r"all => all.map(e => Number(e.getAttribute('transform').match(/ ([\d.]+)/)[1]))"
    places = page.eval_on_selector_all("figure:first-of-type .mark path", down)
    for number, place in enumerate(places):
        assert a + (place - at_a) * (b - a) / (at_b - at_a) == pytest.approx(entry(number).balanced_accuracy, abs=0.001)


def test_the_table_filters_and_the_charts_follow(show: Callable[..., Window]) -> None:
    window = show(many(12))
    page = window.page
    page.fill("#find", "NET-1")
    assert visible(window) == ["run1", "run10", "run11"]
    assert page.locator("#shown").text_content() == "3 of 12 audits."
    assert page.locator("figure:first-of-type .mark:not(.hidden)").count() == 3
    page.fill("#find", "lr0")  # an attack
    assert visible(window) == ["run0", "run3", "run6", "run9"]
    page.fill("#find", "")
    page.select_option("#outcome", "inconclusive")
    assert visible(window) == ["run2", "run3", "run8", "run9"]
    page.select_option("#training", "u")
    assert visible(window) == ["run8", "run9"]
    page.select_option("#outcome", "none")
    assert visible(window) == []
    page.select_option("#outcome", "")
    page.select_option("#training", "")
    assert len(visible(window)) == 12


def test_columns_sort_both_ways_with_what_has_no_value_last(show: Callable[..., Window]) -> None:
    entries = [entry(2), entry(10), entry(1, auc=None, auc_low=None, auc_high=None, outcome="", state="failed")]
    window = show([TrainingOnPage("t", "t", tuple(entries), "")])
    auc = window.page.locator("thead button", has_text=re.compile("^AUC$"))
    auc.click()
    assert visible(window) == ["run2", "run10", "run1"]
    auc.click()
    assert visible(window) == ["run10", "run2", "run1"]
    assert window.page.locator("th[aria-sort]").all_text_contents() == ["AUC"]
    window.page.locator("thead button", has_text=re.compile("^run$")).press("Enter")
    assert visible(window) == ["run1", "run2", "run10"]


def test_over_time_marks_move_to_when_the_checkpoint_was_made(show: Callable[..., Window]) -> None:
    entries = [entry(step, modified=f"2030-01-{day:02d}T00:00:00+00:00") for step, day in ((1, 9), (2, 5), (3, 1))]
    page = show([TrainingOnPage("t", "t", tuple(entries), "")]).page
    places = "all => all.map(e => e.getBoundingClientRect().x)"
    by_step = page.eval_on_selector_all("figure:first-of-type .mark path", places)
    page.check("[name=over][value=time]")
    by_time = page.eval_on_selector_all("figure:first-of-type .mark path", places)
    assert by_step == sorted(by_step)
    assert by_time == sorted(by_time, reverse=True)
    assert page.locator("figure:first-of-type .of-time").is_visible()
    assert not page.locator("figure:first-of-type .of-step").is_visible()


def test_a_mark_that_is_clicked_shows_its_row(show: Callable[..., Window]) -> None:
    page = show(many(60)).page
    page.locator("figure:first-of-type .mark[data-row='55'] path").click()
    assert page.locator("tr.chosen").get_attribute("id") == "a55"
    assert page.locator("tr.chosen").is_visible()
    assert page.evaluate("document.querySelector('tr.chosen').getBoundingClientRect().top < innerHeight")


def test_hostile_names_are_text(show: Callable[..., Window]) -> None:
    trainings = [
        TrainingOnPage(name, name, (
            entry(i, run=name, checkpoint=name, detail=name, auc_attack=name, sha256=name, training=name),
        ), name)
        for i, name in enumerate(HOSTILE)
    ]  # fmt: skip
    window = show(trainings)
    assert window.page.title() == "Audits: membership audits"
    assert window.page.locator("img, b > b, main script").count() == 0
    seen = list(HOSTILE)
    for hidden in ("\x1b", "\x00", "\u202e", "\udcff"):
        seen = [name.replace(hidden, ascii(hidden)[1:-1]) for name in seen]
    assert visible(window) == seen
    assert texts(window, "#audits td:last-child") == seen


def test_links_lead_to_the_reports_that_are_there(show: Callable[..., Window]) -> None:
    paths = {"run1": "../a b/javascript:alert(1)/#?%\"'<é/report.html", "run2": "run2/report.html"}
    window = show([TrainingOnPage("t", "t", tuple(entry(i) for i in range(4)), "")], links=paths)
    links = window.page.eval_on_selector_all("td a", "all => all.map(e => [e.textContent, e.getAttribute('href')])")
    assert [(run, unquote(link)) for run, link in links] == list(paths.items())
    assert all(link.split(":")[0] != "javascript" and '"' not in link for _, link in links)


@pytest.mark.parametrize(("size", "scheme"), [("screen", "light"), ("phone", "dark")])
def test_nothing_is_cut_and_axe_finds_no_serious_fault(show: Callable[..., Window], size: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = show(many(20), size, scheme).page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = Axe().run(page).response["violations"]
    assert [each for each in found if each["impact"] in ("serious", "critical")] == []


def test_nothing_but_its_own_script_may_run_and_nothing_may_be_fetched(show: Callable[..., Window]) -> None:
    window = show(many(4))
    tried = window.page.evaluate("""async () => {
        const script = document.createElement("script");
        script.textContent = "document.title = 'owned'";
        document.body.append(script);
        try { await fetch("http://127.0.0.1:9/"); return "fetched"; } catch { return "refused"; }
    }""")
    assert tried == "refused"
    assert window.page.title() != "owned"
    assert any("Content Security Policy" in said for said in window.said)
    window.said.clear()


# Main thread's CPU seconds of a frame after an act: other processes of a busy machine do not count.
FRAME = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"


def test_a_thousand_audits_stay_fluid(show: Callable[..., Window]) -> None:
    """A filter or a sort of 1,000 audits takes less than a quarter of a second of the main thread at the median."""
    window = show(many(1000))
    page, session = window.page, window.context.new_cdp_session(window.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        found = session.send("Performance.getMetrics")["metrics"]
        return next(each["value"] for each in found if each["name"] == "TaskDuration")

    def seconds(act: Callable[[], object]) -> float:
        page.evaluate(FRAME)
        before = busy()
        act()
        page.evaluate(FRAME)
        return busy() - before

    filters = [seconds(lambda text=text: page.fill("#find", text)) for text in ("1", "12", "123", "", "lr1", "")]
    click = "i => document.querySelectorAll('thead button')[i].click()"
    sorts = [seconds(lambda i=i: page.evaluate(click, i)) for i in range(13)]
    print(f"filter {statistics.median(filters):.3f} s, sort {statistics.median(sorts):.3f} s")
    assert statistics.median(filters) < 0.25, filters
    assert statistics.median(sorts) < 0.25, sorts
    assert len(visible(window)) == 100
    page.click("#more")
    assert len(visible(window)) == 1000
    assert not page.locator("#more").is_visible()


def test_without_audits_or_without_verdicts_there_is_a_page(show: Callable[..., Window]) -> None:
    assert show([]).page.locator("figure").count() == 0
    window = show([TrainingOnPage("t", "t", (Entry("a", training="t", state="running"),), "")])
    assert visible(window) == ["a"]
    assert texts(window, ".counts li")[-1] == "1without a verdict"
