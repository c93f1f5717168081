"""Damage every file that is read, and see what becomes of it.

    python tests/faults/input_campaign.py --cases 20000 --seed 1

Each case is a child process that reads one damaged file, or what lies in its place, with limits on time and memory. It
must say the same as of the good file, or say in one line what is wrong and exit with code 2, in at most twice the time
(and a second, for the machine's other work) and 100 MiB more than the good file takes. At the end there is a table of
what came out; the exit code is 1 if anything else than "same", "refused" or, of users' own files, "other" did.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import pickle
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "helpers")]

import input_roles
from input_roles import REFUSED, ROLES, HiddenError, Role, plain
from mutators import PLACERS, mutated
from tables import table_of
from taken import inherited, release_memory

from mia_batch.process.exit_codes import BAD_INPUT, run_main

CPU_S, SECONDS = 20, 120.0  # of a reading: at work, and in all, on a machine that may be busy
MEMORY, SLACK_S = 100 << 20, 1.0
LONGEST = 2000  # characters of what is said
GOOD, OTHER = ("same", "refused"), "other"
BAD = ("different", "traceback", "hang", "memory", "slow", "hidden", "unclear", "died")


@dataclass(frozen=True)
class Outcome:
    """What became of one reading.

    Attributes:
        kind: one of `GOOD`, `OTHER` and `BAD`; "read" before it is compared.
        text: what was said, or read.
        seconds, memory: that it took; the memory in bytes, beyond what it had from the process that it came of.
    """

    kind: str
    text: str
    seconds: float = 0.0
    memory: int = 0


def in_child(role: Role, folder: Path) -> Outcome:
    """Read in a process of its own, which is killed after `CPU_S` or `SECONDS`."""
    ours, theirs = os.pipe()
    started = time.monotonic()
    release_memory()
    child = os.fork()
    if not child:
        os.close(ours)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        before = inherited()
        try:
            os.write(theirs, pickle.dumps((*_read(role, folder), before)))
        finally:
            os._exit(0)
    os.close(theirs)
    said = _until_closed(ours, started + SECONDS)
    if said is None:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    seconds = time.monotonic() - started
    if said is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        return Outcome("hang", f"killed after {seconds:g} s", seconds)
    if not said:
        return Outcome("died", f"status {status}", seconds)
    kind, text, before = pickle.loads(said)
    return Outcome(kind, text, usage.ru_utime + usage.ru_stime, (usage.ru_maxrss << 10) - before)


def _until_closed(descriptor: int, deadline: float) -> bytes | None:
    """All that is written there; None if that takes too long."""
    parts: list[bytes] = []
    with open(descriptor, "rb", buffering=0) as file:
        while select.select([file], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = file.read(1 << 16)
            if not part:
                return b"".join(parts)
            parts.append(part)
    return None


def _read(role: Role, folder: Path) -> tuple[str, str]:
    """Kind and text, as a command would end."""
    found: list[Any] = []
    said = io.StringIO()
    warnings.simplefilter("error")

    def main() -> int:
        found.append(role.read(folder))
        return 0

    try:
        with contextlib.redirect_stderr(said):
            code = run_main(main)
    except HiddenError as error:
        return "hidden", str(error)
    except BaseException:
        return "traceback", "".join(traceback.format_exc().splitlines(keepends=True)[-8:])
    if code == BAD_INPUT:
        return _refusal(said.getvalue())
    if code:
        return "traceback", f"exit code {code}: {said.getvalue()[:300]}"
    text = repr(plain(found[0]))
    return ("refused", text) if text == repr(REFUSED) else ("read", text)


def _refusal(said: str) -> tuple[str, str]:
    lines = said.splitlines()
    is_clear = lines and all(line.startswith("mia-batch: ") and len(line) <= LONGEST for line in lines)
    printable = all(character.isprintable() or character == "\n" for character in said)
    return "refused" if is_clear and printable else "unclear", said


def judged(outcome: Outcome, good: Outcome, is_ours: bool) -> Outcome:
    """The outcome, compared with that of the good file."""
    kind = outcome.kind
    if kind == "read":
        kind = "same" if outcome.text == good.text else "different" if is_ours else OTHER
    if kind in (*GOOD, OTHER) and outcome.memory > good.memory + MEMORY:
        kind = "memory"
    if kind in (*GOOD, OTHER) and outcome.seconds > 2 * good.seconds + SLACK_S:
        kind = "slow"
    return Outcome(kind, outcome.text, outcome.seconds, outcome.memory)


@dataclass(frozen=True)
class Case:
    """One damaged file, and what became of it."""

    role: Role
    damage: str
    content: bytes | None
    outcome: Outcome


def cases(role: Role, n_cases: int, seed: int, work: Path) -> Iterator[Case]:
    """What may lie in the place of a role's file, then so many damaged ones."""
    folder, pristine = work / "folder", work / "good"
    pristine.mkdir()
    role.make(pristine)
    data = (pristine / role.file).read_bytes()
    copy = _Fresh(pristine, folder)
    with copy:
        good = in_child(role, folder)
    if good.kind != "read":
        raise AssertionError(f"{role.name}: the good file must be read, got {good}")
    for place in PLACERS:
        with copy:
            (folder / role.file).unlink()
            place(folder / role.file)
            outcome = judged(in_child(role, folder), good, False)
        yield Case(role, place.__name__, None, outcome)
    for number in range(n_cases):
        content, damage = mutated(data, random.Random(f"{seed} {role.name} {number}"))
        with copy:
            (folder / role.file).write_bytes(content)
            outcome = judged(in_child(role, folder), good, role.is_ours)
        yield Case(role, damage, content, outcome)


class _Fresh:
    """A folder that is a copy of another, made anew each time."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._source, self._folder = source, folder

    def __enter__(self) -> None:
        shutil.copytree(self._source, self._folder)

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder)


def campaign(
    roles: Sequence[Role], n_cases: int, seed: int, keep: Path | None = None
) -> tuple[dict[str, Counter[str]], list[Case]]:
    """Counts of outcomes by role, and what must not be."""
    counts: dict[str, Counter[str]] = {}
    bad: list[Case] = []
    for role in roles:
        counts[role.name] = Counter()
        with tempfile.TemporaryDirectory(prefix="mia") as work:
            for number, case in enumerate(cases(role, n_cases, seed, Path(work))):
                counts[role.name][case.outcome.kind] += 1
                if case.outcome.kind in BAD:
                    bad.append(case)
                    _keep(keep, case, number)
        print(f"{role.name}: {dict(counts[role.name])}", file=sys.stderr, flush=True)
    return counts, bad


def _keep(folder: Path | None, case: Case, number: int) -> None:
    if folder is not None and case.content is not None:
        folder.mkdir(parents=True, exist_ok=True)
        name = case.role.name.replace(" ", "_").replace("/", "_")
        (folder / f"{name}.{number}.{case.outcome.kind}").write_bytes(case.content)


def table(counts: dict[str, Counter[str]]) -> str:
    """A line for each role, a column for each outcome that there was."""
    kinds = [kind for kind in (*GOOD, OTHER, *BAD) if any(count[kind] for count in counts.values())]
    return table_of(counts, kinds)


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="damaged files, over all roles")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--role", action="append", choices=[role.name for role in ROLES])
    parser.add_argument("--keep", type=Path, help="a folder for the files of bad outcomes")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    roles = [role for role in ROLES if not args.role or role.name in args.role]
    counts, bad = campaign(roles, -(-args.cases // len(roles)), args.seed, args.keep)
    for case in bad:
        print(f"-- {case.role.name}: {case.damage}: {case.outcome.kind}\n{case.outcome.text[:1500]}")
    print(table(counts))
    return 1 if bad else 0


if __name__ == "__main__":
    assert input_roles.ROLES is ROLES
    sys.exit(main())
