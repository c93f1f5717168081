"""attacks/<name>.h5: the result of an attack."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import AttackResult
from mia_batch.errors import InputError
from mia_batch.files import atomic_path
from mia_batch.rundir.hdf5 import SCHEMA, as_input_error, check_room, get_attr, get_attrs, new_file, own_file, set_attrs
from mia_batch.rundir.identity import mark_of
from mia_batch.rundir.seal import block_bytes
from mia_batch.rundir.structure import shown

COLUMNS = {"scores": "<f8", "predicted": "i1", "scored_by": "<i4", "member": "i1"}  # a row for each sample

TYPES: Mapping[str, tuple[type, ...]] = {  # of attributes
    "method": (str,), "best_params": (dict,), "best_score": (float, int, type(None)), "reason": (str,),
    "provenance": (dict,), "not_run": (bool,),
}  # fmt: skip


def write_attack(path: Path, result: AttackResult) -> None:
    """Write attacks/<name>.h5, whole or not at all."""
    check_room(path.parent, 32 * len(result.member) + 512 * len(result.cv_results.get("params", ())))
    block = block_bytes([*COLUMNS, *(f"cv_results/{name}" for name in result.cv_results)])
    with atomic_path(path) as temporary, as_input_error(path), new_file(temporary, "attack", block) as file:
        for name, kind in COLUMNS.items():
            file.create_dataset(name, data=np.asarray(getattr(result, name), dtype=kind))
        table = file.create_group("cv_results", track_order=True)
        for name, column in result.cv_results.items():
            is_text = len(column) > 0 and isinstance(column[0], str)
            table.create_dataset(name, data=column, dtype=h5py.string_dtype() if is_text else None)
        set_attrs(file, {
            "schema": SCHEMA, "kind": "attack", "method": result.method, "best_params": result.best_params,
            "best_score": None if np.isnan(result.best_score) else result.best_score, "reason": result.reason,
            "provenance": result.provenance, **({"not_run": True} if result.not_run else {}),
        })


def read_mark(path: Path) -> tuple[str | None, str]:
    """The mark of attacks/<name>.h5, see `identity.attack_marks`, and why it has no score.

    That is "" if it has one, or needs none: what the samples do not allow is not tried again.

    Raises:
        InputError: missing, damaged, of another schema, or the result of another attack.
    """
    with own_file(path, "attack") as own:
        file = own.file
        _check_types(get_attrs(file), path)
        method = get_attr(file, "method")
        if method != path.stem:  # the marks of the version before are the same for all attacks of a run
            raise InputError(f"{path}: method: must be {path.stem}, got {method}; remove it and run attack again")
        reason = "" if get_attr(file, "not_run", False) else get_attr(file, "reason", "")
        return mark_of(get_attr(file, "provenance")), reason


def read_attack(path: Path) -> AttackResult:
    """Read attacks/<name>.h5.

    Raises:
        InputError: missing, damaged or of another schema.
    """
    with own_file(path, "attack") as own:
        if not own.whole:
            raise InputError(f"{path}: must be complete, got one without digests of all; remove it")
        own.check_parts()
        file = own.file
        attrs = get_attrs(file)
        _check_types(attrs, path)
        table = {
            name: (column.asstr()[:] if h5py.check_string_dtype(column.dtype) else column[:]).tolist()
            for name, column in file["cv_results"].items()
        }
        predicted = file["predicted"][:]
        if not np.isin(predicted, (-1, 0, 1)).all():
            raise ValueError("predicted must be 0 or 1, or -1 where a row was fitted")
        return AttackResult(
            method=attrs["method"],
            scores=file["scores"][:],
            predicted=predicted,
            scored_by=_scored_by(file),
            member=file["member"][:],
            best_params=attrs["best_params"],
            best_score=math.nan if attrs["best_score"] is None else attrs["best_score"],
            cv_results=table,
            provenance=attrs["provenance"],
            reason=attrs.get("reason", ""),  # which files of the version before lack
            not_run=attrs.get("not_run", False),
        )


def _check_types(attrs: Mapping[str, Any], path: Path) -> None:
    """Refuse attributes of other types than are written."""
    for name, kinds in TYPES.items():
        if name in attrs and not isinstance(attrs[name], kinds):
            raise InputError(f"{path}: {name}: must be a {kinds[0].__name__}, got {shown(attrs[name])}")


def _scored_by(file: h5py.File) -> NDArray[np.int32]:
    """The version before had one split, and marked the rows that it scored."""
    if "scored_by" in file:
        return np.asarray(file["scored_by"][:], dtype=np.int32)
    return np.where(file["evaluated"][:].astype(bool), 0, -1).astype(np.int32)
