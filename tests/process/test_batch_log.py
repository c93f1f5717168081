"""What a batch log holds: who said each line, and a progress line a minute."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mia_batch.process.progress import Progress, seconds_between_lines

SAYS = """
import os, signal, subprocess, sys
from mia_batch.mpi.rank_log import labelled
print("before")
with labelled("[n1 3]", {"SLURM_JOB_ID": "7"} if "in" in sys.argv else {}):
    print("from Python")
    os.write(1, b"from a library\\n")
    os.write(2, b"a warning\\n")
    subprocess.run(["sh", "-c", "echo from a child"])
    os.kill(os.getppid(), 0)
    if "die" in sys.argv:
        os.write(2, b"last words")
        os.killpg(0, signal.SIGUSR1)
print("after")
"""


def say(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SAYS, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, start_new_session=True)


def test_every_line_in_a_job_says_who() -> None:
    done = say("in")
    lines = ["before", "[n1 3] from Python", "[n1 3] from a library", "[n1 3] from a child", "after"]
    assert sorted(done.stdout.splitlines()) == sorted(lines)
    assert done.stderr == "[n1 3] a warning\n"


def test_the_last_words_of_a_rank_that_a_signal_kills_are_kept() -> None:
    done = say("in", "die")
    assert done.returncode < 0
    assert "[n1 3] last words" in done.stderr


def test_outside_of_a_job_lines_stay_as_they_are() -> None:
    assert say().stderr == "a warning\n"


def test_a_batch_log_gets_a_line_a_minute_with_speed_and_time_left() -> None:
    assert seconds_between_lines({"SLURM_JOB_ID": "7"}) == 60
    progress = Progress(1000, done=200, every=60)
    progress.done = 400
    assert progress.line(50.0) == "400/1000 samples (40 %), 4.0 samples/s, 150 s left"


def test_progress_is_said_when_its_time_has_come(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    monkeypatch.setattr("mia_batch.process.progress.time.monotonic", lambda: now[0])
    progress = Progress(100, every=60)
    caplog.set_level("INFO", "mia_batch.process.progress")
    for second in range(1, 200):
        now[0] = float(second)
        progress.add(second % 2)
    said = [record.getMessage().split(" samples")[0] for record in caplog.records]
    assert said == ["30/100", "60/100", "90/100", "100/100"]
