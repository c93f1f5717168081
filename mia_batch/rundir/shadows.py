"""The files of a folder of reference models that are trained here, and the plan that is written there once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_batch import json_text
from mia_batch.attacks.reference_plan import ReferencePlan
from mia_batch.errors import InputError, one_line
from mia_batch.files import atomic_path, not_written, write_text
from mia_batch.locks import open_locked
from mia_batch.npy_files import DAMAGED, map_npy, read_npz

SCHEMA = 1


class ShadowPaths:
    """Names of the files. A file at its final name is complete."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plan = root / "plan.npz"  # which model is trained on which sample
        self.record = root / "plan.json"  # what the plan was made from
        self.samples = root / "samples"  # directory of index files

    def checkpoint(self, number: int) -> Path:
        """The weights of a model; how they came about is beside them."""
        return self.root / f"shadow_{number:03d}.ckpt"

    def indices(self, number: int, split: int) -> Path:
        """The samples that a model is trained on, of one split."""
        return self.samples / f"shadow_{number:03d}_{split}.npy"

    def lock(self, number: int) -> Path:
        """Held by the process that trains a model."""
        return self.root / f".shadow_{number:03d}.lock"

    @property
    def plan_lock(self) -> Path:
        """Held by the process that writes the plan."""
        return self.root / ".plan.lock"

    def create(self) -> None:
        """Make the folders, or say in one line why that cannot be."""
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_written(self.root, error, "--out: must be a directory that can be written") from error


@dataclass(frozen=True)
class ShadowPlan:
    """A plan and its samples, as plan.npz has them.

    Attributes:
        models: which is trained on which sample, (K, M), and with which seed, (K,).
        split: of each sample, (M,).
        sample_index: position in its split, int64 (M,).
    """

    models: ReferencePlan
    split: NDArray[np.str_]
    sample_index: NDArray[np.int64]

    def __post_init__(self) -> None:
        shapes = {self.split.shape, self.sample_index.shape, self.models.included.shape[1:]}
        if len(shapes) != 1:
            raise ValueError(f"included, split and sample_index must be of the same samples, got shapes {shapes}")

    def first(self, count: int) -> ShadowPlan:
        """The same with the first models alone."""
        models = ReferencePlan(self.models.included[:count], self.models.seeds[:count])
        return replace(self, models=models)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The content of plan.npz."""
        return {
            "included": self.models.included, "split": self.split, "sample_index": self.sample_index,
            "seeds": self.models.seeds,
        }  # fmt: skip

    def digest(self) -> str:
        """SHA-256 of who is trained on what, and with which seeds."""
        digest = hashlib.sha256("\n".join(self.split).encode())
        for array in (self.sample_index, self.models.included, self.models.seeds):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def write_plan(paths: ShadowPaths, plan: ShadowPlan, record: Mapping[str, Any]) -> ShadowPlan:
    """Put plan.npz in place, then plan.json: a kill in between leaves what the next call makes again, or goes on from.

    Args:
        paths: of the folder, which is made.
        plan: the plan.
        record: what it was made from.

    Returns:
        The plan.
    """
    paths.create()
    with atomic_path(paths.plan) as temporary, open(temporary, "wb") as file:
        np.savez(file, **plan.arrays())
    counted = {"schema": SCHEMA, "count": plan.models.n_references, "sha256": plan.digest(), **record}
    write_text(paths.record, json_text.written(counted))
    return plan


def read_record(paths: ShadowPaths) -> dict[str, Any] | None:
    """The content of plan.json; None where there is none.

    Raises:
        InputError: it is no such file.
    """
    try:
        found = json_text.read(paths.record)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{paths.record}: must be a plan's record, got {one_line(error)}") from error
    keys = {"schema": int, "count": int, "seed": int, "sha256": str, "identity": dict}
    wrong = [key for key, kind in keys.items() if not isinstance(found, dict) or not isinstance(found.get(key), kind)]
    if wrong or found["schema"] != SCHEMA:
        rule = f"must be a plan's record of schema {SCHEMA}"
        raise InputError(f"{paths.record}: {rule}, got {'none with ' + wrong[0] if wrong else found['schema']}")
    return dict(found)


def read_plan(paths: ShadowPaths) -> ShadowPlan:
    """The content of plan.npz.

    Raises:
        InputError: it is not there, or no such file.
    """
    try:
        found = read_npz(paths.plan, ("included", "seeds", "split", "sample_index"))
        models = ReferencePlan(found["included"], found["seeds"])
        return ShadowPlan(models, found["split"], found["sample_index"])
    except (OSError, *DAMAGED) as error:
        raise InputError(f"{paths.plan}: must be a plan that mia-batch has written, got {one_line(error)}") from error


def recorded_plan(paths: ShadowPaths, record: Mapping[str, Any]) -> ShadowPlan:
    """The plan that plan.json speaks of: plan.npz may have more models where an extension was killed.

    Raises:
        InputError: it is another one.
    """
    plan = read_plan(paths)
    count = record["count"]
    if plan.models.n_references < count or plan.first(count).digest() != record["sha256"]:
        raise InputError(f"{paths.plan}: must be the plan of {paths.record.name}, got another; train to another --out")
    return plan.first(count)


def write_indices(path: Path, index: NDArray[np.int64]) -> None:
    """Put an index file in place, unless it is there with this content."""
    try:
        if np.array_equal(map_npy(path), index):
            return
    except (OSError, *DAMAGED):
        pass
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, index)


@contextmanager
def trained_here(paths: ShadowPaths, number: int) -> Iterator[bool]:
    """Keep other processes from training this model meanwhile; yields False where one of them does now."""
    try:
        file = open_locked(paths.lock(number))
    except BlockingIOError:
        yield False
        return
    except OSError as error:
        raise not_written(paths.lock(number), error) from error
    with file:
        yield True
