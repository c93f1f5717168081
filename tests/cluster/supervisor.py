"""Keeps the daemons of one mini-cluster alive until its owner is gone, then removes every trace of it.

Run as ``supervisor.py ROOT``. Standard input is a pipe whose other end the owner holds: the owner's death, however
violent, is an end of file here. Each daemon asks the kernel to be killed with the supervisor, so that killing the
supervisor itself leaves no process either; its directory is then swept by the next cluster that starts.

A daemon ``NAME`` is up unless the file ``ROOT/off/NAME`` exists: powering a node off is creating that file.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

PERIOD_S = 0.05


def command(root: Path, name: str) -> list[str]:
    """Command line of the daemon `name`: munged, slurmctld, or the name of a node."""
    if name == "munged":
        return [
            *("munged", "--foreground", "--force", f"--socket={root}/munge.socket", f"--key-file={root}/munge.key"),
            *(f"--pid-file={root}/munged.pid", f"--seed-file={root}/munged.seed", f"--log-file={root}/log/munged.log"),
        ]
    if name == "slurmctld":  # in a process namespace, because its helper slurmscriptd outlives a kill
        spaces = ("--pid", "--fork", "--kill-child=KILL", "--mount-proc")
        return ["unshare", *spaces, "slurmctld", "-D", "-f", f"{root}/slurm.conf"]
    # A node is a machine: its own name, hosts file, processes and shared memory; killing it kills all that runs there.
    # The shell stays as the first process, because slurmd would not reap orphans.
    boot = (
        f"hostname {name} && mount --bind {root}/hosts /etc/hosts && mount -t tmpfs shm /dev/shm && "
        f"slurmd -D -N {name} -f {root}/slurm.conf & wait"
    )
    # Cores too: ranks pin themselves to the first cores of their node, which would else be the same for all nodes.
    cores = sorted(os.sched_getaffinity(0))
    core = cores[int(name[1:]) % len(cores)]
    spaces = ("--uts", "--ipc", "--pid", "--mount", "--fork", "--kill-child=KILL", "--mount-proc")
    return ["taskset", "--cpu-list", str(core), "unshare", *spaces, "sh", "-c", boot]


def start(root: Path, name: str) -> subprocess.Popen[bytes]:
    """Start the daemon `name`, to die with this process."""
    with open(root / "log" / f"{name}.out", "ab") as out:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command(root, name)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, "SLURM_CONF": f"{root}/slurm.conf"},
        )


def owner_is_there() -> bool:
    """Whether the other end of standard input is still open, looked at for one period."""
    readable, _, _ = select.select([sys.stdin], [], [], PERIOD_S)
    return not readable or bool(os.read(sys.stdin.fileno(), 1))


def publish(root: Path, running: str) -> None:
    """Tell in ROOT/up, whole at any moment, which daemons run."""
    if not (root / "up").exists() or (root / "up").read_text() != running:
        (root / "up.new").write_text(running)
        os.replace(root / "up.new", root / "up")


def supervise(root: Path, names: list[str]) -> None:
    """Keep the daemons as the files in ROOT/off say, until the owner is gone or ROOT/stop appears."""
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while owner_is_there() and not (root / "stop").exists():
            for name in names:
                wanted = not (root / "off" / name).exists()
                daemon = running.get(name)
                if daemon and (not wanted or daemon.poll() is not None):
                    daemon.kill()
                    daemon.wait()
                    del running[name]
                elif wanted and not daemon:
                    running[name] = start(root, name)
            publish(root, " ".join(sorted(running)))
    finally:
        for daemon in running.values():
            daemon.kill()
        for daemon in running.values():
            daemon.wait()


def main() -> None:
    """Supervise, then remove the cluster's directory; the lock tells a sweep that the directory is in use."""
    root = Path(sys.argv[1])
    lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (root / "supervisor.pid").write_text(str(os.getpid()))
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(1))
    try:
        supervise(root, sys.argv[2:])
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
