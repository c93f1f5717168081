"""What every entry point shares: logging set up once, exit codes, and errors as one line."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from mia_batch.errors import InputError

OK, FAILED, BAD_INPUT, LEAK = 0, 1, 2, 3
RESUME = os.EX_TEMPFAIL  # 75: stopped by a signal, state saved, run the same command again
INTERRUPTED = 130

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# What a system refuses its user, not a fault of the program: one line, no traceback.
REFUSALS = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EIO,
    errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE, errno.EAGAIN,
})

log = logging.getLogger(__name__)


class StopRequest:
    """A flag that SIGTERM, SIGUSR1 and Ctrl-C raise; loops look at it at block boundaries.

    Schedulers send one of the first two before they kill; MindSpore leaves both free. It takes HUP and INT for itself
    when it is imported; Ctrl-C before that is noted here, and a second one ends the process at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signum

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Install the handlers for the length of the block, then put the former ones back."""
        former = {signum: signal.signal(signum, self._note) for signum in (*STOP_SIGNALS, signal.SIGINT)}
        try:
            yield self
        finally:
            for signum, handler in former.items():
                signal.signal(signum, handler)


def set_up_logging(prefix: str = "", *, verbose: bool = False) -> None:
    """Log to standard error, one line a record, `prefix` (stage, rank) first."""
    handler = logging.StreamHandler(sys.stderr)
    lead = f"{prefix} " if prefix else ""
    handler.setFormatter(logging.Formatter(f"%(asctime)s {lead}%(levelname).1s %(message)s", "%H:%M:%S"))
    package = logging.getLogger("mia_batch")
    package.handlers[:] = [handler]
    package.setLevel(logging.DEBUG if verbose else logging.INFO)
    package.propagate = False
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers[:] = [handler]


def print_problems(error: InputError) -> None:
    """Print each problem of `error` as one line on standard error."""
    for problem in error.problems:
        print("mia-batch: " + " ".join(problem.split()), file=sys.stderr, flush=True)


def run_main(main: Callable[[], int], *, prefix: str = "", verbose: bool = False) -> int:
    """Run `main` and turn its outcome into an exit code; unexpected errors keep their traceback and exit 1."""
    set_up_logging(prefix, verbose=verbose)
    try:
        return main()
    except InputError as error:
        print_problems(error)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("mia-batch: interrupted", file=sys.stderr)
        return INTERRUPTED
    except MemoryError as error:
        print(f"mia-batch: out of memory: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        print_problems(InputError(f"{error.filename or 'system'}: {error.strerror}"))
        return BAD_INPUT
