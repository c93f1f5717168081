"""What every entry point shares: exit codes, one line for what a system refuses, signals."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mia_batch.errors import InputError
from mia_batch.process.child import run_stage
from mia_batch.process.exit_codes import BAD_INPUT, FAILED, INTERRUPTED, RESUME, run_endable, run_main
from mia_batch.process.stop import StopRequest


def raises(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(errno.ENOSPC, "No space left", "x.h5"), BAD_INPUT, "mia-batch: x.h5: No space left"),
        (OSError(errno.EMFILE, "Too many open files"), BAD_INPUT, "mia-batch: system: Too many open files"),
        (MemoryError("Unable to allocate 1 TiB"), FAILED, "mia-batch: out of memory: Unable to allocate 1 TiB"),
        (InputError(["a: one", "b:\ntwo"]), BAD_INPUT, "mia-batch: a: one\nmia-batch: b: two"),
        (InputError("x" * 9999), BAD_INPUT, f"mia-batch: {'x' * 1900}..."),
        (InputError("x" * 1900), BAD_INPUT, f"mia-batch: {'x' * 1900}"),
    ],
)
def test_what_is_said_in_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(lambda: raises(error)) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    with pytest.raises(FileNotFoundError):
        run_main(lambda: raises(FileNotFoundError(errno.ENOENT, "gone")))


def in_finally(first: BaseException, second: BaseException) -> int:
    try:
        raise first
    finally:
        raise second


OF_HDF5 = "Can't decrement id ref count (file write failed: errno = 5, error message = 'Input/output error')"


@pytest.mark.parametrize(
    ("first", "second", "line"),
    [
        (InputError("x.h5: the disk is full"), RuntimeError(OF_HDF5), "x.h5: the disk is full"),
        (OSError(errno.EROFS, "Read-only", "y"), OSError(errno.EIO, "I/O error", "z"), "y: Read-only"),
        (KeyError("of no use"), RuntimeError(OF_HDF5), "system: Input/output error"),
    ],
)
def test_what_was_refused_first_is_said(
    first: BaseException, second: BaseException, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(lambda: in_finally(first, second)) == BAD_INPUT
    assert capsys.readouterr().err == f"mia-batch: {line}\n"


class Unclosed:
    """Raises when it goes, as h5py's objects do."""

    def __init__(self, said: str) -> None:
        self.said = said

    def __del__(self) -> None:
        raise RuntimeError(self.said)


def test_what_cannot_be_written_when_it_goes_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    former = sys.unraisablehook, sys.excepthook

    def main() -> int:
        error = RuntimeError(OF_HDF5)
        sys.excepthook(RuntimeError, error, error.__traceback__)  # as Cython does before
        return bool(Unclosed(OF_HDF5)) and 3

    assert run_main(main) == 3
    said = capsys.readouterr().err
    assert said.splitlines()[-1].endswith("a file could not be closed: system: Input/output error")
    assert "Traceback" not in said
    assert (sys.unraisablehook, sys.excepthook) == former


def test_a_fault_of_the_program_while_something_is_closed_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError):
        run_main(lambda: in_finally(InputError("a: must be b"), RuntimeError("errno is not said")))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_ends_what_has_nothing_to_save_once(signum: int, capsys: pytest.CaptureFixture[str]) -> None:
    undone: list[str] = []

    def main() -> int:
        try:
            try:
                os.kill(os.getpid(), signum)
                undone.append("went on")
            except Exception:
                undone.append("took it for an error")
        finally:
            os.kill(os.getpid(), signum)  # Slurm may send it to the job and to each step
        return 0

    assert run_endable(lambda: run_main(main)) == RESUME
    assert not undone
    assert capsys.readouterr().err.startswith(f"mia-batch: stopped by {signal.Signals(signum).name};")
    assert signal.getsignal(signum) == signal.SIG_DFL


def test_ctrl_c_before_anything_runs_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_endable(lambda: raises(KeyboardInterrupt())) == INTERRUPTED
    assert capsys.readouterr().err == "mia-batch: interrupted\n"


def test_ctrl_c_is_a_request_to_stop_and_a_second_one_an_end() -> None:
    with StopRequest().listening() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_stage_that_a_signal_ends_before_it_listens_can_be_resumed() -> None:
    kill_parent = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(30)"
    started = time.monotonic()
    assert run_stage([sys.executable, "-c", kill_parent]) == RESUME
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_no_stage_follows_one_that_was_asked_to_stop_and_was_done(signum: int) -> None:
    code = f"""
import os, signal, time
signal.signal(signal.SIGUSR1, lambda *_: exit(0))
os.kill(os.getppid(), {int(signum)})
time.sleep(30)
"""
    assert run_stage([sys.executable, "-c", code]) == RESUME


def test_ctrl_c_lets_the_stage_end_by_itself() -> None:
    """The terminal sends SIGINT to all; the stage does not see it, and is asked to stop as a scheduler would ask."""
    code = """
import os, signal, time
parent = os.getppid()
signal.signal(signal.SIGUSR1, lambda *_: exit(75))
os.kill(os.getpid(), signal.SIGINT)
os.kill(parent, signal.SIGINT)
time.sleep(30)
"""
    with pytest.raises(KeyboardInterrupt):
        run_stage([sys.executable, "-c", code])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_stage_ends_with_the_process_that_runs_it() -> None:
    stage = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    code = f"import sys; from mia_batch.process.child import run_stage; run_stage([sys.executable, '-c', {stage!r}])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        stage_process = psutil.Process(int(runner.stdout.readline()))
        runner.kill()
        assert stage_process.wait(10) is None


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_a_stream_that_the_shell_has_closed(closed: tuple[int, ...], tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from mia_batch.process.exit_codes import run_main\n"
        "def main():\n"
        "    file = os.open('file', os.O_CREAT | os.O_WRONLY)\n"
        "    os.system('echo child; echo child >&2')\n"
        "    print('x', file=sys.stderr, flush=True)\n"
        "    print('x', flush=True)\n"
        "    return 7 if file > 2 and not sys.stdout.isatty() and sys.stdout.buffer else 8\n"
        "sys.exit(run_main(main))\n"
    )
    command = f"exec {sys.executable} -c \"$CODE\" {' '.join(f'{number}>&-' for number in closed)}"
    environ = {**os.environ, "CODE": code, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environ, check=False).returncode == 7
    assert not (tmp_path / "file").read_bytes()
