"""Disturb every stage of an audit while it runs, run the same command again, and compare what comes out.

    python tests/faults/process_campaign.py --faults 500 --seed 1

A stage is a process that does what its job does; what happens to it is in `process_faults.py`. Then the same command
runs until it is done, and in every fourth case all later stages. Whatever they leave must be what they leave
undisturbed: features, weights, outputs of references, scores, figures, records. With --commands, `mia-batch run` is
disturbed too, with ranks, launcher and workers (`command_faults.py`), with --nodes-off a chain of jobs on Slurm.

At the end there is a table; the exit code is 1 if anything was lost or changed, hung, ended with an exit code that it
may not have, or showed a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a process that has threads must not fork
    os.environ[_name] = "1"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]

import command_faults  # noqa: E402
from preloaded import FAKETIME, NO_DEED, arm, build, changes_seen, environment, set_clock  # noqa: E402
from process_faults import CLOCK, OTHERS, REFUSED, SHIMMED, Calm, Fault, Maker, can_mount, unmount  # noqa: E402
from stage_processes import Ended, StageProcess, pause  # noqa: E402
from tables import table_of  # noqa: E402
from tiny_audits import (  # noqa: E402
    N_MODELS,
    VERDICTS,
    Stage,
    TinyAudit,
    differing,
    left_by,
    of_network,
    of_outputs,
)

AUDITS = {"outputs": of_outputs, "network": of_network}
TRIES = 3  # of the same command after a fault
TO_THE_END = 0.25  # of the cases run all later stages too; of equal files they make equal ones
GOOD, LOST, CHANGED, HANG, CODE, TRACEBACK = "same", "lost", "changed", "hang", "wrong exit code", "traceback"
COLUMNS = (GOOD, LOST, CHANGED, HANG, CODE, TRACEBACK)
BETWEEN_CLOCKS = 6  # of so many faults one is a jump of the clock
MANY_CLOCKS = 10  # fewer jumps are all of the first audit: to run one undisturbed takes as long as many cases


@dataclass(frozen=True)
class Case:
    """One fault of one stage, and what became of it."""

    stage: str
    kind: str
    seed: str
    outcome: str
    told: str


class Calmed:
    """An audit that ran undisturbed: its folder before each stage, what each takes, and what it left."""

    def __init__(self, name: str, work: Path, backend: str = "serial") -> None:
        self.work = work / name
        self.audit = AUDITS[name](self.work / "case", backend)
        self.folder = self.audit.folder
        if name == "network":
            _plan(self.audit)
        self.takes: list[Calm] = []
        self.left: list[dict[str, Any]] = []  # behind each stage
        for number in range(len(self.audit.stages)):
            self.takes.append(self._do(number))
            self.left.append(left_by(self.folder))

    def _do(self, number: int) -> Calm:
        stage = self.audit.stages[number]
        shutil.copytree(self.folder, self.work / f"before-{number}")
        (self.work / "seen").unlink(missing_ok=True)
        process = StageProcess(stage, self.folder, self.work / "said", *self._counted())
        cpu = 0.0
        while not process.ended():
            cpu = max(cpu, process.cpu_seconds())
            pause()
        ended = process.wait()
        if ended.code not in stage.done:
            raise AssertionError(f"{stage.name} must work undisturbed, got {ended}")
        return Calm(int((self.work / "seen").read_text()), cpu)

    def _counted(self) -> tuple[Callable[[], None], Callable[[], None]]:
        seen = self.work / "seen"
        return lambda: arm(self.folder, 0, NO_DEED), lambda: bool(seen.write_text(str(changes_seen())))

    def begin(self, number: int) -> None:
        """Put the folder as it is before a stage."""
        unmount(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.work / f"before-{number}", self.folder)
        set_clock()

    def run(self, stage: Stage, fault: Fault | None = None, name: str = "said") -> StageProcess:
        """Start a stage."""

        def before() -> None:
            if fault:
                fault.before()
                arm(self.folder / "run" if fault.deed.to.endswith("moved") else self.folder, fault.at, fault.deed)

        return StageProcess(stage, self.folder, self.work / name, before, lambda: None)


def _plan(audit: TinyAudit) -> None:
    """Plan the references, as `mia-batch shadows` does before it trains them."""
    from mia_batch.rundir.shadows import ShadowPaths
    from mia_batch.settings.loading import load_config
    from mia_batch.stages.shadows import models_to_train

    here = os.getcwd()
    os.chdir(audit.folder)
    try:
        models_to_train(load_config(audit.config, need=("data",)), ShadowPaths(audit.folder / "shadows"), N_MODELS)
    finally:
        os.chdir(here)


def one_case(calmed: Calmed, number: int, make: Maker, seed: str) -> Case:
    """Disturb a stage, finish the audit, compare."""
    stage = calmed.audit.stages[number]
    drawn = random.Random(seed)
    fault = make(drawn, calmed.takes[number], calmed.folder)
    last = len(calmed.audit.stages) if drawn.random() < TO_THE_END else number + 1
    try:
        outcome, told = _outcome(calmed, number, fault, last)
    finally:
        unmount(calmed.folder)
    return Case(f"{calmed.audit.name}: {stage.name}", fault.kind, seed, outcome, told)


def _outcome(calmed: Calmed, number: int, fault: Fault, end: int) -> tuple[str, str]:
    stage, *later = calmed.audit.stages[number:end]
    calmed.begin(number)
    fault.prepare(calmed.folder)
    try:
        processes = [calmed.run(stage, fault, f"said {i}") for i in range(1 + fault.twice)]
        fault.during(processes[0])
        all_ended = [process.wait() for process in processes]
    finally:
        fault.restore(calmed.folder)
    for ended in all_ended:
        if bad := _judged(ended, (*stage.done, *fault.codes)):
            return bad, str(ended)
    for each in (stage, *later):
        if bad := _finished(calmed, each):
            return bad
    differ = differing(left_by(calmed.folder), calmed.left[end - 1])
    return (CHANGED, f"differ: {differ}") if differ else (GOOD, "")


def _judged(ended: Ended, codes: Sequence[int]) -> str:
    if ended.hung:
        return HANG
    if ended.has_traceback:
        return TRACEBACK
    if ended.code not in codes or (ended.code == REFUSED and "mia-batch: " not in ended.said):
        return CODE
    return ""


def _finished(calmed: Calmed, stage: Stage) -> tuple[str, str] | None:
    """Run a stage until it is done; what is bad of it, if anything."""
    for _ in range(TRIES):
        ended = calmed.run(stage).wait()
        if ended.code in stage.done:
            return None
        if ended.hung or ended.has_traceback:
            break
    return (HANG if ended.hung else LOST), f"{stage.name} again: {ended}"


def cases(names: Sequence[str], makers: Sequence[Maker], n: int, seed: int, work: Path) -> Iterator[Case]:
    """So many faults, each kind and each stage in turn as often as the others."""
    calmed = [Calmed(name, work) for name in names]
    stages = [(each, number) for each in calmed for number in range(len(each.audit.stages))]
    drawn = random.Random(f"{seed} {len(makers)}")
    kinds: list[Maker] = []
    places: list[tuple[Calmed, int]] = []
    for number in range(n):
        kinds = kinds or drawn.sample(list(makers), len(makers))
        places = places or drawn.sample(stages, len(stages))
        make, (each, place) = kinds.pop(), places.pop()
        yield one_case(each, place, make, f"{seed} {make.__name__} {each.audit.name} {place} {number}")


def command_cases(names: Sequence[str], n: int, seed: int, work: Path) -> Iterator[Case]:
    """So many faults of `mia-batch run`, which begins before one stage or another."""
    calmed = [Calmed(name, work, "loky") for name in names]
    stages = [
        (each, number) for each in calmed for number, stage in enumerate(each.audit.stages) if stage.job != "train"
    ]
    for number in range(n):
        text = f"{seed} command {number}"
        drawn = random.Random(text)
        each, place = drawn.choice(stages)
        stage = each.audit.stages[place]
        disturbance = command_faults.drawn(drawn, stage.name)
        each.begin(place)
        outcome, said = _outcome_of_command(each, text, disturbance)
        yield Case(f"{each.audit.name}: run from {stage.name}", disturbance.kind, text, outcome, said)


def _outcome_of_command(calmed: Calmed, name: str, disturbance: command_faults.Disturbance) -> tuple[str, str]:
    said = calmed.work / "said"
    ended = command_faults.command(calmed.folder, said, name, disturbance)
    if bad := _judged(ended, (*VERDICTS, *disturbance.codes)):
        return bad, str(ended)
    ended = command_faults.command(calmed.folder, said, name)
    if bad := _judged(ended, VERDICTS):
        return LOST if bad == CODE else bad, f"again: {ended}"
    differ = differing(left_by(calmed.folder), calmed.left[-1])
    return (CHANGED, f"differ: {differ}") if differ else (GOOD, "")


def _load(names: Sequence[str]) -> None:
    """What stages import, before any is forked."""
    import matplotlib.figure  # noqa: F401

    import mia_batch.search.kernels.forest
    import mia_batch.stages.attack
    import mia_batch.stages.import_outputs
    import mia_batch.stages.reduce

    if "network" in names:
        import mindspore  # noqa: F401

        import mia_batch.network.batches
        import mia_batch.network.forward
        import mia_batch.network.train
        import mia_batch.stages.extract
        import mia_batch.stages.references
        import mia_batch.stages.shadows  # noqa: F401


def told(case: Case) -> str:
    """A bad case, as a paragraph."""
    return f"-- {case.outcome}: {case.kind}, {case.stage} ({case.seed})\n{case.told[-3000:]}"


def table(found: Sequence[Case]) -> str:
    """Counts by kind of fault, and by stage."""

    def counts(name: Callable[[Case], str]) -> str:
        rows = {key: [case.outcome for case in found if name(case) == key] for key in sorted(set(map(name, found)))}
        return table_of({key: {each: outcomes.count(each) for each in COLUMNS} for key, outcomes in rows.items()},
                        COLUMNS)  # fmt: skip

    return f"{counts(lambda case: case.kind)}\n\n{counts(lambda case: case.stage)}"


def run_here(args: argparse.Namespace) -> None:
    """Faults in this process, which has what is preloaded; a line of JSON each for who started it."""
    _load(args.audit)
    work = Path(tempfile.mkdtemp(prefix="mia"))
    makers = CLOCK if args.inside == "clock" else [*OTHERS, *(SHIMMED if args.inside == "shim" else ())]
    if args.inside == "commands":
        drawn = command_cases(args.audit, args.faults, args.seed, work)
    else:
        drawn = cases(args.audit, makers, args.faults, args.seed, work)
    try:
        with args.result.open("a") as result:
            for case in drawn:
                print(told(case) if case.outcome != GOOD else f"{case.kind}: {case.stage}", flush=True)
                result.write(json.dumps(asdict(case)) + "\n")
                result.flush()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run_in(inside: str, n: int, args: argparse.Namespace, work: Path, shim: Path | None) -> list[Case]:
    """`run_here` in a process of its own, with the shim and perhaps a clock that jumps."""
    clock, result = work / "clock", work / f"{inside}.jsonl"
    set_clock(clock)
    result.touch()
    words = [sys.executable, __file__, f"--faults={n}", f"--seed={args.seed}", f"--inside={inside}", "--result", result]
    words += [word for name in args.audit for word in ("--audit", name)]
    preload = (None, None) if inside == "commands" else (shim, clock if inside == "clock" else None)
    code = subprocess.run(words, env=environment(*preload), check=False).returncode
    found = [Case(**json.loads(line)) for line in result.read_text().splitlines()]
    if code or len(found) != n:
        raise AssertionError(f"{inside}: the campaign must not fail, got {code} after {len(found)} of {n} faults")
    return found


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=500, help="of stages")
    parser.add_argument("--commands", type=int, default=0, help="faults of `mia-batch run`, which take a minute each")
    parser.add_argument("--nodes-off", type=int, default=0, help="chains of jobs under which a node loses power")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--audit", action="append", choices=list(AUDITS), help="default: both")
    parser.add_argument("--inside", choices=("shim", "none", "clock", "commands"), help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.audit = args.audit or list(AUDITS)
    if args.inside:
        run_here(args)
        return 0
    with tempfile.TemporaryDirectory(prefix="mia") as folder:
        work, n_clock = Path(folder), args.faults // BETWEEN_CLOCKS
        shim = build(work)
        skipped = [] if shim else ["no C compiler: no fault at a change of a file"]
        if not (shim and FAKETIME):
            n_clock, skipped = 0, [*skipped, "no libfaketime or no C compiler: the clock does not jump"]
        if not can_mount():
            skipped.append("no tmpfs may be mounted: limits and permissions stand in its place")
        found = run_in("shim" if shim else "none", args.faults - n_clock, args, work, shim)
        if n_clock:
            few = args.audit if n_clock >= MANY_CLOCKS else args.audit[:1]
            clocks = argparse.Namespace(**vars(args) | {"audit": few})
            found += run_in("clock", n_clock, clocks, work, shim)
        found += run_in("commands", args.commands, args, work, shim) if args.commands else []
        found += cases_of_nodes(args.nodes_off, args.seed, work, skipped) if args.nodes_off else []
    return conclude(found, skipped)


def cases_of_nodes(n: int, seed: int, work: Path, skipped: list[str]) -> list[Case]:
    """Chains of jobs under which a node loses power; why there are none is added to `skipped`."""
    import node_faults
    from minicluster import missing

    reason = missing()
    if reason:
        skipped.append(f"{reason}: no node is off")
        return []
    return [
        Case(f"chain: {stage}", "node off", text, bad.partition(":")[0] or GOOD, bad)
        for text, stage, bad in node_faults.nodes_off(n, seed, work)
    ]


def conclude(found: Sequence[Case], skipped: Sequence[str]) -> int:
    """Print what was bad and the table; 1 if anything was."""
    bad = [case for case in found if case.outcome != GOOD]
    for case in bad:
        print(told(case))
    print(table(found), *(f"skipped: {why}" for why in skipped), sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
