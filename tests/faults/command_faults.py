"""`mia-batch run` as a user starts it, with ranks, launcher and workers, of which one is disturbed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from preloaded import FAKETIME, environment, set_clock
from process_faults import DAY
from stage_processes import Ended, pause

SECONDS, LEFT_S = 600.0, 15.0  # of a command; of processes that outlive it
STARTING_S, WORKING_S = 0.5, 2.5  # CPU seconds of a process until it is disturbed, of the command at least so many
MARK = "MIA_FAULTS"  # variable that all processes of a command inherit
HELD_S = 1.0
RUN, LAUNCHER, RANK, STAGE, WORKER = "the command", "mpirun", "a rank", "a stage", "a worker"
ROLES = {  # in which stages there are such processes
    RUN: (), LAUNCHER: ("extract", "references"), RANK: ("extract", "references"), WORKER: ("attack",),
    STAGE: ("attack", "import_outputs", "shadows"),
}  # fmt: skip


@dataclass(frozen=True)
class Disturbance:
    """What is done to which process of a command that begins before `stage`, and how the command may then end."""

    kind: str
    role: str
    codes: tuple[int, ...]
    deed: Callable[[psutil.Process], None]
    at: float
    jumps: int = 0


def drawn(rng: random.Random, stage: str) -> Disturbance:
    """A disturbance of a stage."""
    at = rng.uniform(0, WORKING_S)
    role = rng.choice([role for role, where in ROLES.items() if role == RUN or stage.partition(" ")[0] in where])
    what = rng.choice(("kill", "kill", "hold", "warn", "interrupt", *(["jump"] if FAKETIME else [])))
    if what == "kill":
        codes = (-signal.SIGKILL,) if role == RUN else () if role == WORKER else (1,)
        return Disturbance(f"run: kill of {role}", role, codes, lambda process: process.kill(), at)
    if what == "hold":
        return Disturbance(f"run: SIGSTOP, SIGCONT of {role}", role, (), _hold, at)
    at += STARTING_S
    if what == "jump":
        seconds = rng.choice((-1, 1)) * rng.choice((3600, DAY))
        return Disturbance("run: clock jumps", RUN, (), lambda _process: None, at, seconds)
    signum = signal.SIGINT if what == "interrupt" else rng.choice((signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2))
    codes = (130,) if what == "interrupt" else (75,)
    return Disturbance(f"run: {signum.name}", RUN, codes, lambda process: process.send_signal(signum), at)


def _hold(process: psutil.Process) -> None:
    process.suspend()
    pause(HELD_S)
    process.resume()


def command(folder: Path, said: Path, name: str, disturbance: Disturbance | None = None) -> Ended:
    """Run it to its end; a process that outlives it is killed, and said to hang."""
    clock = said.with_name("clock")
    set_clock(clock)
    jumps = disturbance is not None and disturbance.jumps
    environ = (environment(None, clock) if jumps else dict(os.environ)) | {MARK: name}
    words = [sys.executable, "-m", "mia_batch.cli", "run", "audit.yaml", "--out=run"]
    words += ["--ranks=2"] if (folder / "net.ckpt").exists() else []
    with said.open("w") as output:
        process = subprocess.Popen(
            words, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    if disturbance:
        _disturb(process, disturbance, clock)
    hung = ""
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        hung = f"killed after {SECONDS:g} s\n"
        process.kill()
        process.wait()
    hung += _end_left(name)
    return Ended(process.returncode, said.read_text(errors="replace") + hung, bool(hung))


def _disturb(process: subprocess.Popen[bytes], disturbance: Disturbance, clock: Path) -> None:
    """Once a process of that role has worked for so long; not at all where it never does."""
    command = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            chosen = command if disturbance.role == RUN else _of_role(command, disturbance.role)
            if chosen and sum(chosen.cpu_times()[:2]) >= disturbance.at:
                if disturbance.jumps:
                    clock.write_text(f"{disturbance.jumps:+d}\n")
                disturbance.deed(chosen)
                return
        except psutil.NoSuchProcess:
            pass
        pause(0.02)


def _of_role(command: psutil.Process, role: str) -> psutil.Process | None:
    found = {each: " ".join(each.cmdline()) for each in command.children(recursive=True)}
    if role == LAUNCHER:
        chosen = [each for each, words in found.items() if "mpirun" in words]
    elif role == WORKER:
        chosen = [each for each, words in found.items() if "loky" in words and "resource_tracker" not in words]
    elif role == RANK:
        chosen = [each for each, words in found.items() if "/jobs/" in words and "mpirun" not in words]
    else:
        chosen = [each for each, words in found.items() if "/jobs/" in words]
    return chosen[-1] if chosen else None


def _end_left(name: str) -> str:
    deadline = time.monotonic() + LEFT_S
    while (left := _marked(name)) and time.monotonic() < deadline:
        pause(0.1)
    for process in left:
        process.kill()
    return "".join(f"outlived the command by {LEFT_S:g} s: {process}\n" for process in left)


def _marked(name: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == name and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
