"""The only place that names a file of a run, or of a store of references."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from mia_batch.errors import InputError
from mia_batch.files import not_written


class RunPaths:
    """Names of the files of one run directory. A file at its final name is complete."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).absolute()
        self.manifest = self.root / "run.json"  # what this run is: config, digests of checkpoint and data, versions
        self.lock = self.root / ".run.lock"  # held while run.json is changed
        self.features = self.root / "features.h5"  # logits and loss of each sample, and which rows are computed
        self.launch = self.root / ".launch"  # rows done before the last extraction, and what is known of a crash since
        self.attacks = self.root / "attacks"  # directory of the attacks' results
        self.summary_json = self.root / "summary.json"  # the reducer's summary
        self.summary_csv = self.root / "summary.csv"  # its metrics as rows
        self.records = self.root / "records.csv"  # what each attack says of each sample
        self.page = self.root / "report.html"  # all of it for people
        self.shadows = self.root / "shadows"  # directory of the reference models that were trained for this run
        self.logs = self.root / "logs"  # directory of the stages' logs
        self.jobs = self.root / "jobs.json"  # ids of the scheduler's jobs for this run

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunPaths) and self.root == other.root

    def __hash__(self) -> int:
        return hash(self.root)

    def attack(self, name: str) -> Path:
        """Result of the attack `name`."""
        return self.attacks / f"{name}.h5"

    def journal(self, name: str) -> Path:
        """Finished tasks of an attack whose result is not there yet."""
        return self.attacks / f".{name}.journal"

    def reference_launch(self, only: int | None) -> Path:
        """Names the launch file of the reference that a job is at: of one task of an array, or of a job for all."""
        return self.root / f".references{'' if only is None else f'-{only}'}.launch"

    def job_log(self, stage: str, job: str) -> Path:
        """What a stage's job has printed, such as 12_3."""
        return self.logs / f"{stage}-{job}.log"

    def local_log(self, stage: str) -> Path:
        """What a stage has printed on machines without a scheduler, one start below the other."""
        return self.logs / f"{stage}.log"

    def create(self) -> None:
        """Make the run directory, or say in one line why that cannot be."""
        try:
            self.attacks.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise not_written(self.root, error, "--out: must be a directory that can be written") from error


class ReferencePaths:
    """Names of the files of one reference's outputs in a store. The first is complete where it is there."""

    def __init__(self, store: Path, key: str) -> None:
        self.key = key
        self.outputs = store / f"{key}.h5"
        self.partial = store / f".{key}.h5"  # while it is filled
        self.launch = store / f".{key}.launch"  # as that of a run, of this reference alone


def refuse_links(paths: RunPaths) -> None:
    """Refuse links within a run directory, which may lead anywhere; the directory itself may be one.

    Raises:
        InputError: there is one.
    """
    for folder in (paths.root, paths.attacks):
        try:
            links = [entry.path for entry in os.scandir(folder) if entry.is_symlink()]
        except OSError:  # which is said of the file that is to be read there
            continue
        if links:
            raise InputError(f"{min(links)}: must be no link: those within a run directory are not followed")


def runs_in(folder: Path) -> list[RunPaths]:
    """The run directories in `folder`, by name; none if there is no such folder."""
    found = [RunPaths(each) for each in sorted(folder.iterdir())] if folder.is_dir() else []
    return [paths for paths in found if _may_be_run(paths)]


def _may_be_run(paths: RunPaths) -> bool:
    """Whether there is a run.json; a directory that does not let us look is shown as one that cannot be read."""
    try:
        return paths.manifest.exists()
    except OSError:
        return True
