"""What happens to the process of a stage, each by a seeded generator, and the exit codes with which it may then end."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from preloaded import CLOCK_FILE, FAIL, JUMP, MOVE, NO_DEED, SIGNAL, Deed
from stage_processes import StageProcess, pause

DAY = 86400
REFUSED, RESUMED = 2, 75
ERRORS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ESTALE)
IN_FULL, AGAIN = 32 << 10, 64 << 20  # bytes of a small disk: that are free at most, and once there is room again
TMPFS = ("mount", "-t", "tmpfs", "-o", f"size={AGAIN}", "mia_faults")
STOPPED_S = 0.3


@dataclass(frozen=True)
class Calm:
    """What a stage takes undisturbed: changes of files, CPU seconds."""

    changes: int
    cpu_seconds: float


@dataclass
class Fault:
    """One fault.

    Attributes:
        kind: row of the table.
        codes: with which the stage may end, besides those with which it is done.
        deed, at: what the shim does, and at which change of a file.
        before: in the process, before the stage begins.
        during: while it runs.
        prepare, restore: of the audit's folder, before the stage and after it.
        twice: whether two processes do the stage at a time.
    """

    kind: str
    codes: tuple[int, ...] = ()
    deed: Deed = NO_DEED
    at: int = 0
    before: Callable[[], None] = lambda: None
    during: Callable[[StageProcess], None] = lambda _process: None
    prepare: Callable[[Path], None] = lambda _folder: None
    restore: Callable[[Path], None] = lambda _folder: None
    twice: bool = False


Maker = Callable[[random.Random, Calm, Path], Fault]


def _at_change(rng: random.Random, calm: Calm) -> int:
    return rng.randint(1, max(1, calm.changes))


def killed_at_a_change(rng: random.Random, calm: Calm, _folder: Path) -> Fault:
    return Fault("kill at a change of a file", (-signal.SIGKILL,), Deed(SIGNAL, signal.SIGKILL), _at_change(rng, calm))


def killed(rng: random.Random, calm: Calm, _folder: Path) -> Fault:
    return Fault("kill at any moment", (-signal.SIGKILL,), during=_sends(signal.SIGKILL, rng, calm))


def warned_at_a_change(rng: random.Random, calm: Calm, _folder: Path) -> Fault:
    signum = rng.choice((signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2))
    return Fault(f"{signum.name} at a change of a file", (RESUMED,), Deed(SIGNAL, signum), _at_change(rng, calm))


def warned(rng: random.Random, calm: Calm, _folder: Path) -> Fault:
    signum = rng.choice((signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2))
    return Fault(f"{signum.name} at any moment", (RESUMED,), during=_sends(signum, rng, calm))


def interrupted(rng: random.Random, calm: Calm, _folder: Path) -> Fault:
    return Fault("SIGINT at any moment", (RESUMED, 130), during=_sends(signal.SIGINT, rng, calm))


def held(rng: random.Random, calm: Calm, _folder: Path) -> Fault:
    def go_on(process: StageProcess) -> None:
        while not process.ended() and not process.is_stopped():
            pause()
        pause(STOPPED_S)
        process.send(signal.SIGCONT)

    return Fault("SIGSTOP, SIGCONT", (), Deed(SIGNAL, signal.SIGSTOP), _at_change(rng, calm), during=go_on)


def failing_call(rng: random.Random, calm: Calm, _folder: Path) -> Fault:
    number, lasting = rng.choice(ERRORS), rng.random() < 0.5
    kind = f"{errno.errorcode[number]} {'from a call on' if lasting else 'of one call'}"
    return Fault(kind, (REFUSED,), Deed(FAIL, number, lasting), _at_change(rng, calm))


def small_disk(rng: random.Random, calm: Calm, folder: Path) -> Fault:
    if not can_mount():
        return short_files(rng, calm, folder)
    room = int(rng.random() ** 2 * 2 * IN_FULL) + 4096
    return Fault("full disk (tmpfs)", (REFUSED,), prepare=lambda folder: _mount(folder, room), restore=_make_room)


def short_files(rng: random.Random, _calm: Calm, _folder: Path) -> Fault:
    limit = int(rng.random() ** 2 * 2 * IN_FULL)
    return Fault("full disk (RLIMIT_FSIZE)", (REFUSED,), before=lambda: _limit(resource.RLIMIT_FSIZE, limit))


def read_only(_rng: random.Random, _calm: Calm, _folder: Path) -> Fault:
    def prepare(folder: Path) -> None:
        if can_mount():
            _mount(folder, AGAIN)
            _system("mount", "-o", "remount,ro", folder)
        else:
            folder.chmod(0o500)  # which does not hinder root

    def restore(folder: Path) -> None:
        _make_room(folder)
        folder.chmod(0o700)

    return Fault("read-only folder", (REFUSED,), prepare=prepare, restore=restore)


def moved(rng: random.Random, calm: Calm, folder: Path) -> Fault:
    """The run directory is renamed; whoever did it puts it back, over what has been made in its place."""
    run, away = folder / "run", folder / "moved"

    def restore(_folder: Path) -> None:
        if away.exists():
            shutil.rmtree(run, ignore_errors=True)
            away.rename(run)

    deed = Deed(MOVE, to=str(away))
    return Fault("run directory renamed", (REFUSED,), deed, _at_change(rng, calm), restore=restore)


def two_at_once(_rng: random.Random, _calm: Calm, _folder: Path) -> Fault:
    return Fault("two at once", (REFUSED,), twice=True)


def little_memory(rng: random.Random, _calm: Calm, _folder: Path) -> Fault:
    more = int(rng.random() ** 2 * (64 << 20))
    return Fault("memory limit", (1, REFUSED), before=lambda: _limit(resource.RLIMIT_AS, _addresses() + more))


def clock_jumps(rng: random.Random, calm: Calm, _folder: Path) -> Fault:
    seconds = rng.choice((-1, 1)) * rng.choice((2, 3600, DAY, 400 * DAY))
    deed = Deed(JUMP, seconds, to=os.environ.get(CLOCK_FILE, ""))
    return Fault(f"clock {'back' if seconds < 0 else 'forward'}", (), deed, _at_change(rng, calm))


SHIMMED: tuple[Maker, ...] = (killed_at_a_change, warned_at_a_change, held, failing_call, failing_call, moved)
OTHERS: tuple[Maker, ...] = (killed, warned, interrupted, small_disk, short_files, read_only, two_at_once,
                             little_memory)  # fmt: skip
CLOCK: tuple[Maker, ...] = (clock_jumps,)


def _sends(signum: int, rng: random.Random, calm: Calm) -> Callable[[StageProcess], None]:
    """Sends it once the process has done a part of its work, by its own clock: that of a busy machine says nothing.

    Nobody can take a signal before he listens, a job as little as any program that has just begun: that is waited for.
    A Ctrl-C comes as early as any other; Python listens to it from the first.
    """
    share, heard = rng.random(), signal.SIGUSR1 if signum == signal.SIGINT else signum

    def send(process: StageProcess) -> None:
        while signum != signal.SIGKILL and not process.listens_to(heard):
            if process.ended():
                raise AssertionError(f"the stage must listen to {signal.Signals(heard).name}, got {process.wait()}")
            pause()
        while not process.ended() and process.cpu_seconds() < share * calm.cpu_seconds:
            pause()
        process.send(signum)

    return send


def _limit(of: int, value: int) -> None:
    resource.setrlimit(of, (value, resource.getrlimit(of)[1]))


def _addresses() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _system(*words: str | Path) -> None:
    subprocess.run(list(map(str, words)), check=True)


@cache
def can_mount() -> bool:
    """Whether this user may mount a tmpfs."""
    with tempfile.TemporaryDirectory(prefix="mia") as folder:
        mounted = not subprocess.run([*TMPFS, folder], capture_output=True, check=False).returncode
        if mounted:
            _system("umount", folder)
    return mounted


def _mount(folder: Path, room: int) -> None:
    """Put the folder onto a small disk of its own, with so many bytes free."""
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.mkdir()
    _system(*TMPFS, folder)
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    shutil.rmtree(kept)
    found = os.statvfs(folder)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    _system("mount", "-o", f"remount,size={used + room}", folder)


def _make_room(folder: Path) -> None:
    if os.path.ismount(folder):
        _system("mount", "-o", f"remount,rw,size={AGAIN}", folder)


def unmount(folder: Path) -> None:
    """Take the small disk away, if there is one."""
    if os.path.ismount(folder):
        _system("umount", "-l", folder)

