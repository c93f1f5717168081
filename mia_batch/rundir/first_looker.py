"""The process that has the first look at HDF5 files: see `first_look`."""

from __future__ import annotations

import json
import math
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from mia_batch.errors import InputError, one_line
from mia_batch.rundir.first_look import READY, USERS
from mia_batch.rundir.hdf5 import look
from mia_batch.rundir.users_hdf5 import look_at_users

MEMORY = 2 << 30  # bytes of addresses


def problems_of(path: Path, kind: str, schemas: Sequence[int]) -> list[str]:
    """What is wrong with a file, a line for each problem."""
    try:
        if kind == USERS:
            look_at_users(path)
        else:
            look(path, kind, schemas)
    except InputError as error:
        return list(error.problems)
    except Exception as error:  # whatever HDF5 says of a damaged file
        whose = "" if kind == USERS else " of this product"
        return [f"{path}: must be an HDF5 file{whose} that can be read, got {one_line(error)}"]
    return []


def limit_time(seconds: int) -> None:
    """Have the kernel end this process when it takes so long of a core from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def main() -> None:
    """Answer a line for each line, until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    print(READY, flush=True)
    for line in sys.stdin:
        path, kind, schemas, seconds = json.loads(line)
        limit_time(seconds)
        print(json.dumps(problems_of(Path(path), kind, schemas)), flush=True)


if __name__ == "__main__":
    main()
