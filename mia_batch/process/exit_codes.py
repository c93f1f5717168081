"""Exit codes, and how an exception of a command becomes one of them and one line."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mia_batch.errors import InputError
from mia_batch.process.log_setup import set_up_logging
from mia_batch.process.stop import StoppedHere, StopRequest, ended_by_signals
from mia_batch.report.media import terminal

log = logging.getLogger(__name__)

OK, FAILED, BAD_INPUT, LEAK = 0, 1, 2, 3
INCONCLUSIVE = 4  # the audit cannot say, or the model or an attack is not evaluable
BY_OUTCOME = {"no leak": OK, "leak": LEAK, "inconclusive": INCONCLUSIVE}  # of an audit
RESUME = os.EX_TEMPFAIL  # 75: stopped by a signal, state saved, run the same command again
INTERRUPTED = 130
# The system refuses its user something; that is no fault of the program: one line, no traceback.
REFUSALS = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EIO,
    errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE, errno.EAGAIN, errno.EFBIG,
})
LINE_LENGTH = 1900  # characters of a problem: what a file holds may stand in it, however long that is
OF_HDF5 = re.compile(r"errno = (\d+)")  # where its messages have what the system has said


def print_problems(error: InputError) -> None:
    """Print each problem of `error` as one line on standard error."""
    for line in problem_lines(error):
        print(line, file=sys.stderr, flush=True)


def problem_lines(error: InputError) -> list[str]:
    """Each problem of `error` as the line that standard error gets, not too long."""
    lines = (terminal(" ".join(problem.split())) for problem in error.problems)
    return [f"mia-batch: {line[:LINE_LENGTH]}{'...' * (len(line) > LINE_LENGTH)}" for line in lines]


def run_main(main: Callable[[], int], *, prefix: str = "", verbose: bool = False, quiet: bool = False) -> int:
    """Run `main` and turn its outcome into an exit code; unexpected errors keep their traceback and exit 1."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding has not is shown all the same
            stream.reconfigure(errors="backslashreplace")
    os.umask(0o077)  # what a run writes says who was in the training data: for its owner alone
    set_up_logging(prefix, verbose=verbose, quiet=quiet)
    with _unclosed_in_a_line():
        return _code_of(main)


def _open_closed_streams() -> None:
    """Where the shell has closed a stream (`>&-`), the next file would get its number, and what is printed there."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


def _code_of(main: Callable[[], int]) -> int:
    try:
        return main()
    except InputError as error:
        print_problems(error)
        return BAD_INPUT
    except KeyboardInterrupt:
        return _interrupted()
    except MemoryError as error:
        print(f"mia-batch: out of memory: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (OSError, RuntimeError) as error:
        refused = refusal_of(error)
        if refused is None:
            raise
        print_problems(refused)
        return BAD_INPUT


@contextmanager
def _unclosed_in_a_line() -> Iterator[None]:
    """Log what HDF5 cannot write when its objects go, on a disk that is full: no caller is there who could be told."""
    former = sys.unraisablehook, sys.excepthook

    def say(unraisable: Any) -> None:
        refused = refusal_of(unraisable.exc_value)
        if refused is None:
            former[0](unraisable)
        else:
            log.warning("a file could not be closed: %s", refused)

    def show(kind: Any, error: BaseException, trace: Any) -> None:
        if refusal_of(error) is None:  # else Cython shows, with its traceback, what `say` says next
            former[1](kind, error, trace)

    sys.unraisablehook, sys.excepthook = say, show
    try:
        yield
    finally:
        sys.unraisablehook, sys.excepthook = former


def refusal_of(error: BaseException | None) -> InputError | None:
    """What the system has refused, as one line; None where the exception says something else.

    HDF5 raises RuntimeError where a file cannot be closed. What was refused before, as a file was closed because of it,
    is what is said.
    """
    if isinstance(error, InputError):
        return error
    number = _number_of(error)
    if error is None or number is None:
        return None
    before = refusal_of(error.__context__)
    if before or number not in REFUSALS:
        return before
    where, said = (getattr(error, name, None) for name in ("filename", "strerror"))
    return InputError(f"{where or 'system'}: {said or os.strerror(number)}")


def _number_of(error: BaseException | None) -> int | None:
    """What the system has said by an exception; None where it has said nothing."""
    found = OF_HDF5.search(str(error)) if isinstance(error, OSError | RuntimeError) else None
    return int(found[1]) if found else error.errno if isinstance(error, OSError) else None


def _interrupted() -> int:
    print("mia-batch: interrupted", file=sys.stderr)
    return INTERRUPTED


def run_endable(main: Callable[[], int]) -> int:
    """`main` with an exit code also where a signal ends it: whatever it writes is whole or not there, at any moment."""
    try:
        with ended_by_signals():
            return main()
    except StoppedHere as stopped:
        print(f"mia-batch: stopped by {stopped}; the same command goes on from there", file=sys.stderr)
        return RESUME
    except KeyboardInterrupt:
        return _interrupted()


def run_stoppable(
    stage: Callable[[argparse.Namespace, StopRequest], int], args: argparse.Namespace, *, prefix: str = ""
) -> int:
    """`run_main` for a stage that a signal may ask to stop."""
    with StopRequest().listening() as stop:
        return run_main(lambda: stage(args, stop), prefix=prefix, verbose=args.verbose, quiet=args.quiet)
