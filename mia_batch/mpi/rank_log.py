"""Who said it: in a batch log, every line that a rank prints begins with its node and rank, whoever printed it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PATIENCE_S = 5.0  # for the last lines; a child of the rank may hold its output open for longer
# A filter that outlives the rank, to pass on its last words, and its signals, which reach every process of a step.
FILTER = 'trap "" HUP INT TERM USR1 USR2; exec sed -u "s/^/$1 /"'


@contextmanager
def labelled(label: str, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Put `label` before each line of standard output and error, also those of libraries, inside a scheduler's job.

    Outside of one, lines are for somebody who knows what was started, and stay as they are.
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
    """Have what is written to `stream` go through a filter to `target`."""
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
