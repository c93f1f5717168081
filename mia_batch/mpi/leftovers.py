"""Shared memory of MPI that killed ranks have left on this host: 2 MB of it stay for each job, until somebody acts."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")  # nosec B108
SEGMENTS = ("mpich_shm_*", "mpich_shar_tmp*", "sm_segment.*", "vader_segment.*")  # MPICH's and Open MPI's
PROCESSES = Path("/proc")
# Ranks of a job map its segment within seconds. A process that we cannot see, as of another container, has mapped it
# long before, and keeps what it has mapped.
AT_LEAST_S = 600.0


def remove_left_segments(folder: Path = FOLDER, *, at_least_s: float = AT_LEAST_S) -> list[Path]:
    """Remove segments that are this user's, and that no process has mapped or open any more; returns which.

    Args:
        folder: where they are.
        at_least_s: seconds since their last change.
    """
    old = [path for path in _own_segments(folder) if time.time() - path.stat().st_mtime >= at_least_s]
    if not old:
        return []
    used = set(_used())
    left = [path for path in old if str(path) not in used]
    for path in left:
        path.unlink(missing_ok=True)
        log.info("removed %s, which ranks that were killed have left", path)
    return left


def _own_segments(folder: Path) -> Iterator[Path]:
    for pattern in SEGMENTS:
        for path in folder.glob(pattern):
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
                yield path


def _used() -> Iterator[str]:
    """Names of files that this user's processes have mapped or open; those of others cannot have ours."""
    for process in PROCESSES.glob("[0-9]*"):
        try:
            with open(process / "maps", encoding="utf-8", errors="surrogateescape") as maps:
                yield from (line.split(maxsplit=5)[-1].rstrip("\n") for line in maps if "/" in line)
            yield from (os.readlink(each) for each in (process / "fd").iterdir())
        except OSError:  # it has ended, or is another user's
            continue
