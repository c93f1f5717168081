"""How rich draws the bars: what is done, of how many, for how long, how long it will take."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Column
from rich.text import Text

WIDE = 72  # columns, in which there is room for all
REFRESHES_PER_SECOND = 4


class Screen(Console):
    """Standard error, whose cursor stays to be seen: a process that is killed could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:
        """Leave it as it is."""
        return False


class Counted(ProgressColumn):
    """12/60 tasks."""

    def render(self, task: Task) -> Text:
        """Nothing where nothing is known."""
        of = "" if task.total is None else f"/{task.total:.0f}"
        known = task.total is not None or task.completed
        return Text(f"{task.completed:.0f}{of} {task.fields['unit']}" if known else "")


class Times(ProgressColumn):
    """Since when it goes on, and how long it will; where there is no room, the latter alone."""

    def __init__(self, *, both: bool) -> None:
        super().__init__(_column())
        self._both = both

    def render(self, task: Task) -> Text:
        """Where it cannot be known how long, since when."""
        left = None if task.finished else task.time_remaining
        since, ahead = clock(task.elapsed or 0), "" if left is None else f"{clock(left)} left"
        return Text(", ".join(filter(None, (since, ahead))) if self._both else ahead or since)


class Parts(ProgressColumn):
    """What has begun and not ended, as far as there is room."""

    def render(self, task: Task) -> Text:
        """Names of others are text."""
        return Text(task.fields["parts"])


def new_bars() -> Progress:
    """Rich's, with as many columns as the terminal has room for."""
    screen = Screen(
        file=sys.stderr, force_terminal=True, force_interactive=True, highlight=False, markup=False, emoji=False
    )
    wide = screen.width >= WIDE
    named = TextColumn("{task.description}", markup=False, table_column=_column())
    bar = BarColumn(bar_width=24 if wide else 6)
    rest = [Parts(_column(ratio=1))] if wide else []
    return Progress(
        named, bar, Counted(_column()), Times(both=wide), *rest, console=screen, transient=True, expand=wide,
        redirect_stdout=False, redirect_stderr=False, refresh_per_second=REFRESHES_PER_SECOND,
    )  # fmt: skip


def _column(ratio: int | None = None) -> Column:
    return Column(no_wrap=True, overflow="ellipsis", ratio=ratio)


def clock(seconds: float) -> str:
    """1:05, or 2:00:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
