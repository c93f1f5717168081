"""The only place that names a file of a run."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mia_batch.files import not_written


@dataclass(frozen=True)
class RunPaths:
    """Names of the files of one run directory. A file at its final name is complete."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root).absolute())

    @property
    def manifest(self) -> Path:
        """What this run is: resolved config, digests of checkpoint and data, versions."""
        return self.root / "run.json"

    @property
    def features(self) -> Path:
        """Per-sample logits and loss; rows not yet computed are marked so in the file itself."""
        return self.root / "features.h5"

    @property
    def launch(self) -> Path:
        """Which rows were done before the last extraction began, and what is known of a crash since."""
        return self.root / ".launch"

    @property
    def attacks(self) -> Path:
        """Directory of the attacks' results."""
        return self.root / "attacks"

    def attack(self, name: str) -> Path:
        """Result of the attack `name`."""
        return self.attacks / f"{name}.h5"

    def journal(self, name: str) -> Path:
        """Finished tasks of an attack whose result is not there yet."""
        return self.attacks / f".{name}.journal"

    @property
    def summary_json(self) -> Path:
        """The reducer's summary."""
        return self.root / "summary.json"

    @property
    def summary_csv(self) -> Path:
        """The summary's metrics as rows."""
        return self.root / "summary.csv"

    @property
    def logs(self) -> Path:
        """Directory of the jobs' logs."""
        return self.root / "logs"

    @property
    def jobs(self) -> Path:
        """Ids of the scheduler's jobs for this run."""
        return self.root / "jobs.json"

    def create(self) -> None:
        """Make the run directory, or say in one line why that cannot be."""
        try:
            self.attacks.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise not_written(self.root, error, "--out: must be a directory that can be written") from error


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
