"""The outputs of reference models: one HDF5 file each, in a folder that any number of audits share.

A file's name is its key, the digest of all that its content depends on. Its samples stand in an order that no target
decides, by split and index, and it does not say who is a member of what: it serves every target.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mia_batch.errors import InputError
from mia_batch.files import not_written, sync_directory
from mia_batch.inputs import HASH_BYTES
from mia_batch.locks import in_use
from mia_batch.rundir.hdf5 import OwnFile, get_attr, own_file
from mia_batch.rundir.identity import reference_digest
from mia_batch.rundir.manifest import Manifest
from mia_batch.rundir.paths import ReferencePaths
from mia_batch.rundir.row_store import RowStore, as_bytes
from mia_batch.signals import SIGNALS

SCHEMA = 1
KINDS = {"float32": "<f4", "float16": "<f2"}  # of logits
FILE = re.compile(r"(\.*)([0-9a-f]{64})\.(h5|launch)(\.\d+\.tmp)?")  # the last of a process that was killed
BLOCK_VALUES = 1 << 21  # logits that are read at a time
FOLDER_MODE, FILE_MODE = 0o2770, 0o660  # of a store that a group of users shares


@dataclass(frozen=True)
class StoredSamples:
    """The samples of an audit, as a store has them.

    Attributes:
        split: of each, in the audit's order, (n_samples,).
        sample_index: position in its split, (n_samples,).
        label: true class, (n_samples,).
    """

    split: NDArray[np.str_]
    sample_index: NDArray[np.int64]
    label: NDArray[np.int32]

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The audit's rows in the order of the store, (n_samples,)."""
        return np.lexsort((self.sample_index, self.split))

    @cached_property
    def digest(self) -> str:
        """Hex digest of which they are, whatever their order."""
        names, counts = np.unique(self.split, return_counts=True)
        found = hashlib.sha256(json.dumps([names.tolist(), counts.tolist()]).encode())
        for column, kind in ((self.sample_index, "<i8"), (self.label, "<i4")):
            found.update(column[self.order].astype(kind).tobytes())
        return found.hexdigest()


def reference_fields(manifest: Manifest) -> list[str]:
    """Whose outputs an audit wants of its store: every reference's and, where it asks several queries, its own.

    Each is a field of the manifest's digests.
    """
    section = manifest.config["references"]
    kind, count = ("shadows", section["count"]) if section.get("shadows") else ("checkpoints", None)
    fields = [f"references.{kind}[{i}]" for i in range(count or len(section["checkpoints"]))]
    return fields + ([] if section["queries"] is None else ["model.checkpoint"])


def reference_paths(manifest: Manifest, samples: StoredSamples) -> dict[str, ReferencePaths]:
    """Where the outputs of each of `reference_fields` are, or will be; not of those that are still to be trained."""
    store = Path(manifest.config["references"]["store"])
    return {
        field: ReferencePaths(store, reference_digest(manifest, field, samples.digest))
        for field in reference_fields(manifest) if field in manifest.digests
    }


def row_dtype(n_classes: int, *, n_queries: int, logits: str) -> np.dtype[Any]:
    """What a rank sends per row: row number, content of the input, logits of each query; `logits` of `KINDS`."""
    return np.dtype([
        ("row", "<i8"), ("content", "u1", (HASH_BYTES,)), ("logits", KINDS[logits], (n_queries, n_classes)),
    ])


class ReferenceStore(RowStore):
    """The outputs of one reference while they are computed."""

    kind, schema, schemas = "reference", SCHEMA, (SCHEMA,)

    @classmethod
    def create(
        cls, paths: ReferencePaths, samples: StoredSamples, sent: np.dtype[Any], attrs: Mapping[str, Any],
        group: str | None = None,
    ) -> ReferenceStore:
        """Make the partial file with no row done; `sent` as of `row_dtype`, `group` as of `share`."""
        order = samples.order
        known = {
            "sample_index": samples.sample_index[order].astype("<i8"), "label": samples.label[order].astype("<i4"),
            "split": as_bytes(samples.split[order]),
        }
        store = cls.make(paths.partial, known, sent, {"key": paths.key, **attrs})
        share(paths.partial, group)
        return store

    def finish(self, paths: ReferencePaths) -> None:
        """Give the complete file its name."""
        self.seal()  # of a process that was killed after the last row
        self.close()
        os.replace(paths.partial, paths.outputs)
        sync_directory(paths.outputs.parent)
        paths.launch.unlink(missing_ok=True)


def make_store(folder: Path, group: str | None) -> None:
    """Make the folder of a store, for its owner or for a group of users.

    Raises:
        InputError: it cannot be made or written, or there is no such group.
    """
    try:
        new = not folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(folder, error, "references.store: must be a folder that can be written") from error
    if new:
        share(folder, group)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: references.store: must be a folder that can be written, got one that cannot")


def share(path: Path, group: str | None) -> None:
    """Let a group of users read and write a file or folder, if it is ours; without one, only its owner may.

    Raises:
        InputError: there is no such group, or its owner is not in it.
    """
    if group is None or path.stat().st_uid != os.geteuid():
        return
    try:
        shutil.chown(path, group=group)
        path.chmod(FOLDER_MODE if path.is_dir() else FILE_MODE)
    except (LookupError, OSError) as error:
        rule = "must be a group of users that you are in"
        raise InputError(f"references.group: {rule}, got {group!r}: {error}") from error


def rows_done(paths: ReferencePaths) -> tuple[int, bool]:
    """Rows of a partial file that are done, and whether a process writes it; (0, False) without one.

    Raises:
        InputError: it cannot be read.
    """
    if not paths.partial.exists():
        return 0, False
    with own_file(paths.partial, ReferenceStore.kind, ReferenceStore.schemas, beside_writer=True) as own:
        return int((own.file["done"][:] == 1).sum()), in_use(paths.partial)


def read_phi(
    found: Sequence[ReferencePaths], samples: StoredSamples, content: NDArray[np.uint8] | None
) -> NDArray[np.float64]:
    """The signal `confidence` of complete references, for the samples of an audit in its order.

    Logits are read in blocks, so that no more than some megabytes of them are in memory.

    Args:
        found: of K references.
        samples: n_samples.
        content: hash of each input, (n_samples, HASH_BYTES), which must be those that the references were given; None
            where it is not known.

    Returns:
        float64 (n_samples, n_queries, K).

    Raises:
        InputError: a file cannot be read, or is of other samples or inputs.
    """
    phi: NDArray[np.float64] | None = None
    shape: tuple[int, ...] = ()
    for k, paths in enumerate(found):
        with own_file(paths.outputs, ReferenceStore.kind, ReferenceStore.schemas) as own:
            logits = _checked(own, paths, samples, content)
            if phi is None:
                phi, shape = np.empty((len(samples.order), logits.shape[1], len(found))), logits.shape
            if logits.shape != shape:  # of one query, which NumPy would take for several
                rule = f"must have logits of shape {shape} as {found[0].outputs.name}"
                raise InputError(f"{paths.outputs}: {rule}, got {logits.shape}; remove it")
            _fill(phi[:, :, k], logits, samples, own)
    assert phi is not None
    return phi


def check_outputs(paths: ReferencePaths, samples: StoredSamples, content: NDArray[np.uint8] | None) -> None:
    """Check all of a complete reference; arguments and errors as those of `read_phi`."""
    with own_file(paths.outputs, ReferenceStore.kind, ReferenceStore.schemas) as own:
        _checked(own, paths, samples, content)
        own.check_parts("logits")


def _checked(
    own: OwnFile, paths: ReferencePaths, samples: StoredSamples, content: NDArray[np.uint8] | None
) -> h5py.Dataset:
    """The logits of a file, if it is what its name says; they themselves are checked as they are read."""
    file, order, key = own.file, samples.order, get_attr(own.file, "key")
    if key != paths.key:
        raise InputError(f"{paths.outputs}: must be of the key that it is named by, got {key}; remove it")
    if lacking := int((file["done"][:] != 1).sum()):
        raise InputError(f"{paths.outputs}: must have all rows, got {lacking} that are not done; remove it")
    if not own.whole:
        raise InputError(f"{paths.outputs}: must have digests of all that it holds, got some that lack; remove it")
    own.check_parts(*(name for name in file if name != "logits"))
    known: dict[str, NDArray[Any]] = {
        "sample_index": samples.sample_index, "label": samples.label, "split": as_bytes(samples.split),
    }  # fmt: skip
    if not all(np.array_equal(file[name][:], column[order]) for name, column in known.items()):
        raise InputError(f"{paths.outputs}: must be of the audit's samples, got others; remove it")
    if content is not None:
        other = np.flatnonzero((file["content"][:] != content[order]).any(axis=1))
        if len(other):
            row = order[other[0]]
            rule = f"{samples.split[row]} sample {samples.sample_index[row]} must be what it was for this reference"
            raise InputError(f"{paths.outputs}: {rule}, got {len(other)} that are not; remove it")
    return file["logits"]


def _fill(phi: NDArray[np.float64], logits: h5py.Dataset, samples: StoredSamples, own: OwnFile) -> None:
    n_rows, n_queries, n_classes = logits.shape
    step = max(1, BLOCK_VALUES // (n_queries * n_classes))
    read = hashlib.sha256()
    for first in range(0, n_rows, step):
        rows = samples.order[first : first + step]
        values = logits[first : first + step]
        read.update(values)  # in the same pass: there may be many gigabytes
        found = SIGNALS["confidence"][0](values.reshape(-1, n_classes), np.repeat(samples.label[rows], n_queries))
        phi[rows] = found.reshape(-1, n_queries)
    if own.seal and own.seal.parts["logits"].digest != read.hexdigest():
        raise own.seal.damaged("logits")


@dataclass(frozen=True)
class Stored:
    """A file of a store: whose outputs, whether they are complete, and how many bytes it had when it was looked at."""

    path: Path
    key: str
    complete: bool
    size: int


def files_in(store: Path) -> list[Stored]:
    """The files of a store, by key; nothing else that lies there, whatever its name.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        names = sorted(store.iterdir()) if store.is_dir() else []
    except OSError as error:
        rule = "references.store: must be a folder that can be read"
        raise InputError(f"{store}: {rule}, got: {error.strerror}") from error
    found = []
    for path in names:
        match = FILE.fullmatch(path.name)
        with suppress(OSError):  # another process has removed or renamed it
            if match and stat.S_ISREG((status := path.stat()).st_mode):
                found.append(Stored(path, match[2], not match[1], status.st_size))
    return found
