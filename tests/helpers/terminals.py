"""Commands on a real terminal, whose screen pyte draws as its user sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyte

COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38|4[0-8])(?:;\d+)*m")
ROWS = 24
HISTORY = 5000  # lines that have gone beyond the top


@dataclass
class Seen:
    """What came to the terminal, each screen that was to be seen, what stands there at the end, and the exit code."""

    columns: int
    raw: bytes = b""
    screens: list[list[str]] = field(default_factory=list)
    code: int | None = None
    cursor_hidden: bool = False
    lines: list[str] = field(default_factory=list)

    @property
    def bars(self) -> list[str]:
        """Each line of a screen that was a bar."""
        return [line for screen in self.screens for line in screen if "━" in line or "╺" in line]


def on_terminal(
    words: Sequence[object], *, columns: int = 80, env: Mapping[str, str] | None = None,
    meanwhile: Callable[[Seen, int], None] | None = None, **options: Any,
) -> Seen:
    """Run a command on a terminal of its own until it has ended.

    Args:
        words: of the command.
        columns: of the terminal.
        env: variables besides; an empty one is not set.
        meanwhile: called after each thing that is seen, with the process's number.
        options: of `subprocess.Popen`, such as another `stdout`.
    """
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    known = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    known |= {"TERM": "xterm-256color", **(env or {})}
    streams = {"stdin": its, "stdout": its, "stderr": its, **options}
    process = subprocess.Popen(
        list(map(str, words)), env={name: value for name, value in known.items() if value}, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(its, termios.TIOCSCTTY, 0), **streams,
    )  # fmt: skip
    os.close(its)
    screen = pyte.HistoryScreen(columns, ROWS, history=HISTORY, ratio=0.5)
    stream, seen = pyte.ByteStream(screen), Seen(columns)
    while said := _read(ours):
        seen.raw += said
        stream.feed(said)
        seen.screens.append([line.rstrip() for line in screen.display])
        if meanwhile:
            meanwhile(seen, process.pid)
    os.close(ours)
    seen.code, seen.cursor_hidden = process.wait(60), screen.cursor.hidden
    above = ["".join(row[x].data for x in range(columns)) for row in screen.history.top]
    seen.lines = [line.rstrip() for line in [*above, *screen.display] if line.strip()]
    return seen


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the last process at the other side has ended
        return b""


def python(code: str, *words: object) -> list[object]:
    """The command that runs a piece of Python."""
    return [sys.executable, "-c", code, *words]
