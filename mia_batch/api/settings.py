"""The configuration of an audit that is called from Python: the sections of a file, from keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mia_batch.errors import InputError
from mia_batch.process.resources import available_cpus
from mia_batch.settings.loading import read_section
from mia_batch.settings.outputs import NoModel, OutputsConfig
from mia_batch.settings.schema import FROM_FILES, AttackConfig, Config, GateConfig

ATTACKS: dict[str, dict[str, list[Any]]] = {
    "correctness": {}, "threshold_loss": {}, "threshold_modified_entropy": {}, "lr": {"C": [0.01, 1.0, 100.0]},
}
OF_DATA = ("nonmembers_used_for", "max_duplicates")
NOT_OPTIONS = ("methods", "backend", "scheduler", "trajectory")  # of the section `attack`
OF_REPORT = ("slices", "fdr")
OF_ATTACK = tuple(key for key in AttackConfig.model_fields if key not in NOT_OPTIONS)
OPTIONS = ("weak_model", "references", *OF_REPORT, *OF_ATTACK, *OF_DATA)


def n_cores(n_jobs: Any) -> int:
    """Cores to use: all that this process may use for -1, and never more.

    Raises:
        InputError: neither -1 nor a positive integer.
    """
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int | np.integer) or not (n_jobs == -1 or n_jobs > 0):
        raise InputError(f"n_jobs: must be -1 or a positive integer, got {n_jobs!r}")
    return available_cpus() if n_jobs == -1 else min(int(n_jobs), available_cpus())


def attack_section(methods: Any, n_jobs: int, **keys: Any) -> AttackConfig:
    """The section `attack`.

    Args:
        methods: names; or a mapping of names to grids; or a list of mappings with `method` and `params`.
        n_jobs: cores.
        keys: of the section.

    Raises:
        InputError: with a line for every problem.
    """
    backend = "serial" if n_jobs == 1 else "loky"
    section: AttackConfig = read_section("attack", {"methods": _methods(methods), "backend": backend, **_plain(keys)})
    return section


def make_config(
    attack: AttackConfig, gate: Any, *, weak_model: bool, report: Mapping[str, Any] | None = None, **data: Any
) -> Config:
    """The whole configuration, as of outputs that were imported; no file is read.

    Raises:
        InputError: with a line for every problem.
    """
    raw = {"tutorial": True} if gate == "tutorial" else gate
    if raw is not None and not isinstance(raw, Mapping | GateConfig):
        raise InputError(f"gate: must be tutorial, or a mapping, got {raw!r}")
    if not isinstance(weak_model, bool | np.bool_):
        raise InputError(f"weak_model: must be true or false, got {weak_model!r}")
    weak_model = bool(weak_model)
    if isinstance(raw, GateConfig):
        section = raw.model_copy(update={"weak_model": weak_model or raw.weak_model})
    else:
        section = read_section("gate", {**_plain(raw or {}), **({"weak_model": True} if weak_model else {})})
    of_data = read_section("data", {"source": FROM_FILES, "files": Path("audit"), **_plain(data)}, OutputsConfig)
    of_report = read_section("report", _plain(report or {}))
    return Config(path=Path("audit"), attack=attack, gate=section, model=NoModel(), data=of_data, report=of_report)


def _methods(given: Any) -> Any:
    """`attack.methods` as a file has them."""
    if isinstance(given, str):
        given = [given]
    if isinstance(given, Mapping):
        given = [{"method": name, "params": params or {}} for name, params in given.items()]
    if not isinstance(given, list | tuple):
        raise InputError(f"attacks: must be names, or names with their grids, got {type(given).__name__}")
    return [_plain({"method": each} if isinstance(each, str) else each) for each in given]


def _plain(value: Any) -> Any:
    """`value` as a file would give it: lists for tuples and arrays, Python's own numbers."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item) for item in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
