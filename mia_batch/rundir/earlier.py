"""The audits of earlier checkpoints that an attack reads: `attack.trajectory`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mia_batch.errors import InputError
from mia_batch.rundir.identity import earlier_digest
from mia_batch.rundir.manifest import Manifest, read_manifest
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import Rows, read_rows


@dataclass(frozen=True)
class EarlierRun:
    """A run whose rows are all there: its files, its run.json, and what its features.h5 was made from."""

    paths: RunPaths
    manifest: Manifest
    rows: Rows


def earlier_field(number: int) -> str:
    """What a run of `attack.trajectory` is called."""
    return f"attack.trajectory[{number}]"


def open_earlier(folders: Sequence[Path]) -> list[EarlierRun]:
    """The runs in these directories.

    Raises:
        InputError: with a line for each that is no run directory, or lacks rows.
    """
    found, problems = [], []
    for number, folder in enumerate(folders):
        try:
            found.append(_open(folder))
        except InputError as error:
            problems += [f"{earlier_field(number)}: {line}" for line in error.problems]
    if problems:
        raise InputError(problems)
    return found


def _open(folder: Path) -> EarlierRun:
    paths, rule = RunPaths(folder), "must be the directory of a run whose rows are all done"
    manifest, rows = read_manifest(paths), read_rows(paths)
    if manifest is None or rows is None:
        missing = paths.manifest if manifest is None else paths.features
        raise InputError(f"{rule}, got {folder} without {missing.name}")
    if rows.done < rows.total:
        raise InputError(f"{rule}, got {folder} with {rows.done} of {rows.total}")
    return EarlierRun(paths, manifest, rows)


def earlier_digests(folders: Sequence[Path]) -> dict[str, str]:
    """What the runs in these directories hold, by field: a digest of all that their rows and references depend on.

    Raises:
        InputError: as of `open_earlier`.
    """
    runs = open_earlier(folders)
    return {earlier_field(i): earlier_digest(run.rows.origin.manifest, run.manifest) for i, run in enumerate(runs)}
