"""What must be equal for two runs to be the same one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mia_batch.errors import InputError
from mia_batch.rundir.paths import RunPaths

# A run that moved to another mount is still the same run: files count by their digests, not by their names. Where the
# search is computed, and in how much memory, changes no number, so that a run can go on elsewhere.
NOT_IDENTITY = (
    "train", "model.checkpoint", "model.factory", "data.path", "data.source",
    "attack.memory_gib", "attack.backend", "attack.scheduler",
)


def identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for two manifests to be of the same run, as a flat mapping."""
    flat = _flatten(manifest["config"])
    kept = {
        key: value for key, value in flat.items()
        if not any(key == name or key.startswith(f"{name}.") for name in NOT_IDENTITY) and not key.endswith(".indices")
    }
    functions = {f"{key} (function)": str(flat[key]).rpartition(":")[2] for key in ("model.factory", "data.source")}
    modules = {key: flat[key] for key in ("model.factory", "data.source") if ".py:" not in str(flat[key])}
    return kept | functions | modules | {f"SHA-256 of {key}": value for key, value in manifest["digests"].items()}


def run_digest(manifest: Mapping[str, Any]) -> str:
    """Hex digest of a run's identity: what results carry to show which run they belong to."""
    text = json.dumps(identity(manifest), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def data_digest(manifest: Mapping[str, Any]) -> str:
    """Hex digest of what a run's samples are: the same for runs that differ in model, attacks or gate alone."""
    ours = ("data.", "SHA-256 of data")
    text = json.dumps({key: value for key, value in identity(manifest).items() if key.startswith(ours)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """One phrase for each key that is not the same."""
    keys = [*there, *(key for key in here if key not in there)]
    absent = "nothing"
    return [
        f"{key} is {_brief(there.get(key, absent))} there and {_brief(here.get(key, absent))} here"
        for key in keys if there.get(key, absent) != here.get(key, absent)
    ]


def refuse_differences(paths: RunPaths, found: list[str]) -> None:
    """Raise an InputError that lists the differences, if there are any."""
    if found:
        advice = "; choose another --out, or remove that directory to audit anew"
        raise InputError([f"{paths.root}: --out: holds another run: {phrase}{advice}" for phrase in found])


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [(f"{prefix}.{key}" if prefix else str(key), item) for key, item in value.items()]
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        items = [(f"{prefix}[{i}]", item) for i, item in enumerate(value)]
    else:
        return {prefix: value}
    return {name: leaf for key, item in items for name, leaf in _flatten(item, key).items()}


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
