"""Campaigns of faults: many seeded cases, each in a process of limited time and memory, and a table of their outcomes.

A target is a command with the files that it reads; a fault changes one of them. Whoever adds a kind of file adds a
target, whoever thinks of a fault a function: nothing else knows them.
"""

from __future__ import annotations

import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taken import begin_peak, inherited, peak, release_memory

SAME, REFUSED = "same", "refused"  # as it must be: exit code and result of the good file, or one line and exit code 2
TRACEBACK, HANG, MEMORY, DIFFERENT, CODE = "traceback", "hang", "memory", "accepted-different", "other exit code"
OUTCOMES = (SAME, REFUSED, TRACEBACK, HANG, MEMORY, DIFFERENT, CODE)
LINE = "mia-batch: "  # how a problem's line begins
MORE_MEMORY = 100 << 20  # bytes, than the good file takes
ADDRESSES = 6 << 30  # bytes of addresses that a case may have
MORE_SECONDS = 4.0  # of a core, than twice what the good file takes
BUSY = 10  # times as long by the clock: other processes run too

Helper = subprocess.Popen[str]  # a process that works for a case beside it
Fault = Callable[[Path, random.Random], None]  # of a file in its place; may raise NotHereError


class NotHereError(Exception):
    """A fault that this file cannot have, such as another type of a dataset that it lacks."""


@dataclass(frozen=True)
class Target:
    """A command, and a file that it reads.

    Attributes:
        name: in the table.
        file: that is changed, in the folder of a case.
        prepare: fills a folder, once.
        run: in a folder of a case: the exit code, and the result as text.
        faults: by name.
        vouched: whether a digest vouches for the file's values: other results of another file are no fault.
    """

    name: str
    file: str
    prepare: Callable[[Path], None]
    run: Callable[[Path], tuple[int, str]]
    faults: dict[str, Fault]
    vouched: bool = True


@dataclass(frozen=True)
class Ended:
    """How one process ended: exit code (negative: a signal), result, what it said, seconds of a core, bytes it took.

    These are beyond what its parent holds, with those of a process that helps it.
    """

    code: int
    result: str
    said: str
    seconds: float
    memory: int
    killed: bool = False


@dataclass(frozen=True)
class Case:
    """One fault of one target."""

    target: str
    fault: str
    seed: str
    outcome: str
    ended: Ended


@dataclass
class Campaign:
    """Cases and what became of them."""

    cases: list[Case] = field(default_factory=list)

    @property
    def bad(self) -> list[Case]:
        """Those that must not be."""
        return [case for case in self.cases if case.outcome not in (SAME, REFUSED)]

    def table(self, by: Callable[[Case], str] = lambda case: case.target) -> str:
        """Counts of the outcomes."""
        counts: dict[str, Counter[str]] = {}
        for case in self.cases:
            counts.setdefault(by(case), Counter())[case.outcome] += 1
        rows = [["", "cases", *OUTCOMES]]
        rows += [[name, str(sum(found.values())), *(str(found[each]) for each in OUTCOMES)] for name, found in
                 sorted(counts.items())]  # fmt: skip
        total = sum(counts.values(), Counter())
        rows.append(["all", str(sum(total.values())), *(str(total[each]) for each in OUTCOMES)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ([cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
        return "\n".join("  ".join([row[0].ljust(widths[0]), *line[1:]]) for row, line in zip(rows, lines, strict=True))


def run_forked(
    work: Callable[[], tuple[int, str]], folder: Path, *, seconds: float, helper: Helper | None = None
) -> Ended:
    """Do some work in a copy of this process that has loaded all it needs; `folder` takes what it prints."""
    said, result, started = folder / "said", folder / "result", time.monotonic()
    release_memory()
    ours, theirs = os.pipe()
    held = begin_peak(helper.pid) if helper else 0
    helped = held
    process = os.fork()
    if process == 0:
        os.write(theirs, str(inherited()).encode())
        _in_child(work, said, result, seconds)
    killed = False
    while True:
        helped = max(helped, peak(helper.pid) if helper else 0)
        found, status, usage = os.wait4(process, os.WNOHANG)
        if found:
            break
        if time.monotonic() - started > BUSY * seconds and not killed:
            os.killpg(process, signal.SIGKILL)
            killed = True
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(status)
    texts = [path.read_text(encoding="utf-8", errors="replace") if path.exists() else "" for path in (result, said)]
    hung = killed or code == -signal.SIGXCPU
    before = int(os.read(ours, 100))
    for descriptor in (ours, theirs):
        os.close(descriptor)
    memory = (usage.ru_maxrss << 10) - before + helped - held
    return Ended(code, *texts, usage.ru_utime + usage.ru_stime, memory, hung)


def _in_child(work: Callable[[], tuple[int, str]], said: Path, result: Path, seconds: float) -> None:
    """Never returns."""
    code = 70
    try:
        os.setpgid(0, 0)
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        files = (io.FileIO(number, "w", closefd=False) for number in (1, 2))
        sys.stdout, sys.stderr = (io.TextIOWrapper(file, write_through=True) for file in files)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, resource.RLIM_INFINITY))
        code, text = work()
        result.write_text(text)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def outcome_of(ended: Ended, good: Ended, *, vouched: bool) -> str:
    """The class of a case beside the good file."""
    lines = [line for line in ended.said.splitlines() if line.startswith(LINE)]
    if ended.killed:
        return HANG
    if "Traceback (most recent call last)" in ended.said or ended.code < 0:
        return TRACEBACK
    if ended.memory > good.memory + MORE_MEMORY:
        return MEMORY
    if ended.code == 2 and lines:
        return REFUSED
    if (ended.code, ended.result) == (good.code, good.result) or (not vouched and ended.code in (0, 3, 4)):
        return SAME
    return DIFFERENT if ended.code in (0, 3, 4) else CODE


def run_target(
    target: Target, n_cases: int, seed: int, *, kept: Path | None = None,
    between: Callable[[], Helper | None] = lambda: None, more_seconds: float = MORE_SECONDS,
) -> Iterator[Case]:
    """Cases of a target, each fault as often as the others.

    Args:
        target: of the campaign.
        n_cases: how many.
        seed: of the campaign; a case's own is in `Case.seed`.
        kept: where the files of bad cases are kept.
        between: called before each case, in this process; starts what helps it, if anything does.
        more_seconds: that a case may take beyond twice the good file's.
    """
    with tempfile.TemporaryDirectory(prefix="faults") as temporary:
        whole = Path(temporary, "whole")
        whole.mkdir()
        target.prepare(whole)
        good = _case_in(target, whole, Path(temporary, "good"), None, random.Random(0), seconds=300, between=between)
        assert good is not None
        assert good.code in (0, 3, 4), good.said
        limit, names = 2 * good.seconds + more_seconds, sorted(target.faults)
        random.Random(f"{seed}:{target.name}").shuffle(names)
        for number in range(n_cases):
            name = names[number % len(names)]
            text = f"{seed}:{target.name}:{name}:{number}"
            folder = Path(temporary, "case")
            rng = random.Random(text)
            ended = _case_in(target, whole, folder, target.faults[name], rng, seconds=limit, between=between)
            if ended is None:
                continue
            case = Case(target.name, name, text, outcome_of(ended, good, vouched=target.vouched), ended)
            if kept and case.outcome not in (SAME, REFUSED):
                shutil.copytree(folder, kept / text.replace(":", "_"), symlinks=True, dirs_exist_ok=True)
            yield case


def _case_in(
    target: Target, whole: Path, folder: Path, fault: Fault | None, rng: random.Random, *, seconds: float,
    between: Callable[[], Helper | None],
) -> Ended | None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    if fault:
        try:
            fault(folder / target.file, rng)
        except NotHereError:
            return None
    return run_forked(lambda: target.run(folder), folder, seconds=seconds, helper=between())


def told(cases: Sequence[Case]) -> str:
    """Bad cases, a paragraph each."""
    return "\n".join(
        f"{case.outcome}: {case.seed}: "
        f"code {case.ended.code}, {case.ended.seconds:.1f} s, {case.ended.memory >> 20} MiB\n"
        + "\n".join(f"    {line}" for line in case.ended.said.splitlines()[-6:])
        for case in cases
    )


def as_text(value: Any) -> str:
    """Arrays and numbers, bit for bit."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_text(item)}" for key, item in sorted(value.items())) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_text, value)) + "]"
    return f"{value.dtype}{value.shape}{value.tobytes().hex()}" if hasattr(value, "tobytes") else repr(value)
