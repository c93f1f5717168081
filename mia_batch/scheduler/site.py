"""A site file: everything that differs from cluster to cluster, so that no script has to be edited."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mia_batch.errors import InputError, did_you_mean
from mia_batch.files import shipped
from mia_batch.mpi.launcher import own_mpirun
from mia_batch.rundir.state import ON_RANKS
from mia_batch.settings.json_schema import editor_schema
from mia_batch.settings.loading import read_yaml
from mia_batch.settings.schema import as_tuple, expand

STAGES = ("extract", "shadows", "references", "attack", "reduce")


def _as_words(value: Any) -> Any:
    return tuple(shlex.split(value)) if isinstance(value, str) else as_tuple(value)


Word = Annotated[str, Field(min_length=1)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_as_words)]
Names = Annotated[tuple[Word, ...], BeforeValidator(as_tuple)]
Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StageSite(_Strict):
    """What one stage asks of Slurm; null leaves it to the cluster.

    Attributes:
        nodes: sbatch --nodes.
        tasks_per_node: sbatch --ntasks-per-node; of extract, MPI ranks.
        cpus_per_task: sbatch --cpus-per-task.
        gres: sbatch --gres, such as gpu:8.
        memory: sbatch --mem, per node, such as 16G.
        time: sbatch --time, in quotes, such as "01:00:00".
        partition: instead of the site's.
        account: instead of the site's.
        options: more sbatch options, after the site's.
    """

    nodes: Count = 1
    tasks_per_node: Count = 1
    cpus_per_task: Count | None = None
    gres: Word | None = None
    memory: Word | None = None
    time: Word | None = None
    partition: Word | None = None
    account: Word | None = None
    options: Names = ()


class Site(_Strict):
    """One cluster, as its site file says; null leaves it to the cluster.

    Attributes:
        partition: sbatch --partition.
        account: sbatch --account.
        options: more sbatch options for every job.
        modules: module load, in this order.
        source: shell files sourced after that; relative to the site file.
        container: words before python, such as [apptainer, exec, image.sif].
        python: the interpreter that has mia_batch; null is the one that queues the jobs, in a container python3.
        launcher: starts one rank per task, such as mpirun or srun --mpi=pmix; null is the mpirun of that interpreter.
        at_once: of an array over many checkpoints, how many are extracted at the same time; of references, trained.
        on_worse: words of a command that nightly runs once for each verdict that got worse.
        shadows: trains reference models, one process for each.
        prepare: reads a user's source once, before an array.
        extract: runs the network, also with the weights of references, one MPI rank per task.
        attack: fits the attacks, one task each.
        reduce: makes metrics and verdict.
    """

    partition: Word | None = None
    account: Word | None = None
    options: Names = ()
    modules: Names = ()
    source: Names = ()
    container: Words = ()
    python: Word | None = None
    launcher: Annotated[Words, Field(min_length=1)] | None = None
    at_once: Count = 4
    on_worse: Words = ()
    shadows: StageSite = StageSite()
    prepare: StageSite = StageSite()
    extract: StageSite = StageSite()
    attack: StageSite = StageSite()
    reduce: StageSite = StageSite()

    def stage(self, name: str) -> StageSite:
        """What the stage `name` asks for; an import and a trajectory, one process each, for what the reducer does."""
        alike = {"import": "reduce", "trajectory": "reduce", "references": "extract"}
        found: StageSite = getattr(self, alike.get(name, name))
        return found

    def setup_words(self) -> list[str]:
        """The words by which the scripts in slurm/ know what to load and source."""
        return [f"module={name}" for name in self.modules] + [f"source={file}" for file in self.source]

    def command(self, stage: str) -> list[str]:
        """What starts Python: once, or where the network runs once per task."""
        python = self.python or ("python3" if self.container else sys.executable)
        launcher = (self.launcher or (own_mpirun(),)) if stage in ON_RANKS else ()
        return [*launcher, *self.container, python]


def site_schema() -> dict[str, Any]:
    """The JSON schema of a site file, for editors."""

    def line_or_list(schema: dict[str, Any]) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "minLength": 1}, schema]}

    forms = {f"Site.{name}": line_or_list for name in ("container", "launcher", "on_worse")}
    return editor_schema(Site, "Site file of mia_batch", forms)


def find_site(name: str | None) -> Path:
    """The file of a site given by path or by the name of one in configs/sites; None is $MIA_BATCH_SITE, else cpu.

    Raises:
        InputError: there is no such site.
    """
    name = name or os.environ.get("MIA_BATCH_SITE") or "cpu"
    folder = shipped("configs") / "sites"
    for path in (Path(name), folder / f"{name}.yaml"):
        if path.is_file():
            return path
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    raise InputError(f"--site: must be a file or one of {', '.join(known)}, got {name}{did_you_mean(name, known)}")


def load_site(path: Path) -> Site:
    """Read and check a site file.

    Raises:
        InputError: with every problem found, a line each.
    """
    try:
        site = Site.model_validate(read_yaml(path, "site", Site.model_fields))
    except ValidationError as error:
        raise InputError([_line(path, item) for item in error.errors()]) from error
    return site.model_copy(update={"source": tuple(_sourced(path, site.source))})


def _line(path: Path, item: Any) -> str:
    location = tuple(map(str, item["loc"]))
    field = ".".join(location)
    if item["type"] == "extra_forbidden":
        keys = (StageSite if len(location) > 1 else Site).model_fields
        near = did_you_mean(location[-1], keys)
        return f"{path}: {field}: unknown key; valid keys: {', '.join(keys)}{near}"
    rule = re.sub(r"^(Input|Value|Tuple) should", "must", str(item["msg"])).partition(" after validation")[0]
    rule = rule.replace("a valid string", "text in quotes").replace("a valid tuple", "a list")
    rule = rule.replace("a valid integer", "a number")
    return f"{path}: {field}: {rule}, got {item['input']!r}"


def _sourced(path: Path, files: Iterable[str]) -> list[str]:
    """Absolute names; a file that only the compute nodes have is not looked for here."""
    base = path.absolute().parent
    try:
        return [os.path.normpath(base / expand(file)) for file in files]
    except ValueError as error:
        raise InputError(f"{path}: source: {error}") from error
