"""Fit the attacks on features.h5, all of them or one, each on all cores that this job was given."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.attacks.base import AttackResult
from mia_batch.errors import InputError
from mia_batch.process.cpus import cores
from mia_batch.process.exit_codes import OK, RESUME
from mia_batch.process.stop import StopRequest
from mia_batch.rundir.features import Features, read_features
from mia_batch.rundir.hdf5 import check_room
from mia_batch.rundir.identity import run_digest
from mia_batch.rundir.journal import Journal, Journals
from mia_batch.rundir.manifest import check_same_run, launch
from mia_batch.rundir.paths import RunPaths
from mia_batch.rundir.results import read_attack, write_attack
from mia_batch.search.engine import Stopped, run_attacks
from mia_batch.settings.loading import named_in
from mia_batch.settings.schema import AttackConfig, Config
from mia_batch.stages.arguments import load_run

log = logging.getLogger(__name__)


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
    manifest = check_same_run(paths, config)
    run = run_digest(manifest)
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
        more = {"run": run, "launch": launch("attack", n_jobs=n_jobs)}
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


def run_attack_stage(args: argparse.Namespace, stop: StopRequest) -> int:
    config, paths = load_run(args)
    with named_in(config.path):
        return attack(config, paths, args.method, stop)
