"""The log of a stage on this machine: everything that it prints, whatever becomes of it."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from mia_batch.errors import InputError
from mia_batch.locks import in_use
from mia_batch.process.child import run_stage
from mia_batch.process.stage_log import TAIL, StageLog, ending, kept, last_start, last_words
from mia_batch.process.stop import StoppedHere


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "logs" / "extract.log"


def run_python(path: Path, code: str) -> int:
    return run_stage([sys.executable, "-c", code], log=StageLog(path, "extract"))


def test_both_streams_are_shown_and_kept(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_python(path, "import os; os.write(1, b'out\\n'); os.write(2, b'err \\xff\\n')") == 0
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("out\n", "err \udcff\n") or shown.err.startswith("err")
    begun, *lines, ended = path.read_bytes().splitlines()
    assert begun.startswith(b"extract on ")
    assert sorted(lines) == [b"err \xff", b"out"]
    assert ended == b"extract ended with exit code 0"
    assert not in_use(path)


def test_much_output_blocks_nobody(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys\nfor i in range(20000): print('x' * 80); print('y' * 80, file=sys.stderr)"
    assert run_python(path, code) == 0
    capfd.readouterr()
    assert path.read_text().count("x" * 80) == path.read_text().count("y" * 80) == 20000


def test_how_it_has_ended_is_the_last_line(path: Path) -> None:
    for code, ends in (("raise SystemExit(2)", 2), ("import os; os.kill(os.getpid(), 9)", 137)):
        assert run_python(path, code) == ends
        assert ending(path) == ends
    assert path.read_text().count(", start ") == 2


def test_a_process_that_is_left_behind_does_not_hold_the_stage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mia_batch.process.child.LAST_WORDS_S", 0.1)
    began = time.monotonic()
    assert run_python(path, "import subprocess; subprocess.Popen(['sleep', '20']); print('said')") == 0
    assert time.monotonic() - began < 15
    assert ending(path) == 0


def test_a_fifo_in_its_place_costs_the_log_and_holds_nobody(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    assert run_python(path, "print('said')") == 0
    assert "said" in capfd.readouterr().out
    with pytest.raises(OSError, match="a FIFO"):
        last_start(path)


def test_without_a_directory_nothing_is_made_and_nothing_lost_once_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run" / "logs" / "import.log"
    log = StageLog(path, "import")
    log.say("early")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    log.say("late")
    assert in_use(path)
    log.end(0)
    assert path.read_text().splitlines()[1:] == ["early", "late", "import ended with exit code 0"]


def test_a_disk_that_is_full_costs_the_log_alone(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path.parent.mkdir()
    path.symlink_to("/dev/full")
    assert run_python(path, "print('x' * 200000)") == 0
    assert capfd.readouterr().out == "x" * 200000 + "\n"


def test_of_many_starts_the_last_one_speaks(path: Path) -> None:
    for words in ("mia-batch: first", "no line of ours"):
        log = StageLog(path, "extract")
        log.say(words)
        log.say("later lines")
        log.end(2)
    assert last_words(path) == "extract ended with exit code 2"
    log = StageLog(path, "extract")
    log.say("[n1 3] mia-batch: of a rank")
    log.say("mpirun: killed")
    assert (last_words(path), ending(path)) == ("mia-batch: of a rank", None)
    log.say("z" * (2 * TAIL))
    log.end(1)
    assert len(last_start(path)) <= TAIL
    assert ending(path) == 1


def test_what_this_process_logs_is_kept_and_an_error_has_its_traceback(path: Path) -> None:
    def work() -> int:
        logging.getLogger("mia_batch.x").warning("a \x1b[31mwarning")
        raise RuntimeError("broken")

    before = list(logging.getLogger("mia_batch").handlers)
    with pytest.raises(RuntimeError):
        kept(path, "reduce", work)
    assert logging.getLogger("mia_batch").handlers == before
    text = path.read_text()
    assert "warning" in text
    assert "RuntimeError: broken" in text
    assert ending(path) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoppedHere("SIGTERM"), 75), (KeyboardInterrupt(), 130), (InputError("a: must be b"), 2),
        (OSError(errno.EIO, "I/O error", "x.h5"), 2),
    ],
)  # fmt: skip
def test_how_a_stage_of_this_process_has_ended_is_kept(path: Path, error: BaseException, code: int) -> None:
    def work() -> int:
        raise error

    with pytest.raises(type(error)):
        kept(path, "reduce", work)
    assert ending(path) == code
    assert "Traceback" not in path.read_text()


def test_two_that_write_at_once_lose_no_line(path: Path) -> None:
    logs = [StageLog(path, "extract") for _ in range(2)]
    threads = [threading.Thread(target=lambda log=log: [log.say(f"line {i}") for i in range(500)]) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text().count("line ") == 1000
    for log in logs:
        log.end(0)
