"""Progress of a stage: a bar on a terminal, lines in a log, nothing with --quiet.

A stage that another process has started, and whose output that process passes on, sends its progress in lines of its
standard error, which are taken out there: of all processes one alone writes to the terminal.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType

from mia_batch.process.bars import BARS, State, parts_text

log = logging.getLogger(__name__)

SENT = "MIA_BATCH_PROGRESS"  # in the environment of a stage whose progress its parent shows
MARK = b"\x1emia-batch progress "  # begins a message; no text begins with a record separator
SECONDS_BETWEEN_MESSAGES = 0.2
SECONDS_BETWEEN_LINES_KEPT = 60.0  # in the log of a stage whose bar is on the terminal


def seconds_between_lines(environ: Mapping[str, str] = os.environ) -> float:
    """60 in a scheduler's log, 5 for somebody who watches."""
    return 60.0 if "SLURM_JOB_ID" in environ else 5.0


class Progress:
    """Counts what is done, and shows it while its block lasts: as a bar, as messages, or as a line now and then."""

    def __init__(
        self, total: int | None, *, what: str = "", unit: str = "samples", done: int = 0, every: float | None = None,
        shown: bool = True, summed_up: bool = True,
    ) -> None:
        """Begin at `done` of `total`; None where that is not known.

        Args:
            total: how many there are.
            what: names the stage, or the part of it.
            unit: what is counted, in the plural.
            done: how many an earlier process has done.
            every: seconds between lines, where there is no bar.
            shown: False on ranks that only count.
            summed_up: whether a line says so when the last one is done.
        """
        self.total, self.done, self.what, self.unit = total, done, what, unit
        self._parts: tuple[str, ...] = ()
        self._begun = False
        self._started = self._last = time.monotonic()
        self._sent, self._at_start, self._summed_up = -SECONDS_BETWEEN_MESSAGES, done, summed_up
        self._show = _shower() if shown and log.isEnabledFor(logging.INFO) else None
        usual = SECONDS_BETWEEN_LINES_KEPT if self._show else seconds_between_lines()
        self._every = usual if every is None else every
        self._key = f"{os.getpid()} {id(self)}"

    def __enter__(self) -> Progress:
        """Show that it has begun."""
        self._update()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Take the bar away."""
        if self._show:
            self._show(self._key, None)

    def add(self, count: int) -> None:
        """Count `count` more as done."""
        self.set(self.done + count)

    def begin(self, part: str) -> None:
        """Say what begins, and count what has begun before it as done."""
        self.set(self.done + self._begun, parts=(part,))
        self._begun = True

    def set(self, done: int, *, parts: tuple[str, ...] = ()) -> None:
        """Say how many are done.

        Args:
            done: of all.
            parts: what has begun and not ended.
        """
        before, self.done, self._parts = self.done, done, parts
        now = time.monotonic()
        last = done != before and done == self.total
        self._update(now, at_once=last)
        if now - self._last >= self._every or (last and self._summed_up):
            self._last = now
            self._say(self.line(now - self._started), kept_alone=not last)

    def _update(self, now: float | None = None, *, at_once: bool = True) -> None:
        now = time.monotonic() if now is None else now
        if self._show and (at_once or now - self._sent >= SECONDS_BETWEEN_MESSAGES):
            self._sent = now
            self._show(self._key, State(self.what, self.unit, self.done, self.total, self._parts))

    def _say(self, line: str, *, kept_alone: bool) -> None:
        """Log a line; beside a bar that is shown elsewhere, in the log of the stage alone."""
        if self._show is send and kept_alone:
            send("", line)
        elif self._show is None or not kept_alone:
            log.info("%s", line)

    def line(self, elapsed: float) -> str:
        """The line after `elapsed` seconds."""
        rate = (self.done - self._at_start) / elapsed if elapsed > 0 else 0.0
        named = f"{self.what}: " if self.what else ""
        if self.total is None:
            return f"{named}{self.done} {self.unit}, {rate:.1f} {self.unit}/s"
        left = (self.total - self.done) / rate if rate else float("nan")
        share = 100 * self.done / self.total if self.total else 100.0
        ahead = f", {left:.0f} s left" if self.done < self.total and rate else ""
        parts = f"; {parts_text(self._parts)}" if self._parts else ""
        counted = f"{self.done}/{self.total} {self.unit} ({share:.0f} %), {rate:.1f} {self.unit}/s"
        return f"{named}{counted}{ahead}{parts}"


def _shower() -> Callable[[str, State | None], None] | None:
    """What shows a state: the bars of this process, messages to the one that has started it, or nothing."""
    if SENT in os.environ:
        return send
    return BARS.show if BARS.possible() else None


def send(key: str, state: State | str | None) -> None:
    """Send a state, its end, or a line for the log to the process that reads standard error."""
    body = asdict(state) if isinstance(state, State) else state
    with suppress(OSError):  # nobody reads it any more: that costs the bar, not the stage
        os.write(sys.stderr.fileno(), MARK + json.dumps([key, body]).encode() + b"\n")


@dataclass
class Received:
    """Takes the messages of a stage out of what it prints, shows them, and gives lines for its log to `keep`."""

    keep: Callable[[str], None]

    def __post_init__(self) -> None:
        self._held = b""
        self._shown: set[str] = set()

    def take(self, said: bytes) -> bytes:
        """What is left of the bytes that have come. A line that has begun waits while it may be a message."""
        lines = (self._held + said).splitlines(keepends=True)
        self._held = b""
        if lines and not lines[-1].endswith(b"\n") and (MARK[:1] in lines[-1] or BARS.live):
            self._held = lines.pop()
        return b"".join(line for line in lines if not self._is_message(line))

    def end(self) -> bytes:
        """What has waited; the bars of the stage go, however it has ended."""
        for key in self._shown:
            BARS.show(key, None)
        held, self._held = self._held, b""
        return held

    def _is_message(self, line: bytes) -> bool:
        _, mark, body = line.partition(MARK)  # a rank's name may stand before it
        if not mark:
            return False
        try:
            key, state = json.loads(body)
            if isinstance(state, str):
                self.keep(f"{time.strftime('%H:%M:%S')} I {state}")
                return True
            found = None if state is None else State.of(state)
        except (ValueError, TypeError, KeyError):
            return False
        self._shown.add(str(key))
        BARS.show(str(key), found)
        return True
