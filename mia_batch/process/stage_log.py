"""The log of a stage on this machine: what it has printed, when it began and how it ended.

Slurm keeps the logs of its jobs; on a terminal nothing would be left of what a stage has said.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, BinaryIO

from mia_batch.files import open_bytes
from mia_batch.locks import try_lock
from mia_batch.process.bars import BARS
from mia_batch.process.exit_codes import BAD_INPUT, FAILED, INTERRUPTED, RESUME, problem_lines, refusal_of
from mia_batch.process.log_setup import LOGGERS
from mia_batch.process.progress import Received
from mia_batch.process.stop import StoppedHere

TAIL = 1 << 16  # bytes that are looked at for a stage's last words
# The line that begins a start, here and in slurm/body.bash.
BEGAN = re.compile(r"^\S+ .*(?:job \d+|on \S+), start \S+.*$", re.MULTILINE)
ENDED = re.compile(r"^\S+ ended with exit code (\d+)$", re.MULTILINE)
SAID = re.compile(r"^(?:\[[^\]\n]*\] )?(mia-batch: .*)$", re.MULTILINE)  # a rank says on which node it is


class StageLog:
    """Appends to a log, which its lock shows to be written.

    There is none before the run's directory is there: a stage that is refused leaves nothing behind. What was said
    before that is kept until then.
    """

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._early = f"{stage} on {platform.node()}, start {now}\n".encode()
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()

    def begin(self) -> StageLog:
        """Say that the stage has begun, and show by the lock that it runs."""
        self.write(b"")
        return self

    def write(self, said: bytes) -> None:
        """Append bytes as they are. A disk that is full costs the log, not the stage, which says so itself."""
        with self._lock, suppress(OSError):
            if self._file is None and self.path.parent.parent.is_dir():
                self._file, said = self._opened(), self._early + said
            if self._file is None:
                self._early += said
            else:
                self._file.write(said)

    def _opened(self) -> BinaryIO:
        self.path.parent.mkdir(exist_ok=True)
        file = open_bytes(self.path, "ab", buffering=0)
        with suppress(OSError):  # another start has the lock
            try_lock(file.fileno())
        return file

    def say(self, text: str) -> None:
        """Append lines of text."""
        self.write(f"{text}\n".encode("utf-8", "backslashreplace"))

    def end(self, code: int) -> None:
        """Say how the stage has ended, and release the log."""
        self.say(f"{self.stage} ended with exit code {code}")
        if self._file is not None:
            self._file.close()

    def copy(self, source: IO[bytes], screen: IO[bytes]) -> threading.Thread:
        """A thread that copies what comes from `source` to the log and to `screen` until it ends, but for progress."""

        def pump() -> None:
            messages, shown = Received(keep=self.say), True
            while said := os.read(source.fileno(), 1 << 16):
                shown = pass_on(messages.take(said), shown)
            pass_on(messages.end(), shown)
            source.close()

        def pass_on(said: bytes, shown: bool) -> bool:
            if said:
                self.write(said)
            try:
                if said and shown:
                    with BARS.above():
                        screen.write(said)
                        screen.flush()
            except BrokenPipeError:  # its reader (head, less) has gone; the stage goes on
                return False
            return shown

        thread = threading.Thread(target=pump, daemon=True)
        thread.start()
        return thread


class _Handler(logging.Handler):
    def __init__(self, log: StageLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.say(self.format(record))


def kept(path: Path, stage: str, work: Callable[[], int]) -> int:
    """The exit code of a stage of this process, of which the log keeps what it logs and what it refuses."""
    log = StageLog(path, stage).begin()
    handler = _Handler(log)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    handler.setFormatter(next((each.formatter for each in loggers[0].handlers), None))
    for logger in loggers:
        logger.addHandler(handler)
    code = FAILED
    try:
        code = work()
        return code
    except StoppedHere:
        code = RESUME
        raise
    except KeyboardInterrupt:
        code = INTERRUPTED
        raise
    except Exception as error:
        refused = refusal_of(error)
        code = BAD_INPUT if refused else FAILED
        log.say("\n".join(problem_lines(refused)) if refused else traceback.format_exc().rstrip())
        raise
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        log.end(code)


def last_start(path: Path) -> str:
    """What a log holds of its last start, at most its end."""
    with open_bytes(path) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        text = file.read().decode("utf-8", "replace")
    begun = [found.start() for found in BEGAN.finditer(text)]
    return text[begun[-1] :] if begun else text


def last_words(path: Path) -> str:
    """The last line of the last start that says what went wrong, else its last line."""
    text = last_start(path)
    said = SAID.findall(text)
    return said[-1] if said else next((line for line in reversed(text.splitlines()) if line.strip()), "")


def ending(path: Path) -> int | None:
    """The exit code of the last start; None if it has not said one: it still runs, or was killed."""
    found = ENDED.findall(last_start(path))
    return int(found[-1]) if found else None

