"""The bars at the bottom of a terminal, drawn by rich; whatever else is written there goes above them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mia_batch.report.media import terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

MOST_PARTS = 4  # that are named


@dataclass(frozen=True)
class State:
    """How much is done of something; `parts` are what has begun and not ended."""

    what: str
    unit: str
    done: int
    total: int | None
    parts: tuple[str, ...] = ()

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> State:
        """From JSON.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        total = told["total"]
        total, parts = None if total is None else int(total), tuple(map(str, told["parts"]))
        return cls(str(told["what"]), str(told["unit"]), int(told["done"]), total, parts)


def parts_text(parts: tuple[str, ...]) -> str:
    """The parts in a line."""
    named = ", ".join(parts[:MOST_PARTS])
    return f"{named}, {len(parts) - MOST_PARTS} more" if len(parts) > MOST_PARTS else named


class Bars:
    """The bars that this process shows on its standard error, by key, oldest first."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._drawn: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._owner = 0

    def possible(self) -> bool:
        """Whether standard error is a terminal that can move its cursor."""
        return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")

    @property
    def live(self) -> bool:
        """Whether there are bars, of this process and not of the one that it has been forked from."""
        return self._drawn is not None and self._owner == os.getpid()

    def show(self, key: str, state: State | None) -> None:
        """Draw a bar, or draw it anew; None takes it away."""
        if not self.live and (state is None or not self.possible()):
            return
        with self._lock, self._as_long_as_it_can():
            if state is None:
                self._remove(key)
            else:
                self._draw(key, state)

    def _draw(self, key: str, state: State) -> None:
        if not self.live:
            from mia_batch.process.drawn_bars import new_bars  # rich takes a tenth of a second to import

            self._drawn, self._tasks, self._owner = new_bars(), {}, os.getpid()
            self._drawn.start()
        assert self._drawn is not None
        said: dict[str, Any] = {"unit": terminal(state.unit), "parts": terminal(parts_text(state.parts))}
        if key not in self._tasks:
            self._tasks[key] = self._drawn.add_task(terminal(state.what), total=None, visible=False, **said)
        self._drawn.update(self._tasks[key], completed=state.done, total=state.total, **said)
        self._hide_what_says_less()

    def _remove(self, key: str) -> None:
        task = self._tasks.pop(key, None)
        if self._drawn is None or task is None:
            return
        self._drawn.remove_task(task)
        self._hide_what_says_less()
        if not self._tasks:
            drawn, self._drawn = self._drawn, None
            drawn.stop()

    def _hide_what_says_less(self) -> None:
        """A bar of a stage that has only begun stands aside for those that know how much there is to do, and for newer
        ones.
        """
        assert self._drawn is not None
        tasks = self._drawn.tasks
        known = any(task.total is not None for task in tasks)
        for task in tasks:
            self._drawn.update(task.id, visible=task.total is not None or (not known and task is tasks[-1]))
        self._drawn.refresh()

    @contextmanager
    def above(self) -> Iterator[None]:
        """Take the bars away for the length of the block, which writes whole lines to the terminal."""
        if not self.live:
            yield
            return
        with self._lock:
            drawn = self._drawn
            with self._as_long_as_it_can():
                if drawn is not None:
                    drawn.stop()
            try:
                yield
            finally:
                with self._as_long_as_it_can():
                    if drawn is not None and drawn is self._drawn:
                        drawn.start()

    @contextmanager
    def _as_long_as_it_can(self) -> Iterator[None]:
        """Where the terminal has gone, as with a connection that broke, the bars go too, and the work goes on."""
        try:
            yield
        except OSError:
            self._drawn = None


BARS = Bars()
