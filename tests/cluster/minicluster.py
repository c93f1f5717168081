"""A Slurm cluster of four nodes on this host, for tests: real daemons, nothing installed, nothing left behind."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIX = "mb-slurm-"
KEPT = "kept"  # marks a cluster that is a person's, not a test's
# Sockets have 108 bytes and munge wants every parent to be readable by all: a short path, not pytest's tmp_path.
BASE = Path("/tmp")
GRES = (("gpu", "Flags=nvidia_gpu_env "), ("npu", ""))  # an npu sets no variable by itself, as on real sites
NODES = ("n1", "n2", "n3", "n4")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "unshare", "setpriv", "taskset")
FINAL = frozenset(
    ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL")
)

CONF = """\
ClusterName=mini
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# Slurm waits for a credential to expire before it starts a requeued job again: 5 s instead of 120.
AuthInfo=socket={root}/munge.socket,cred_expire=5
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
TmpFS={root}/tmp/%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
JobCompType=jobcomp/filetxt
JobCompLoc={root}/jobcomp.txt
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
ReturnToService=1
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=3
MinJobAge=600
SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu,npu
"""

PARTITIONS = """\
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """Why a mini-cluster cannot run here, or an empty string."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=_path())]
    if absent:
        return f"Slurm's daemons are not installed (no {', '.join(absent)}): apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "a mini-cluster gives each node its own namespaces, which needs root"
    return ""


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def sweep() -> None:
    """Remove directories of clusters whose supervisor was killed; one in use holds its lock."""
    for root in BASE.glob(f"{PREFIX}*"):
        try:
            with open(root / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            if time.time() - root.stat().st_mtime < 60:  # being set up right now
                continue
        except OSError:
            continue
        shutil.rmtree(root, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_until(check: Callable[[], Any], *, timeout: float = 120.0, period: float = 0.1, what: str = "") -> Any:
    """Poll `check` until it returns something true, which is returned.

    Raises:
        TimeoutError: naming `what`, after `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while not (value := check()):
        if time.monotonic() > end:
            raise TimeoutError(f"after {timeout:g} s: {what or check}")
        time.sleep(period)
    return value


def _supervise(root: Path, owned: bool) -> subprocess.Popen[bytes]:
    # The supervisor lives until its standard input ends: with this process, which holds the other end on purpose,
    # or never, when the supervisor holds the other end itself.
    reading, writing = os.pipe()
    script = Path(__file__).with_name("supervisor.py")
    with open(root / "log" / "supervisor.out", "ab") as out:  # not the terminal's, or `make cluster | cat` never ends
        supervisor = subprocess.Popen(
            [sys.executable, str(script), str(root), "munged", "slurmctld", *NODES],
            stdin=reading,
            stdout=out,
            stderr=out,
            pass_fds=() if owned else (writing,),
            start_new_session=True,
            env={**os.environ, "PATH": _path()},
        )
    os.close(reading)
    if not owned:
        (root / KEPT).touch()
        os.close(writing)
    return supervisor


@dataclass(frozen=True)
class MiniCluster:
    """One running cluster, named by its directory; any process may hold one."""

    root: Path
    supervisor: subprocess.Popen[bytes] | None = None

    # -- life ---------------------------------------------------------------------------------------------------------

    @staticmethod
    def start(*, owned: bool = True, cpus: int = 4, memory_mb: int = 8000) -> MiniCluster:
        """Start a cluster and wait until its four nodes are idle.

        Args:
            owned: the cluster ends with this process; else it stays until `stop`.
            cpus: cores that each node claims.
            memory_mb: memory that each node claims.
        """
        sweep()
        root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=BASE))
        MiniCluster(root)._write_files(cpus, memory_mb)
        cluster = MiniCluster(root, _supervise(root, owned))
        try:
            cluster.wait_ready()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    def _write_files(self, cpus: int, memory_mb: int) -> None:
        self.root.chmod(0o755)
        for name in ("state", "log", "off", "dev", *(f"{kind}/{node}" for kind in ("spool", "tmp") for node in NODES)):
            (self.root / name).mkdir(parents=True)
        key = self.root / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        for kind in ("gpu", "npu"):
            for index in range(2):
                (self.root / "dev" / f"{kind}{index}").symlink_to("/dev/null")
        gres = [f"Name={kind} {flags}File={self.root}/dev/{kind}[0-1]\n" for kind, flags in GRES]
        (self.root / "gres.conf").write_text("AutoDetect=off\n" + "".join(gres))
        (self.root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        host = socket.gethostname()
        addresses = [f"127.0.1.{index} {node}\n" for index, node in enumerate(NODES, 1)]
        (self.root / "hosts").write_text("".join(addresses) + f"127.0.0.1 localhost {host}\n")
        (self.root / "slurm.conf").write_text(self._conf(host, cpus, memory_mb))

    def _conf(self, host: str, cpus: int, memory_mb: int) -> str:
        controller, *ports = _free_ports(1 + len(NODES))
        nodes = [
            f"NodeName={node} NodeHostname={node} NodeAddr=127.0.1.{index} Port={port} CPUs={cpus} "
            f"RealMemory={memory_mb} Gres=gpu:2,npu:2 State=UNKNOWN\n"
            for index, (node, port) in enumerate(zip(NODES, ports, strict=True), 1)
        ]
        return CONF.format(host=host, controller_port=controller, root=self.root) + "".join(nodes) + PARTITIONS

    def wait_ready(self) -> None:
        """Wait until every node is up.

        Raises:
            TimeoutError: with the end of the daemons' logs.
        """
        try:
            wait_until(lambda: self.node_states() == dict.fromkeys(NODES, "idle"), timeout=30, what="nodes idle")
        except TimeoutError as error:
            logs = [f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in (self.root / "log").iterdir()]
            raise TimeoutError(f"{error}: {self.node_states()}\n" + "\n".join(logs)) from None

    def stop(self) -> None:
        """End every daemon and remove the directory."""
        if self.root.is_dir():
            (self.root / "stop").touch()
            wait_until(lambda: not self.root.exists(), timeout=20, what=f"{self.root} removed")
        if self.supervisor:
            self.supervisor.wait(timeout=20)

    # -- power --------------------------------------------------------------------------------------------------------

    def power_off(self, *names: str) -> None:
        """Kill nodes, or the daemon slurmctld, at once and keep them off."""
        for name in names:
            (self.root / "off" / name).touch()
        wait_until(lambda: not self._up() & set(names), what=f"{names} off")

    def power_on(self, *names: str) -> None:
        """Start what was powered off."""
        for name in names:
            (self.root / "off" / name).unlink(missing_ok=True)
        wait_until(lambda: self._up() >= set(names), what=f"{names} on")

    def repair(self) -> None:
        """Power everything on and take every node back into service."""
        self.power_on("slurmctld", *NODES)
        self.run("scontrol", "update", f"NodeName={','.join(NODES)}", "State=RESUME", check=False)

    def crash_controller(self, job_id: str) -> None:
        """Kill the controller once what it knows of a job is on disk, where it writes some seconds late."""
        changed = time.time()
        self.run("scontrol", "update", f"JobId={job_id}", f"Comment={changed}")
        wait_until(
            lambda: (self.root / "state" / "job_state").stat().st_mtime > changed, what="controller's state saved"
        )
        self.power_off("slurmctld")

    def _up(self) -> set[str]:
        return set((self.root / "up").read_text().split())

    # -- commands -----------------------------------------------------------------------------------------------------

    @property
    def env(self) -> dict[str, str]:
        """Environment of a client of this cluster, free of an outer job's variables."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "PMI", "SBATCH"))}
        return {**clean, "SLURM_CONF": str(self.root / "slurm.conf"), "PATH": _path()}

    def run(self, *argv: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a client command and capture its text."""
        options.setdefault("timeout", 120)
        env = {**self.env, **options.pop("env", {})}
        done = subprocess.run([*map(str, argv)], text=True, capture_output=True, check=False, env=env, **options)
        if check and done.returncode:
            raise AssertionError(f"{argv}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def sbatch(self, *argv: str | Path, **options: Any) -> str:
        """Submit a job and return its id."""
        return self.run("sbatch", "--parsable", *argv, **options).stdout.strip().split(";")[0]

    def node_states(self) -> dict[str, str]:
        """State of each node, as sinfo writes it."""
        lines = self.run("sinfo", "-h", "-N", "-p", "batch", "-o", "%N %T", check=False).stdout.splitlines()
        return dict(line.split() for line in lines)

    def jobs(self, job_id: str) -> list[dict[str, str]]:
        """Fields of a job, or of every task of an array."""
        text = self.run("scontrol", "-o", "show", "job", job_id, check=False).stdout
        return [
            dict(word.split("=", 1) for word in line.split() if "=" in word)
            for line in text.splitlines()
            if line.startswith("JobId=")
        ]

    def job(self, job_id: str) -> dict[str, str]:
        """Fields of one job; empty when Slurm has forgotten it."""
        return next(iter(self.jobs(job_id)), {})

    def wait_job(self, job_id: str, states: Sequence[str] = (), *, timeout: float = 240.0) -> dict[str, str]:
        """Wait until a job, and every task of an array, is in one of `states` (default: any final one)."""
        wanted = frozenset(states) or FINAL

        def there() -> list[dict[str, str]]:
            found = self.jobs(job_id)
            return found if found and all(each["JobState"] in wanted for each in found) else []

        try:
            return wait_until(there, timeout=timeout)[0]
        except TimeoutError:
            seen = [(each.get("JobState"), each.get("Reason")) for each in self.jobs(job_id)]
            raise TimeoutError(f"job {job_id} after {timeout:g} s: {seen}, wanted {sorted(wanted)}") from None
