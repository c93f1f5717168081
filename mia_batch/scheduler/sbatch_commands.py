"""The sbatch commands of an audit, as lists of words, so that no path needs quoting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mia_batch.files import shipped
from mia_batch.report.media import shell
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.state import ON_RANKS
from mia_batch.scheduler.site import Site
from mia_batch.scheduler.slurm import cluster_of, number

# Each stage waits, of each of these groups, for the first that is queued too.
AFTER = {
    "extract": (("prepare",),), "references": (("shadows",), ("extract", "prepare")),
    "attack": (("references", "extract", "import"),), "reduce": (("attack", "references", "extract", "import"),),
    "trajectory": (("reduce", "attack", "references", "extract", "import"),),
}  # fmt: skip
FOR_ALL = ("prepare", "shadows")  # of an array over checkpoints, what every task waits for
TASKS = {"shadows": "models", "references": "references", "attack": "methods"}  # what a Request has of a single run's


@dataclass(frozen=True)
class Request:
    """What is to be queued.

    Attributes:
        config: the configuration's file, absolute.
        out: where the jobs' logs go: the run directory, or the directory that holds many of them.
        words: for every script, after CONFIG, DIR and the site's words.
        stages: the ones of STAGES that are not done, perhaps after "prepare" or before "trajectory".
        methods: attacks, one task of the attack stage's array each; empty: each task does all of them.
        n_tasks: checkpoints in the array, or 0 for a single run.
        prepared: where the array's data goes, for "prepare".
        models: numbers of the reference models to train, for "shadows".
        shadows: their folder.
        references: numbers of the outputs that are to be made, a task each; empty: one job, or each task, makes all.
        exports: for every script, before the site's words, which may overrule them.
        array_size: the first index that is too high for an array's task; 0: none is.
        first: the number of a model or a reference that an array's task 0 does.
        queued: names of jobs that wait already, which train models for several arrays of checkpoints.
    """

    config: Path
    out: Path
    site: Site
    words: tuple[str, ...] = ()
    stages: tuple[str, ...] = ("extract", "attack", "reduce")
    methods: tuple[str, ...] = ()
    n_tasks: int = 0
    prepared: Path | None = None
    models: tuple[int, ...] = ()
    shadows: Path | None = None
    references: tuple[int, ...] = ()
    exports: tuple[str, ...] = ()
    array_size: int = 0
    first: int = 0
    queued: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One sbatch command.

    Attributes:
        name: the stage; of the second part of a stage's array "attack 2", and so on.
        options: for sbatch.
        script: and its words.
        after: kinds of dependencies, and the names of the steps that it waits for.
    """

    name: str
    options: tuple[str, ...]
    script: tuple[str, ...]
    after: tuple[tuple[str, str], ...] = ()

    def command(self, job_ids: Mapping[str, str]) -> list[str]:
        """The command's words; `job_ids` are those of the steps queued before, by name."""
        waits: list[str] = []
        if self.after:
            found = ",".join(f"{kind}:{number(job_ids[name])}" for kind, name in self.after)
            waits = [f"--dependency={found}", "--kill-on-invalid-dep=yes"]  # else it waits for ever
            cluster = cluster_of(job_ids[self.after[0][1]])  # jobs wait for none of another's
            waits += [f"--clusters={cluster}"] if cluster else []
        return ["sbatch", "--parsable", *self.options, *waits, *self.script]


def plan_chain(request: Request) -> list[Step]:
    """The jobs of a request. Each waits until what it reads is made; in an array, each task for its own.

    A trajectory is of whatever audits there are: it waits until the array has ended. Of a stage whose tasks are more
    than the site's arrays hold there are several jobs, and all of them are waited for.
    """
    steps: list[Step] = []
    for stage in request.stages:
        before = [*request.queued, *(step.name for step in steps)]
        waits = tuple(_waits(request, stage, before))
        for place, part in enumerate(_parts(request, stage), start=1):
            name = part_name(stage, place)
            steps.append(Step(name, tuple(_options(part, stage)), tuple(_script(part, stage)), waits))
    return steps


def part_name(stage: str, part: int) -> str:
    """What the job of a part of a stage is called, from 1."""
    return stage if part == 1 else f"{stage} {part}"


def stage_of(name: str) -> str:
    """The stage of a job's name."""
    return name.partition(" ")[0]


def _parts(request: Request, stage: str) -> list[Request]:
    """The request with each part of the stage's tasks that an array can hold; what runs at a time is divided."""
    field, size = TASKS.get(stage), request.array_size
    tasks = getattr(request, field) if field and not (request.n_tasks and stage != "shadows") else ()
    places = range(len(tasks)) if stage == "attack" else tasks
    blocks: dict[int, list[Any]] = {}
    for place, task in zip(places, tasks, strict=True):
        blocks.setdefault(place // size if size else 0, []).append(task)
    if not field or not any(blocks):  # all are below the size
        return [request]
    site = request.site.model_copy(update={"at_once": max(1, request.site.at_once // len(blocks))})
    own: list[dict[str, Any]] = [{"first": block * size, field: tuple(part)} for block, part in blocks.items()]
    return [replace(request, site=site, **changes) for changes in own]


def _waits(request: Request, stage: str, before: Sequence[str]) -> Iterator[tuple[str, str]]:
    for group in AFTER.get(stage, ()):
        for other in group:
            names = [name for name in before if stage_of(name) == other]
            kind = "aftercorr" if request.n_tasks and other not in FOR_ALL else "afterok"
            yield from (("afterany" if stage == "trajectory" else kind, name) for name in names)
            if names:
                break


def _options(request: Request, stage: str) -> list[str]:
    site, ask = request.site, request.site.stage(stage)
    wanted = {
        "job-name": f"mia-{stage}",
        "output": _log_pattern(request, stage),
        "array": _array(request, stage),
        "partition": ask.partition or site.partition,
        "account": ask.account or site.account,
        "nodes": ask.nodes,
        "ntasks-per-node": ask.tasks_per_node,
        "cpus-per-task": ask.cpus_per_task,
        "gres": ask.gres,
        "mem": ask.memory,
        "time": ask.time,
    }
    return [f"--{name}={value}" for name, value in wanted.items() if value is not None] + [*site.options, *ask.options]


def _array(request: Request, stage: str) -> str | None:
    if stage in ("prepare", "trajectory"):
        return None
    if stage == "shadows":
        return f"{_ranges(request.models, request.first)}%{request.site.at_once}"
    if stage == "references" and request.references and not request.n_tasks:
        return f"{_ranges(request.references, request.first)}%{request.site.at_once}"
    if request.n_tasks:
        return f"0-{request.n_tasks - 1}" + (f"%{request.site.at_once}" if stage in ON_RANKS else "")
    return f"0-{len(request.methods) - 1}" if stage == "attack" and request.methods else None


def _ranges(tasks: Sequence[int], first: int) -> str:
    """Ascending tasks, of which `first` has the number 0, as --array takes them: 0-3,7."""
    numbers = [task - first for task in tasks]
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    ranges = zip(starts, ends, strict=True)
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ranges)


def _folder(request: Request, stage: str) -> Path:
    """DIR of a stage's script."""
    own = {"prepare": request.prepared, "shadows": request.shadows}.get(stage)
    return own or request.out


def _log_pattern(request: Request, stage: str) -> str:
    # The tasks of many checkpoints share one file: it has what they print before their own run directory is there.
    many = _array(request, stage) is not None and request.n_tasks > 0 and stage not in FOR_ALL
    name = f"{stage}-%A.log" if many else f"{stage}-%A_%a.log" if _array(request, stage) else f"{stage}-%j.log"
    folder = _folder(request, stage) if stage == "shadows" else request.out
    return str(RunPaths(folder).logs).replace("%", "%%") + f"/{name}"


def _script(request: Request, stage: str) -> list[str]:
    own = (word for word in request.words if _is_for(stage, word))
    words = [*request.exports, *request.site.setup_words(), *own]
    if stage == "attack" and not request.n_tasks:
        words += [f"method={name}" for name in request.methods]
    if stage in ("shadows", "references") and request.first:
        words.append(f"first={request.first}")
    if stage in ON_RANKS and request.prepared:
        words.append(f"prepared={request.prepared}")
    script = str(shipped("slurm") / f"{stage}.sbatch")
    return [script, str(request.config), str(_folder(request, stage)), *words, "--", *request.site.command(stage)]


def _is_for(stage: str, word: str) -> bool:
    if stage == "shadows":  # of no audit alone
        return word.startswith("set=")
    return stage != "trajectory" or not word.startswith("list=")  # of all runs in the directory, not of the array's


def shell_lines(steps: Sequence[Step]) -> list[str]:
    """The commands as lines for a shell, which puts each job's id into a variable of the step's name: attack_2."""
    variables = {step.name: step.name.replace(" ", "_") for step in steps}
    ids = {name: f"${variable}" for name, variable in variables.items()}
    return [f"{variables[step.name]}=$({' '.join(map(_quote, step.command(ids)))})" for step in steps]


def _quote(word: str) -> str:
    return word if word.startswith("--dependency=") else shell(word)
