"""Exit codes, and how an exception of a command becomes one of them and one line."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable

from mia_batch.errors import InputError
from mia_batch.process.log_setup import set_up_logging
from mia_batch.process.stop import StopRequest
from mia_batch.report.media import terminal

OK, FAILED, BAD_INPUT, LEAK = 0, 1, 2, 3
INCONCLUSIVE = 4  # the audit cannot say, or the model or an attack is not evaluable
BY_OUTCOME = {"no leak": OK, "leak": LEAK, "inconclusive": INCONCLUSIVE}  # of an audit
RESUME = os.EX_TEMPFAIL  # 75: stopped by a signal, state saved, run the same command again
INTERRUPTED = 130
# The system refuses its user something; that is no fault of the program: one line, no traceback.
REFUSALS = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EIO,
    errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE, errno.EAGAIN,
})


def print_problems(error: InputError) -> None:
    """Print each problem of `error` as one line on standard error."""
    for line in problem_lines(error):
        print(line, file=sys.stderr, flush=True)


def problem_lines(error: InputError) -> list[str]:
    """Each problem of `error` as the line that standard error gets."""
    return ["mia-batch: " + terminal(" ".join(problem.split())) for problem in error.problems]


def run_main(main: Callable[[], int], *, prefix: str = "", verbose: bool = False) -> int:
    """Run `main` and turn its outcome into an exit code; unexpected errors keep their traceback and exit 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal's encoding has not is shown all the same
            stream.reconfigure(errors="backslashreplace")
    os.umask(0o077)  # what a run writes says who was in the training data: for its owner alone
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


def run_stoppable(
    stage: Callable[[argparse.Namespace, StopRequest], int], args: argparse.Namespace, *, prefix: str = ""
) -> int:
    """`run_main` for a stage that a signal may ask to stop."""
    with StopRequest().listening() as stop:
        return run_main(lambda: stage(args, stop), prefix=prefix, verbose=args.verbose)
