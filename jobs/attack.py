"""Fit the attacks on features.h5, all of them or one, each on all cores that this job was given."""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import provenance, signals
from mia_batch.attacks.cores import cores
from mia_batch.attacks.result import AttackResult
from mia_batch.attacks.search import Stopped, run_attacks
from mia_batch.config import AttackConfig, Config
from mia_batch.entry import OK, RESUME, StopRequest, run_main
from mia_batch.errors import InputError
from mia_batch.paths import RunPaths
from mia_batch.plan import named_in
from mia_batch.stage import load_run, stage_parser
from mia_batch.store import Features, check_room, read_attack, read_features, write_attack

log = logging.getLogger("mia_batch.attack")


class Journal:
    """Finished tasks of one attack, a line of JSON each; it belongs to this process until it is closed."""

    def __init__(self, path: Path, run: str) -> None:
        """Read what an earlier process of the same `run` has left; the journal of any other run starts anew.

        Raises:
            InputError: another process is at this attack.
        """
        self.path = path
        try:
            self._file = open(path, "a+b")  # noqa: SIM115  (open until the attack ends)
        except OSError as error:
            raise InputError(f"{path}: must be writable, got: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise InputError(f"{path}: another process is fitting this attack") from None
        self._found = self._read({"run": run})

    def _read(self, header: dict[str, str]) -> dict[str, Any]:
        """The entries up to the first line that a kill has torn, which is cut off."""
        self._file.seek(0)
        found: dict[str, Any] = {}
        good = 0
        for number, line in enumerate(self._file):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
                if number and entry:
                    found[entry["key"]] = entry["value"]
            except (ValueError, TypeError, KeyError):
                entry = None
            if not entry or (number == 0 and entry != header):
                break
            good += len(line)
        self._file.truncate(good)
        if not good:
            self._append(header)
        return found

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise InputError(f"{self.path}: must be writable, got: {error.strerror}") from error

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: str) -> dict[str, Any] | None:
        """The result that was put under `key`."""
        return self._found.get(key)

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a result; when this returns it is on the disk."""
        self._append({"key": key, "value": value})

    def remove(self) -> None:
        """The attack's own file holds everything now."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let other processes have it."""
        self._file.close()


class Journals:
    """The journals of the attacks that are being fitted; a task's key begins with its attack."""

    def __init__(self, by_method: dict[str, Journal]) -> None:
        self._by_method = by_method

    def _of(self, key: str) -> Journal:
        return self._by_method[key.partition("/")[0]]

    def get(self, key: str) -> dict[str, Any] | None:
        """See Journal."""
        return self._of(key).get(key)

    def put(self, key: str, value: dict[str, Any]) -> None:
        """See Journal."""
        self._of(key).put(key, value)


def feature_rows(features: Features, kind: str) -> NDArray[np.float64]:
    """`[loss, logits]`, shape (n_samples, 1 + n_classes); `kind` mindarmour takes its clipped loss."""
    loss = signals.mindarmour_loss(features.logits, features.label) if kind == "mindarmour" else features.loss
    return np.column_stack([loss, features.logits]).astype(np.float64)


def to_do(config: Config, paths: RunPaths, run: str, only: str | None) -> list[str]:
    """The attacks that have no result yet.

    Raises:
        InputError: an unknown name, or a result of another run.
    """
    names = [method.method for method in config.attack.methods]
    if only is not None and only not in names:
        raise InputError(f"--method: must be one of {', '.join(names)}, got {only!r}")
    left = []
    for name in names if only is None else [only]:
        if not paths.attack(name).exists():
            left.append(name)
        elif read_attack(paths.attack(name)).provenance.get("run") != run:
            raise InputError(f"{paths.attack(name)}: is the result of another run; remove it or choose another --out")
    return left


def keep(result: AttackResult, *, paths: RunPaths, run: dict[str, Any], journal: Journal) -> None:
    """Write attacks/<name>.h5; its journal is not needed any more."""
    write_attack(paths.attack(result.method), dataclasses.replace(result, provenance={**result.provenance, **run}))
    journal.remove()
    log.info("%s: written", paths.attack(result.method).name)


def attack(config: Config, paths: RunPaths, only: str | None, stop: StopRequest) -> int:
    """The whole stage; returns the exit code."""
    manifest = provenance.check_same_run(paths, config)
    run = provenance.run_digest(manifest)
    left = to_do(config, paths, run, only)
    if not left:
        log.info("attack: nothing to do")
        return OK
    features = read_features(paths.features)
    if features.attrs.get("run") != run:
        raise InputError(f"{paths.features}: must be of this run, got the features of another one")
    methods = tuple(method for method in config.attack.methods if method.method in left)
    for note in (note for method in methods for note in method.notes):
        log.info("%s", note)
    return fit(config.attack.model_copy(update={"methods": methods}), features, paths, run, stop)


def fit(settings: AttackConfig, features: Features, paths: RunPaths, run: str, stop: StopRequest) -> int:
    """Search and fit what is left, on all cores of this job."""
    n_jobs, X = cores(), feature_rows(features, settings.features)
    check_room(paths.root, X.nbytes)  # for the workers' copy
    with ExitStack() as stack:
        journals = {method.method: Journal(paths.journal(method.method), run) for method in settings.methods}
        for name, journal in journals.items():
            stack.callback(journal.close)
            if len(journal):
                log.info("%s: goes on after %d finished tasks", name, len(journal))
        more = {"run": run, "launch": provenance.launch("attack", n_jobs=n_jobs)}
        try:
            run_attacks(
                X, features.member, settings, n_jobs=n_jobs,
                on_result=lambda result: keep(result, paths=paths, run=more, journal=journals[result.method]),
                journal=Journals(journals), stop=partial(bool, stop), directory=str(paths.root),
            )
        except Stopped:
            log.warning("stopped by signal %s; finished fits are kept, the same command goes on", stop.signal)
            return RESUME
    return OK


def _attack(args: argparse.Namespace, stop: StopRequest) -> int:
    config, paths = load_run(args)
    with named_in(config.path):
        return attack(config, paths, args.method, stop)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python jobs/attack.py CONFIG --out DIR [--method NAME]`."""
    parser = stage_parser("attack", __doc__ or "")
    parser.add_argument("--method", metavar="NAME", help="fit this attack alone (default: all of the config)")
    args = parser.parse_args(argv)
    with StopRequest().listening() as stop:
        return run_main(lambda: _attack(args, stop), verbose=args.verbose)


if __name__ == "__main__":
    sys.exit(main())
