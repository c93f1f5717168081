"""attacks/<name>.h5: the result of an attack."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from mia_batch.attacks.base import AttackResult
from mia_batch.errors import InputError
from mia_batch.files import atomic_path
from mia_batch.rundir.hdf5 import (
    SCHEMA,
    as_input_error,
    check_room,
    check_schema,
    get_attr,
    get_attrs,
    reading,
    set_attrs,
)
from mia_batch.rundir.identity import mark_of


def write_attack(path: Path, result: AttackResult) -> None:
    """Write attacks/<name>.h5, whole or not at all."""
    check_room(path.parent, 32 * len(result.member) + 512 * len(result.cv_results.get("params", ())))
    with atomic_path(path) as temporary, as_input_error(path), h5py.File(temporary, "w", locking=False) as file:
        for name in ("scores", "predicted", "scored_by", "member"):
            file.create_dataset(name, data=getattr(result, name), fletcher32=True)  # bytes that change are noticed
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
    with reading(path), h5py.File(path, "r", locking=False) as file:
        check_schema(file, path, "attack")
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
    with reading(path), h5py.File(path, "r", locking=False) as file:
        check_schema(file, path, "attack")
        attrs = get_attrs(file)
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


def _scored_by(file: h5py.File) -> NDArray[np.int32]:
    """The version before had one split, and marked the rows that it scored."""
    if "scored_by" in file:
        return np.asarray(file["scored_by"][:], dtype=np.int32)
    return np.where(file["evaluated"][:].astype(bool), 0, -1).astype(np.int32)
