"""Charts as SVG within a page: text stays text, and colours are the page's own, so that they follow its dark mode.

Nobody's names go through matplotlib, which takes some of their characters for formulas and lacks glyphs for others: it
draws a mark in their place, and the finished SVG gets the text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from mia_batch.metrics.distributions import Histogram
from mia_batch.metrics.ranking import FPRS, RocBand
from mia_batch.report.shown_text import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
# What matplotlib is told, and what stands in the page instead.
TEXT, LINE, MEMBER, NONMEMBER, ACCENT, MUTED, LIMIT = (f"#00000{number}" for number in range(1, 8))
COLOURS = {
    TEXT: "currentColor", LINE: "var(--line)", MEMBER: "var(--member)", NONMEMBER: "var(--nonmember)",
    ACCENT: "var(--accent)", MUTED: "var(--muted)", LIMIT: "var(--limit)",
}  # fmt: skip
STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 9.5, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.labelcolor": TEXT, "text.color": TEXT,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": TEXT, "ytick.labelcolor": TEXT,
    "axes.grid": True, "grid.color": LINE, "grid.linewidth": 0.7, "axes.axisbelow": True, "axes.linewidth": 0.7,
    "xtick.minor.bottom": False, "ytick.minor.left": False, "lines.linewidth": 1.8, "axes.unicode_minus": False,
}  # fmt: skip
WIDTH = 4.9  # inches of every chart; the page scales them
NAME_WIDTH = 1.55  # inches for names at the left of a chart


@dataclass(frozen=True)
class Chart:
    """A chart, what it says in words, and the numbers behind it.

    Attributes:
        title: what it shows.
        description: what is to be seen, for those who do not see it.
        svg: the drawing.
        columns: of the table behind it.
        rows: numbers or text.
    """

    title: str
    description: str
    svg: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@contextmanager
def _figure(height: float, *, left: float = 0.62, bottom: float = 0.5) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes, whose margins are in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_axes((left / WIDTH, bottom / height, 1 - (left + 0.15) / WIDTH, 1 - (bottom + 0.15) / height))
        axes.tick_params(length=0)
        yield figure, axes


def _drawn(figure: Figure, key: str, title: str, description: str, names: Sequence[str] = ()) -> str:
    """The figure as an SVG element of a page, in which no other chart has the key.

    Args:
        figure: drawn within `_figure`.
        key: letters, digits and hyphens.
        title: of the chart.
        description: of it.
        names: text for the marks that `_mark` has put into the figure.
    """
    import matplotlib as mpl

    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": key}):
        figure.savefig(text, format="svg", transparent=True)
    root = ElementTree.fromstring(text.getvalue())  # nosec B314
    _keep_drawing(root)
    _make_unique(root, key)
    for element in root.iter():
        element.text = element.text.strip() if element.text and not element.text.isspace() else None
        element.tail = None
        if found := re.fullmatch(r"@(\d+)@", element.text or ""):
            element.text = short(names[int(found[1])])
        if style := element.get("style"):
            element.set("style", _page_style(style))
        if path := element.get("d"):
            element.set("d", _shorter(path))
    _say(root, key, title, description)
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _mark(number: int) -> str:
    return f"@{number}@"


def _keep_drawing(root: ElementTree.Element) -> None:
    """Take out matplotlib's metadata, and its style sheet, which would be one of the whole page."""
    for element in list(root):
        if element.tag == f"{{{SVG}}}metadata" or element.find(f"{{{SVG}}}style") is not None:
            root.remove(element)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)


def _make_unique(root: ElementTree.Element, key: str) -> None:
    """Names within the drawing that are referred to, as the page's own; the others go."""
    refers = re.compile(r"url\(#([^)]+)\)")
    used = {found for each in root.iter() for value in each.attrib.values() for found in refers.findall(value)}
    used |= {href.removeprefix("#") for each in root.iter() if (href := each.get(f"{{{XLINK}}}href"))}
    for element in root.iter():
        if (name := element.attrib.pop("id", None)) in used:
            element.set("id", f"{key}-{name}")
        if href := element.attrib.pop(f"{{{XLINK}}}href", None):
            element.set("href", f"#{key}-{href.removeprefix('#')}")
        for attribute, value in element.attrib.items():
            element.set(attribute, refers.sub(rf"url(#{key}-\1)", value))


def _page_style(style: str) -> str:
    """With the page's fonts and colours."""
    kept = "; ".join(part for part in style.split("; ") if not part.startswith("font-family"))
    return re.sub("#00000[1-7]", lambda found: COLOURS[found[0]], kept)


def _shorter(path: str) -> str:
    """Two decimals of a 72nd of an inch are enough."""
    return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), path.replace("\n", ""))


def _say(root: ElementTree.Element, key: str, title: str, description: str) -> None:
    root.set("role", "img")
    root.set("aria-labelledby", f"{key}-title {key}-desc")
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{key}-{tag}"})
        element.text = text
        root.insert(place, element)


def _plain_ticks(set_formatter: Callable[..., None]) -> None:
    from matplotlib.ticker import FuncFormatter

    set_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def roc_chart(key: str, name: str, band: RocBand, *, level: float, least: float) -> Chart:
    """A ROC curve with its band, on logarithmic axes: low false positive rates are what counts.

    Args:
        key: of the chart.
        name: the attack.
        band: the curve.
        level: of the band.
        least: the lowest rate that is drawn; what is lower lies on the axis.
    """
    shares = [(fpr, *(float(each[band.fpr == fpr][0]) for each in (band.tpr, band.low, band.high))) for fpr in FPRS]
    said = "; ".join(f"{tpr:.3f} ({low:.3f} to {high:.3f}) at {fpr:g}" for fpr, tpr, low, high in shares)
    title = f"ROC curve of {short(name, 40)}"
    description = f"True positive rate by false positive rate, with a {level:.0%} band at each point: {said}."
    with _figure(3.0) as (figure, axes):
        axes.set(xscale="log", yscale="log", xlim=(least, 1.0), ylim=(least, 1.1))
        axes.plot([least, 1], [least, 1], color=MUTED, linestyle=(0, (2, 3)), linewidth=1.1)
        low, tpr, high = (np.maximum(each, least) for each in (band.low, band.tpr, band.high))
        axes.fill_between(band.fpr, low, high, step="post", color=MEMBER, alpha=0.18, linewidth=0)
        axes.plot(band.fpr, tpr, drawstyle="steps-post", color=MEMBER)
        axes.plot(*zip(*[(fpr, max(tpr, least)) for fpr, tpr, *_ in shares], strict=True), "o", color=MEMBER, ms=4)
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        for axis in (axes.xaxis, axes.yaxis):
            _plain_ticks(axis.set_major_formatter)
        svg = _drawn(figure, key, title, description)
    rows = tuple(zip(*(each.tolist() for each in (band.fpr, band.tpr, band.low, band.high)), strict=True))
    return Chart(title, description, svg, ("false positive rate", "true positive rate", "low", "high"), rows)


def histogram_chart(key: str, title: str, what: str, found: Histogram) -> Chart:
    """Members, filled, and non-members, dashed.

    Args:
        key: of the chart.
        title: of it.
        what: is distributed, as its axis says.
        found: the shares.
    """
    members, others = (_middle(found.edges, share) for share in (found.members, found.nonmembers))
    description = f"Share of each side by {what}. Half of the members lie below {members}, of non-members {others}."
    with _figure(3.0) as (figure, axes):
        if found.log:
            axes.set_xscale("log")
        axes.stairs(found.members, found.edges, fill=True, color=MEMBER, alpha=0.28, linewidth=0)
        axes.stairs(found.members, found.edges, color=MEMBER, linewidth=1.5)
        axes.stairs(found.nonmembers, found.edges, color=NONMEMBER, linewidth=1.7, linestyle=(0, (4, 2)))
        axes.set(xlabel=what, ylabel="share of the side", xlim=(found.edges[0], found.edges[-1]))
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="y", nbins=5)
        for axis in (axes.xaxis, axes.yaxis):
            _plain_ticks(axis.set_major_formatter)
        svg = _drawn(figure, key, title, description)
    edges = found.edges.tolist()
    rows = tuple(zip(edges[:-1], edges[1:], found.members.tolist(), found.nonmembers.tolist(), strict=True))
    return Chart(title, description, svg, ("from", "to", "members", "non-members"), rows)


def _middle(edges: np.ndarray, shares: np.ndarray) -> str:
    """About where half of a side is below, as of bins."""
    if not shares.sum():
        return "nothing"
    return f"about {edges[1:][np.searchsorted(np.cumsum(shares), 0.5)]:.3g}"


def interval_chart(
    key: str, title: str, what: str, found: Mapping[str, tuple[float, float, float]], *, level: float | None,
    chance: float | None = None,
) -> Chart:
    """A row for each name: value and interval, with the level that must not be exceeded.

    Args:
        key: of the chart.
        title: of it.
        what: the values are, as the axis says.
        found: value, low and high, by name; at least one.
        level: a line; None for none.
        chance: a dotted line; None for none.
    """
    names, (value, low, high) = list(found), np.array(list(found.values())).T
    most = int(np.argmax(low))
    description = f"{what} of {len(names)}. The highest lower bound has {short(names[most], 60)}: {value[most]:.3f} "
    description += f"({low[most]:.3f} to {high[most]:.3f})." + (f" The level is {level:g}." if level else "")
    y = -np.arange(len(names))
    with _figure(0.75 + 0.27 * len(names), left=NAME_WIDTH, bottom=0.5) as (figure, axes):
        if chance is not None:
            axes.axvline(chance, color=MUTED, linestyle=(0, (2, 3)), linewidth=1.1)
        if level is not None:
            axes.axvline(level, color=LIMIT, linewidth=1.4)
        axes.hlines(y, low, high, color=ACCENT, linewidth=3.2, alpha=0.45)
        axes.plot(value, y, "o", color=ACCENT, ms=5)
        axes.set(ylim=(y[-1] - 0.7, 0.7), xlabel=what)
        axes.set_yticks(y, [_mark(i) for i in range(len(names))])
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        _plain_ticks(axes.xaxis.set_major_formatter)
        svg = _drawn(figure, key, title, description, names)
    rows = tuple((name, *numbers) for name, numbers in found.items())
    return Chart(title, description, svg, ("", "value", "low", "high"), rows)


def curve_chart(
    key: str, title: str, x: Sequence[float], series: Mapping[str, Sequence[tuple[float, float, float]]], *,
    labels: tuple[str, str], level: float | None, log: bool = False,
) -> Chart:
    """Value and interval over a number, a line for each name, the second one dashed; at most two.

    Args:
        key: of the chart.
        title: of it.
        x: ascending, (n_points,).
        series: value, low and high at each point, by name.
        labels: of the axes.
        level: a line; None for none.
        log: whether the axis of x is logarithmic, with a tick at each of them.
    """
    ends = {name: (points[0][0], points[-1][0]) for name, points in series.items()}
    said = "; ".join(f"{name} {first:.3f} at first, {last:.3f} at last" for name, (first, last) in ends.items())
    description = f"{labels[1]} over {labels[0]}, {len(x)} points: {said}."
    with _figure(3.0) as (figure, axes):
        if level is not None:
            axes.axhline(level, color=LIMIT, linewidth=1.4)
        for colour, dashes, points in zip((MEMBER, NONMEMBER), ("-", (0, (4, 2))), series.values(), strict=False):
            value, low, high = np.array(points).T
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(x, value, marker="o", ms=3.5, color=colour, linestyle=dashes)
        axes.set(xlabel=labels[0], ylabel=labels[1], xscale="log" if log else "linear")
        if log:
            axes.set_xticks(x)
        for axis in (axes.xaxis, axes.yaxis):
            _plain_ticks(axis.set_major_formatter)
        svg = _drawn(figure, key, title, description)
    columns = (labels[0], *(f"{name}{word}" for name in series for word in ("", ", low", ", high")))
    rows = tuple((at, *(n for points in series.values() for n in points[i])) for i, at in enumerate(x))
    return Chart(title, description, svg, columns, rows)
