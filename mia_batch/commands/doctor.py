"""`mia-batch doctor [DIR]`: one screen of what this node offers, and what of it will be slow or fail."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import mia_batch
from mia_batch.errors import InputError, one_line
from mia_batch.mpi.launcher import LAUNCHER_PREFIXES, SRUN_PLUGINS, find_mpirun
from mia_batch.network.requirements import RANK_BYTES, SLOW_ON_CPU, slow_on_cpu
from mia_batch.process.exit_codes import FAILED, OK
from mia_batch.process.resources import available_cpus, available_memory
from mia_batch.report.media import terminal
from mia_batch.report.tables import has_colours, row_texts, terminal_width, wrapped

GOOD, SLOW, BAD = "ok", "slow", "FAIL"
PROBE_TIMEOUT_S = 60
SHARED = "/dev/shm"  # nosec B108
EXAMPLES = (
    "mia-batch doctor runs",
    "srun mia-batch doctor /scratch/runs --json   # what a compute node offers",
)
GIB = 2**30
SMALL_SHM = GIB // 4
LITTLE_SPACE = GIB
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "fuse.sshfs", "9p")
# What the launcher of each MPI says of itself.
FAMILIES = {"Open MPI": ("Open MPI", "OpenRTE", "PRRTE"), "MPICH": ("HYDRA", "MPICH"), "Intel": ("Intel",)}


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what is there, whether it is good, and what to do if not."""

    name: str
    value: str
    state: str = GOOD
    advice: str = ""


def _run(command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Raises:
        RuntimeError: it fails, with the last line that it prints, or takes too long.
    """
    try:
        done = subprocess.run(command, text=True, capture_output=True, check=False, timeout=PROBE_TIMEOUT_S, env=env)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no answer within {PROBE_TIMEOUT_S} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(lines[-1])
    return done


def run_probe(code: str) -> str:
    """Output of a piece of Python in a process of its own, so that what it imports stays out of this one."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHER_PREFIXES)}
    return _run([sys.executable, "-c", code], env).stdout.strip()


def python() -> Finding:
    """The interpreter and the product."""
    return Finding("python", f"{platform.python_version()} {platform.machine()}, mia_batch {mia_batch.__version__}")


def mindspore() -> Finding:
    """MindSpore's version and the device that `device: auto` takes."""
    try:
        version = metadata.version("mindspore")
    except metadata.PackageNotFoundError:
        advice = "extract needs it: pip install 'mia_batch[cpu]', or the site's"
        return Finding("mindspore", "not installed", BAD, advice)
    try:
        device = run_probe("import mindspore; print(mindspore.get_context('device_target'))").splitlines()[-1]
    except RuntimeError as error:
        return Finding("mindspore", f"{version}, does not load: {error}", BAD, "CANN or CUDA of another version?")
    return judge_mindspore(version, device)


def judge_mindspore(version: str, device: str) -> Finding:
    """Whether this version is fast on this device."""
    value = f"{version} on {device}"
    if device == "CPU" and slow_on_cpu(version):
        return Finding("mindspore", value, SLOW, SLOW_ON_CPU)
    return Finding("mindspore", value)


def mpi() -> Finding:
    """The MPI library that mpi4py finds and the launcher that would start it."""
    try:
        said = run_probe("from mpi4py import MPI; print(MPI.Get_library_version())")
        library = said.replace("\0", "").splitlines()[0].strip()
    except (RuntimeError, IndexError) as error:
        return Finding("mpi", f"not usable: {error}", BAD, "load the site's MPI module, or install the extra cpu")
    try:
        launcher = find_mpirun()
    except InputError:
        return Finding("mpi", library, SLOW, "no mpirun: more than one rank only by srun")
    return judge_mpi(library, launcher, _launcher_version(launcher))


def _launcher_version(launcher: str) -> str:
    try:
        return _output([launcher, "--version"])
    except (OSError, RuntimeError):
        return ""


def judge_mpi(library: str, launcher: str, said: str) -> Finding:
    """Whether the launcher belongs to the library: another's starts many worlds of one rank."""
    of_library = next((family for family in FAMILIES if family.lower() in library.lower()), "")
    of_launcher = next((family for family, signs in FAMILIES.items() if any(sign in said for sign in signs)), "")
    value = f"{' '.join(library.split())[:60]}, {launcher}"
    if of_library and of_launcher and of_library != of_launcher:
        return Finding("mpi", value, BAD, f"this mpirun is {of_launcher}'s: put {of_library}'s first on PATH")
    srun = SRUN_PLUGINS.get(of_library)
    return Finding("mpi", value, advice=f"by srun: --mpi={srun}" if srun else "")


def processor() -> Finding:
    """Cores by affinity and cgroup, of those that the machine has."""
    ours, machine = available_cpus(), os.cpu_count() or 1
    bounded = "" if ours == machine else "bounded by affinity, cgroup or Slurm"
    return Finding("cores", f"{ours} of {machine}", advice=bounded)


def memory() -> Finding:
    """Memory by cgroup and what is free."""
    import psutil

    total, free = psutil.virtual_memory().total, psutil.virtual_memory().available
    ours = available_memory()
    by_cgroup = f" by cgroup, of {total / GIB:.1f}" if ours < total else ""
    value = f"{ours / GIB:.1f} GiB{by_cgroup}, {free / GIB:.1f} free"
    if min(ours, free) < RANK_BYTES:
        return Finding("memory", value, BAD, "a rank of MindSpore needs about half a GiB")
    return Finding("memory", value)


def slurm() -> Finding:
    """Slurm's version, the job that this is in, and the cluster's MPI plugins."""
    if not shutil.which("sbatch"):
        return Finding("slurm", "no clients here", advice="submit needs them; run does not")
    job = os.environ.get("SLURM_JOB_ID")
    try:
        version = _output(["sbatch", "--version"])
        plugins = mpi_plugins(_output(["srun", "--mpi=list"]))
        _output(["sinfo", "--noheader"])
    except (OSError, RuntimeError) as error:
        said = f"does not answer: {' '.join(str(error).split())[:80]}"
        state = BAD if job else GOOD
        return Finding("slurm", said, state, "submit needs a cluster (scontrol ping asks for it); run does not")
    inside = f"in job {job} with {os.environ.get('SLURM_NTASKS', '1')} task(s)" if job else "not in a job"
    return Finding("slurm", f"{version}, {inside}; srun --mpi: {' '.join(plugins)}")


def mpi_plugins(said: str) -> list[str]:
    """The plugins of `srun --mpi=list`, which names them below a heading, and versions of pmix after a colon."""
    _, *lines = said.splitlines()
    return [word for line in lines for word in line.rpartition(":")[2].split()]


def _output(command: Sequence[str]) -> str:
    done = _run(command)
    return (done.stdout + done.stderr).strip()


def hdf5() -> Finding:
    """The HDF5 library."""
    try:
        return Finding("hdf5", run_probe("import h5py; print(h5py.version.hdf5_version, 'by h5py', h5py.__version__)"))
    except RuntimeError as error:
        return Finding("hdf5", f"not usable: {error}", BAD, "pip install h5py")


def shared_memory() -> Finding:
    """Size of /dev/shm, which MPI uses between the ranks of a node."""
    try:
        usage = shutil.disk_usage(SHARED)
    except OSError:
        return Finding(SHARED, "not there", SLOW, "ranks of a node talk over the network instead")
    state, advice = (SLOW, "a container? start it with a larger --shm-size") if usage.free < SMALL_SHM else (GOOD, "")
    return Finding(SHARED, f"{usage.free / GIB:.1f} GiB free", state, advice)


def directory(path: Path) -> Finding:
    """The file system of a run directory: kind, room, whether it bears what the stages do there."""
    try:
        from mia_batch.rundir.file_system import nearest_folder, try_out
    except ImportError as error:
        return Finding("directory", f"{path}: cannot be looked at", BAD, one_line(error))
    there = nearest_folder(path)
    kind, free = _file_system(there), shutil.disk_usage(there).free
    value = f"{there}: {kind}, {free / GIB:.1f} GiB free"
    try:
        try_out(there)
    except InputError as error:
        return Finding("directory", value, BAD, str(error))
    if free < LITTLE_SPACE:
        return Finding("directory", value, BAD, "a run may fill it")
    if kind.startswith(("tmpfs", "ramfs")):
        return Finding("directory", value, SLOW, "in memory: gone after a reboot, and other nodes do not see it")
    shared = kind.startswith(NETWORK_FILE_SYSTEMS)
    return Finding("directory", value, advice="" if shared else "on several nodes: is this seen by all of them?")


def _file_system(path: Path) -> str:
    """Kind of the file system that holds `path`."""
    best, kind = "", "unknown"
    mounts = Path("/proc/self/mounts")
    for line in mounts.read_text(encoding="utf-8").splitlines() if mounts.exists() else ():
        _, mounted, name, *_ = line.split()
        mounted = mounted.replace("\\040", " ")
        if path.resolve().is_relative_to(mounted) and len(mounted) >= len(best):
            best, kind = mounted, name
    return kind


def examine(path: Path) -> list[Finding]:
    """All findings, in the order of the screen; what cannot be looked at is a finding too."""
    looks: Mapping[str, Callable[[], Finding]] = {
        "python": python, "mindspore": mindspore, "mpi": mpi, "cores": processor, "memory": memory, "slurm": slurm,
        "hdf5": hdf5, SHARED: shared_memory, "directory": lambda: directory(path),
    }  # fmt: skip
    found: list[Finding] = []
    for name, look in looks.items():
        try:
            found.append(look())
        except OSError as error:
            found.append(Finding(name, f"cannot be looked at: {error}", SLOW))
    return found


def screen(findings: Sequence[Finding], *, width: int | None = None, colours: bool = False) -> str:
    """The findings as lines, each problem's advice below it."""
    rows = [(finding.state, finding.name, finding.value) for finding in findings]
    lines = []
    for text, finding in zip(row_texts(rows, width=width, judging=0, colours=colours), findings, strict=True):
        lines += [text, *([wrapped(f"    {terminal(finding.advice)}", width)] if finding.advice else [])]
    return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR."""
    parser.add_argument("dir", metavar="DIR", nargs="?", default=".", help="where runs will go (default here)")
    parser.add_argument("--json", action="store_true", help="print one JSON array")


def run(args: argparse.Namespace) -> int:
    """Print the findings; exit code 1 if something will fail."""
    findings = examine(Path(args.dir).absolute())
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        print(screen(findings, width=terminal_width(), colours=has_colours()))
    return FAILED if any(finding.state == BAD for finding in findings) else OK
