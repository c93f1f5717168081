"""Who may read what a run writes: its owner, and the group that `report.group` names. Nobody else ever."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mia_batch.errors import InputError
from mia_batch.rundir.manifest import Manifest

UMASK = 0o027  # files made from now on: read by the group
FOLDER_MODE, FILE_MODE = 0o2750, 0o640  # in such a folder what is made has its group


def share_run(root: Path, manifest: Manifest) -> None:
    """Let the group read all that is in a run directory and ours, and what this process makes there from now on.

    Raises:
        InputError: there is no such group, or its owner is not in it.
    """
    group = manifest.config.get("report", {}).get("group")
    if group is None:
        return
    os.umask(UMASK)
    for folder, _, files in os.walk(root):
        for path in (Path(folder), *(Path(folder, name) for name in files)):
            _share(path, group)


def _share(path: Path, group: str) -> None:
    try:
        if path.is_symlink() or path.stat().st_uid != os.geteuid():
            return
        shutil.chown(path, group=group)
        path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)
    except FileNotFoundError:  # a temporary file that has got its name
        return
    except (LookupError, OSError) as error:
        rule = "must be a group of users that you are in"
        raise InputError(f"report.group: {rule}, got {group!r}: {error}") from error
