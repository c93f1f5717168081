"""A process that has loaded what tasks need, and forks workers: loaded once, in memory once, whatever their number.

multiprocessing's own fork server listens on a named socket, which stays behind after a kill; this one has one end of a
pipe. It computes nothing and has one thread, so that forking it is safe. When the other end closes it ends with all its
workers.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import mmap
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recvfds, sendfds
from pathlib import Path
from typing import Any, NoReturn

from mia_batch.errors import InputError

# Read by the numerical libraries when they are loaded: one thread each, because the pool has a process per core.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1")
FORK, WAIT, KILL = "fork", "wait", "kill"  # requests
PATIENCE = 1.0  # seconds to end in
MOST_AT_ONCE = 250  # file descriptors in a message: Linux takes 253
PR_SET_PDEATHSIG = 1  # of prctl(2)
# The parent's own module path, whatever lies in the working directory.
START = """
import sys
sys.path[:] = sys.argv[2:]
from mia_batch.attacks.forkserver import serve
serve(int(sys.argv[1]))
"""


class ForkServer:
    """The parent's side."""

    def __init__(
        self, work: Callable[..., None], arguments: Any, preload: Sequence[Callable[[], None]], *, keep: Sequence[int]
    ) -> None:
        """Start it; returns at once.

        Args:
            work: what a worker does, called with its end of a pipe and `arguments`; a module's function.
            arguments: plain values.
            preload: called before the first fork; functions of modules.
            keep: file descriptors that workers go on with.
        """
        self._control, theirs = Pipe()
        descriptor = theirs.fileno()
        # In a session of its own: Ctrl-C is for the parent, also while this process still imports.
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(descriptor), *sys.path], pass_fds=(descriptor, *keep),
            env={**os.environ, **ONE_THREAD}, stdin=subprocess.DEVNULL, start_new_session=True,
        )
        theirs.close()
        self._control.send((work, arguments, preload, os.getpid()))
        self._pids: list[int] = []
        self.n_forked = 0

    def fork(self, n: int) -> list[Connection]:
        """Start workers; returns the ends of their pipes at once. Raises OSError if the server is gone.

        One message for many: a socket holds few, and none is read as long as the server loads.
        """
        if n > MOST_AT_ONCE:
            return self.fork(MOST_AT_ONCE) + self.fork(n - MOST_AT_ONCE)
        ours, theirs = zip(*(Pipe() for _ in range(n)), strict=True)
        self._control.send((FORK, n))
        with socket.fromfd(self._control.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as control:
            sendfds(control, [pipe.fileno() for pipe in theirs])
        for pipe in theirs:
            pipe.close()
        self.n_forked += n
        return list(ours)

    def pid(self, number: int) -> int:
        """Of a worker, counted from 0; waits until it is there.

        Raises:
            InputError: the system has refused a process.
            EOFError: the server is gone.
        """
        while len(self._pids) <= number:
            self._pids += self._control.recv()
        if (pid := self._pids[number]) < 0:
            raise InputError(f"system: must allow a process for each core, got: {os.strerror(-pid)}")
        return pid

    def exit_code(self, number: int, *, kill: bool = False) -> int:
        """End a worker or wait for its end, once; negative for a signal. Raises as `pid`, or OSError."""
        pid = self.pid(number)
        while len(self._pids) < self.n_forked:  # the answers come in the order of the questions
            self._pids += self._control.recv()
        self._control.send((KILL if kill else WAIT, pid))
        code: int = self._control.recv()
        return code

    def wait(self) -> int:
        """Its own exit code, when it has ended."""
        return self._process.wait()

    def close(self) -> None:
        """End it and the workers."""
        self._control.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:  # it is still loading
            self._process.kill()
            self._process.wait()


def serve(descriptor: int) -> None:
    """The server's whole life."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # schedulers send these to all; the parent decides
        signal.signal(signum, signal.SIG_IGN)
    control, workers = Connection(descriptor), set[int]()
    try:
        work, arguments, preload, parent = control.recv()
        _load(preload, parent)
        while True:
            request, number = control.recv()
            if request == FORK:
                pids = _fork(_receive(control, number), control, work, arguments)
                workers.update(pid for pid in pids if pid > 0)
                control.send(pids)
            else:
                workers.remove(number)
                control.send(_exit_code(number, kill=request == KILL))
    except (EOFError, ConnectionError):  # the parent has closed its end
        pass
    finally:
        for pid in workers:
            _exit_code(pid, kill=True)


def _load(preload: Sequence[Callable[[], None]], parent: int) -> None:
    """Load what workers need, as long as the parent lives: its end is read from the pipe only afterwards."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died before
        raise EOFError
    for load in preload:
        load()
    gc.collect()
    gc.freeze()  # a collection in a worker would write to, and so copy, what is shared
    give_back_code()
    prctl(PR_SET_PDEATHSIG, 0)


def give_back_code() -> None:
    """Drop the pages of program code that loading has touched; what is needed again comes back.

    They are a third of its memory, most of them a compiler's that workers do not run. What cannot be dropped stays.
    """
    madvise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, access, _ = line.split(maxsplit=2)
        if access == "r-xp" and "/" in line:
            start, end = (int(address, 16) for address in addresses.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def _receive(control: Connection, n: int) -> list[int]:
    """The workers' ends of their pipes, the first one last."""
    with socket.fromfd(control.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as sender:
        return list(reversed(recvfds(sender, n)))


def _fork(ends: list[int], control: Connection, work: Callable[..., None], arguments: Any) -> list[int]:
    """A process for each end of a pipe; returns their numbers, or the system's number of an error, negative."""
    pids = []
    while ends:
        end = ends.pop()
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or errno.EAGAIN)
        if pid == 0:
            control.close()
            for other in ends:  # held here, it would not close when its worker dies
                os.close(other)
            _live(end, work, arguments)
        os.close(end)
        pids.append(pid)
    return pids


def _live(end: int, work: Callable[..., None], arguments: Any) -> NoReturn:
    """A worker's process, which must not go on as a second server."""
    try:
        work(Connection(end), arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _exit_code(pid: int, *, kill: bool) -> int:
    if kill:
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
