"""In a batch log every line that a rank prints, or a library in it, begins with the rank's node and number."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PATIENCE_S = 5.0  # for the last lines; a child of the rank may hold its output open for longer
# The filter outlives the rank, to pass on its last lines, and the signals, which reach every process of a step.
FILTER = 'trap "" HUP INT TERM USR1 USR2; exec sed -u "s/^/$1 /"'


@contextmanager
def labelled(label: str, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Put `label` before each line of standard output and error, also of libraries; outside of a job, do nothing.
    """
    if "SLURM_JOB_ID" not in environ or not shutil.which("sed"):
        yield
        return
    _flush()
    kept = os.dup(1), os.dup(2)
    filters = [_redirect(stream, target, label) for stream, target in zip((1, 2), kept, strict=True)]
    try:
        yield
    finally:
        _flush()
        for stream, target in zip((1, 2), kept, strict=True):
            os.dup2(target, stream)
            os.close(target)
        for each in filters:
            try:
                each.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                continue


def _redirect(stream: int, target: int, label: str) -> subprocess.Popen[bytes]:
    """Send what is written to `stream` through a filter to `target`."""
    reading, writing = os.pipe()
    command = ["sh", "-c", FILTER, "sh", label.replace("/", "_")]
    running = subprocess.Popen(command, stdin=reading, stdout=target, stderr=target)
    os.close(reading)
    os.dup2(writing, stream)
    os.close(writing)
    return running


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
