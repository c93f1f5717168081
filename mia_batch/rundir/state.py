"""THE answer to what of a run is done, running, queued, failed, partial, stale or missing, and why.

The files say it, by the manifest in force: the one in run.json, or the one that a command is about to put there. What a
scheduler says of the jobs is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mia_batch.attacks.base import BLIND
from mia_batch.errors import InputError, one_line
from mia_batch.locks import in_use
from mia_batch.report.best import figures_of
from mia_batch.report.summary import read_summary
from mia_batch.rundir.crashes import rows_before_crash
from mia_batch.rundir.features import features_origin, features_progress, features_samples, is_sealed
from mia_batch.rundir.identity import Origin, attack_marks, differences, features_identity, verdict_identity
from mia_batch.rundir.journal import tasks_done
from mia_batch.rundir.manifest import Manifest, read_manifest
from mia_batch.rundir.paths import ReferencePaths, RunPaths
from mia_batch.rundir.reference_store import reference_fields, reference_paths, rows_done
from mia_batch.rundir.results import read_mark
from mia_batch.rundir.shadows import ShadowPaths
from mia_batch.settings.schema import FROM_FILES

FIRST = ("extract", "import")  # the stage that makes features.h5: of a network, and of outputs from files
SHADOWS, REFERENCES = "shadows", "references"
ON_RANKS = ("extract", REFERENCES)  # run the network
NOT_EVALUABLE = "not evaluable:"  # begins the detail of an attack that has failed, which the reducer takes as it is
SAID_OF = {"no leak": "no leak found"}  # of a verdict's outcome


@dataclass(frozen=True)
class StageStatus:
    """One stage, or one attack.

    Attributes:
        stage: "extract", "attack lr", "reduce"; "run" where run.json cannot be read.
        state: done; running (a process writes, or the job runs); queued; failed (the job has ended without a result);
            partial (some of it is done, and no job is known to go on); stale (done with another config); missing;
            damaged; not started (one before it has failed).
        detail: how much is done, or what is wrong.
        job: the last job, its state and why it waits, such as "12_3 PENDING (Resources)"; empty without one.
        figures: of a verdict, those of the best attack.
        log: the file with what the last start has printed; empty where it is not known.
        said: of a stage that has failed, the line that says why.
    """

    stage: str
    state: str
    detail: str
    job: str = ""
    figures: str = ""
    log: str = ""
    said: str = ""

    @property
    def attack(self) -> str | None:
        """The attack's name, if it is one."""
        return self.stage.removeprefix("attack ") if self.stage.startswith("attack ") else None


@dataclass(frozen=True)
class JobState:
    """What a scheduler says of a stage's last job.

    Attributes:
        text: for people, such as "12_3 PENDING (Resources)".
        state: "queued", "running" or "failed"; empty where it says nothing about the stage.
    """

    text: str
    state: str = ""


@dataclass(frozen=True)
class Left:
    """What is not done: stages, in the order extract or import, shadows, references, attack, reduce; and attacks."""

    stages: tuple[str, ...]
    attacks: tuple[str, ...]


def read_state(paths: RunPaths, manifest: Manifest | None = None) -> list[StageStatus]:
    """The stages of a run in order, the attacks one by one.

    Args:
        paths: of the run.
        manifest: in force; without one, the one in run.json.
    """
    try:
        manifest = manifest or read_manifest(paths)
        return _stages(paths, manifest) if manifest else [StageStatus("run", "missing", f"no {paths.manifest.name}")]
    except InputError as error:
        return [StageStatus("run", "damaged", str(error))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [StageStatus("run", "damaged", f"{paths.manifest}: must be as a run writes it, got {one_line(error)}")]


def _stages(paths: RunPaths, manifest: Manifest) -> list[StageStatus]:
    attacks, reduce = attack_statuses(paths, manifest), reduce_status(paths, manifest)
    if reduce.state == "done":  # a verdict of the version before, which had no baseline, does not lack it
        attacks = [each for each in attacks if each.attack != BLIND or each.state != "missing"]
    section = manifest.config.get(REFERENCES, {})
    folder, references = section.get(SHADOWS), [references_status(paths, manifest)] if section else []
    shadows = [shadows_status(ShadowPaths(Path(folder)), section["count"])] if folder else []
    return [extract_status(paths, manifest), *shadows, *references, *attacks, reduce]


def with_jobs(stages: Sequence[StageStatus], jobs: Mapping[str, JobState]) -> list[StageStatus]:
    """Add what a scheduler says of the jobs to the stages that are not done; a writer's lock outweighs it."""
    return [
        replace(each, job=job.text, state=each.state if each.state == "running" else job.state or each.state)
        if each.state != "done" and (job := jobs.get(each.stage)) else each
        for each in stages
    ]


def furthest(stages: Sequence[StageStatus]) -> StageStatus:
    """Where a run is: at its first stage that is not done, or its last."""
    return next((stage for stage in stages if stage.state != "done"), stages[-1])


def left_to_do(stages: Sequence[StageStatus]) -> Left:
    """What is still to be computed. A verdict that cannot be read is written anew.

    Raises:
        InputError: with a line for each file of another stage that is damaged, which nobody overwrites.
    """
    damaged = [each.detail for each in stages if each.state == "damaged" and each.stage != "reduce"]
    if damaged:
        raise InputError(list(dict.fromkeys(damaged)))
    undone = [each for each in stages if each.state != "done"]
    attacks = tuple(each.attack for each in undone if each.attack)
    first = next((each.stage for each in undone[:1] if each.stage in FIRST), FIRST[0])
    names = {each.stage for each in undone}
    wanted = {
        first: first in names, SHADOWS: SHADOWS in names, REFERENCES: REFERENCES in names, "attack": attacks,
        "reduce": undone,
    }  # fmt: skip
    return Left(tuple(stage for stage, wants in wanted.items() if wants), attacks)


@dataclass(frozen=True)
class Rows:
    """features.h5, also while a process writes it.

    Attributes:
        done: rows that are.
        total: rows in all.
        sealed: whether its writer has finished it.
        writing: whether a process has it open to write.
        origin: what the rows are made from.
    """

    done: int
    total: int
    sealed: bool
    writing: bool
    origin: Origin

    @property
    def complete(self) -> bool:
        """Whether the file can be read as features."""
        return self.done == self.total and self.sealed

    @property
    def held(self) -> bool:
        """Whether the rows keep the run directory for their run: before the first row they do not."""
        return self.done > 0 or self.writing

    def differences(self, manifest: Manifest) -> list[str]:
        """In words, what differs from `manifest`."""
        return differences(features_identity(self.origin.manifest), features_identity(manifest))


def read_rows(paths: RunPaths) -> Rows | None:
    """The rows of a run, less those of a launch that has crashed; None without features.h5.

    Raises:
        InputError: features.h5 cannot be read.
    """
    progress, origin = features_progress(paths.features), features_origin(paths.features)
    if progress is None or origin is None:
        return None
    done, total = progress
    before = rows_before_crash(paths, total)
    done = done if before is None else int(before.sum())
    sealed = is_sealed(paths.features)
    return Rows(done, total, sealed, not (done == total and sealed) and in_use(paths.features), origin)


def extract_status(paths: RunPaths, manifest: Manifest) -> StageStatus:
    """The stage extract, or import: done when every row is done, for this model, data and extraction."""

    def look() -> tuple[str, str]:
        rows = read_rows(paths)
        found = rows.differences(manifest) if rows else []
        if rows is None or (found and not rows.held):
            return "missing", "no rows yet"
        if found:
            return "stale", f"rows of another run: {found[0]}"
        state = "done" if rows.complete else "running" if rows.writing else "partial"
        return state, f"{rows.done} of {rows.total} rows"

    stage = FIRST[1] if manifest.config.get("data", {}).get("source") == FROM_FILES else FIRST[0]
    return _status(stage, paths.features, look)


def shadows_status(paths: ShadowPaths, count: int) -> StageStatus:
    """The reference models that are trained for the run: done when each of them is there."""

    def look() -> tuple[str, str]:
        missing = [number for number in range(count) if not paths.checkpoint(number).exists()]
        locks = [lock for number in missing if (lock := paths.lock(number)).exists()]
        writing = any(in_use(lock) for lock in locks)
        state = "done" if not missing else "running" if writing else "partial" if len(missing) < count else "missing"
        return state, f"{count - len(missing)} of {count} trained"

    return _status(SHADOWS, paths.root, look)


def references_status(paths: RunPaths, manifest: Manifest) -> StageStatus:
    """The stage references: done when the store has the outputs of each for these samples, whichever run made them."""
    store = Path(manifest.config["references"]["store"])

    def look() -> tuple[str, str]:
        samples, total = features_samples(paths.features), len(reference_fields(manifest))
        if samples is None:  # which the stage itself does not need
            return "missing", "not known before extract has begun"
        found = reference_paths(manifest, samples).values()
        n_complete = sum(each.outputs.exists() for each in found)
        if n_complete == total:
            return "done", f"{n_complete} of {total}"
        begun = [rows_done(each) for each in found if not each.outputs.exists()]
        some = n_complete > 0 or any(rows for rows, _ in begun)
        state = "running" if any(writing for _, writing in begun) else "partial" if some else "missing"
        return state, f"{n_complete} of {total}"

    return _status(REFERENCES, store, look)


def begun_references(paths: RunPaths) -> list[ReferencePaths]:
    """The references of a run of which there are some rows, and which no process is at."""
    manifest, samples = read_manifest(paths), features_samples(paths.features)
    found = reference_paths(manifest, samples).values() if manifest and samples else ()
    return [each for each in found if each.partial.exists() and not in_use(each.partial)]


def attack_statuses(paths: RunPaths, manifest: Manifest) -> list[StageStatus]:
    """Every attack and the blind baseline: done when its result is of these features and of its settings."""
    return [_attack(paths, name, marks) for name, marks in accepted_marks(paths, manifest).items()]


def accepted_marks(paths: RunPaths, manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """The marks that results and journals of each attack may carry; a new one gets the first."""
    try:
        origin = features_origin(paths.features)
    except InputError:  # which is the state of the stage before
        origin = None
    return {name: attack_marks(manifest, name, origin) for name in (*manifest.methods, BLIND)}


def _attack(paths: RunPaths, name: str, marks: Sequence[str]) -> StageStatus:
    file = paths.attack(name)

    def look() -> tuple[str, str]:
        fits = _fits(paths.journal(name), marks)  # looked at first: the result comes before the journal goes
        mark, reason = read_mark(file) if file.exists() else (None, "")
        if mark in marks and not reason:
            return "done", file.name
        if fits and fits[0] == "running":
            return fits
        if mark in marks:
            return "failed", f"{NOT_EVALUABLE} {reason}"
        stale = "stale", f"{file.name} is of other features or settings"
        return fits or (stale if file.exists() else ("missing", ""))

    return _status(f"attack {name}", file, look)


def _fits(journal: Path, marks: Sequence[str]) -> tuple[str, str] | None:
    """State and detail of an attack by its journal; None where that has nothing of these marks."""
    try:
        tasks, writing = tasks_done(journal, marks), in_use(journal)
    except FileNotFoundError:  # not begun, or finished
        return None
    return ("running" if writing else "partial", f"{tasks} fits done") if writing or tasks else None


def reduce_status(paths: RunPaths, manifest: Manifest) -> StageStatus:
    """The verdict: done when it is of these features, attacks, gate and report."""

    figures = ""

    def look() -> tuple[str, str]:
        nonlocal figures
        if not paths.summary_json.exists():
            return "missing", ""
        summary = read_summary(paths.summary_json)
        made_from = Origin.of(summary.provenance).manifest
        found = differences(verdict_identity(made_from), verdict_identity(manifest))
        if found:
            return "stale", f"verdict of another config: {found[0]}"
        figures = figures_of(summary)
        return "done", SAID_OF.get(summary.verdict.outcome, summary.verdict.outcome)

    return replace(_status("reduce", paths.summary_json, look), figures=figures)


def _status(stage: str, file: Path, look: Callable[[], tuple[str, str]]) -> StageStatus:
    """What `look` finds; a damaged file is a state too, so that it hides no other stage or run."""
    try:
        return StageStatus(stage, *look())
    except InputError as error:
        return StageStatus(stage, "damaged", " ".join(str(error).split()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return StageStatus(stage, "damaged", f"{file}: must be as a run writes it, got {one_line(error)}")
