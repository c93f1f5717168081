"""A request to stop, made by a signal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # which schedulers send before they kill


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None] | signal.Handlers, *signums: int) -> Iterator[None]:
    """Have `handler` take these signals for the length of the block, then put the former handlers back."""
    former = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, before in former.items():
            signal.signal(signum, before)


class Stopped(Exception):  # noqa: N818  (not an error: a signal asked for it)
    """Work that holds nothing worth saving ends where it is."""


class StoppedHere(BaseException):
    """Work that has nothing to save ends where a signal finds it; no `except Exception` takes it for an error."""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have `STOP_SIGNALS` end the block where it is: the first raises StoppedHere, later ones are ignored."""

    def end(signum: int, _frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise StoppedHere(signal.Signals(signum).name)

    with handled(end, *STOP_SIGNALS):
        yield


class StopRequest:
    """A flag that `STOP_SIGNALS` and Ctrl-C raise; loops look at it at block boundaries.

    MindSpore leaves `STOP_SIGNALS` free. It takes HUP and INT when it is imported; before that Ctrl-C is noted here,
    and a second one ends the process at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def check(self) -> None:
        """Raise Stopped if there is a request."""
        if self:
            raise Stopped

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signum

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Note signals for the length of the block."""
        with handled(self._note, *STOP_SIGNALS, signal.SIGINT):
            yield self
