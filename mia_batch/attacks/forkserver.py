"""A process that has loaded what tasks need, and forks workers: loaded once, in memory once, whatever their number.

multiprocessing's own fork server listens on a named socket, which stays behind after a kill; this one has one end of a
pipe. It computes nothing and has one thread, so that forking it is safe. When the other end closes it ends with all its
workers.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import Any

# Read by the numerical libraries when they are loaded: one thread each, because the pool has a process per core.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1")
FORK = 0  # instead of the number of a process whose exit code is asked for
PATIENCE = 1.0  # seconds to end in


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
        code = "import sys; from mia_batch.attacks.forkserver import serve; serve(int(sys.argv[1]))"
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join(sys.path)}
        descriptor = theirs.fileno()
        # In a session of its own: Ctrl-C is for the parent, also while this process still imports.
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(descriptor)], pass_fds=(descriptor, *keep), env=environment,
            start_new_session=True,
        )
        theirs.close()
        self._control.send((work, arguments, preload))
        self._pids: list[int] = []
        self.n_forked = 0

    def fork(self) -> Connection:
        """Start a worker; returns the end of its pipe at once. Raises OSError if the server is gone."""
        ours, theirs = Pipe()
        self._control.send(FORK)
        send_handle(self._control, theirs.fileno(), self._process.pid)
        theirs.close()
        self.n_forked += 1
        return ours

    def pid(self, number: int) -> int:
        """Of a worker, counted from 0; waits until it is there."""
        while len(self._pids) <= number:
            self._pids.append(self._control.recv())
        return self._pids[number]

    def exit_code(self, number: int, *, kill: bool = False) -> int:
        """End a worker or wait for its end, once; negative for a signal. Raises OSError if the server is gone."""
        self.pid(self.n_forked - 1)  # the answers come in the order of the questions
        pid = self.pid(number)
        if kill:
            os.kill(pid, signal.SIGKILL)  # still this worker: its number is free when the server has asked for the code
        self._control.send(pid)
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
        work, arguments, preload = control.recv()
        for load in preload:
            load()
        gc.collect()
        gc.freeze()  # a collection in a worker would write to, and so copy, what is shared
        give_back_code()
        while True:
            request = control.recv()
            answer = _fork(control, work, arguments) if request == FORK else _exit_code(request)
            workers ^= {answer if request == FORK else request}
            control.send(answer)
    except (EOFError, OSError):
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os._exit(0)


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


def _fork(control: Connection, work: Callable[..., None], arguments: Any) -> int:
    descriptor = recv_handle(control)
    pid = os.fork()
    if pid == 0:
        control.close()
        work(Connection(descriptor), arguments)
        os._exit(0)
    os.close(descriptor)
    return pid


def _exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
