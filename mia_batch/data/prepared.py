"""Samples of a user's source that are read and brought to one size once, for every audit of an array to map.

CIFAR records need none of this: their files are mapped as they are. Each array of a sample, such as its image, is
appended to a file of equal rows, what is kept of the sample to another, and a checksum of both to a third: their
lengths say how far a stopped process came, and whoever reads a row knows that it is what was written. Before the first
row the folder says whose rows they are: rows of other data never stay. A function of the user's own runs on what is
read.
"""

from __future__ import annotations

import logging
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mia_batch import json_text
from mia_batch.data.selection import Selection
from mia_batch.errors import InputError
from mia_batch.files import atomic_path, holds, is_full, not_written, open_bytes, sha256, sync_directory, write_text
from mia_batch.inputs import INPUT_DTYPE, Inputs
from mia_batch.locks import lock
from mia_batch.npy_files import DAMAGED, read_npz
from mia_batch.settings.schema import SOURCES, DataConfig

log = logging.getLogger(__name__)

COLUMNS = ("sample_index", "split", "label", "member", "group", "group_name")
CHECK = np.dtype("<u4")  # of a row's checksum
SCHEMA = 3  # 1 has no inputs, 2 no checksums: it is prepared anew


def is_worth_it(data: DataConfig) -> bool:
    """Whether reading these samples is more than mapping a file of records."""
    return data.source not in SOURCES


@dataclass(frozen=True)
class Opened:
    """What is prepared.

    Attributes:
        selection: the samples.
        inputs: of all of them, mapped from the files.
        kept: of each input as its source gives it, (n,) of `INPUT_DTYPE`, mapped likewise.
        check: `checksums` of the rows as they were written, (n,).
        folder: of the files.
    """

    selection: Selection
    inputs: Inputs
    kept: np.ndarray
    check: np.ndarray
    folder: Path

    def read(self, rows: np.ndarray) -> tuple[Inputs, np.ndarray]:
        """Some of the rows, as a reader gives them that reads the source.

        Raises:
            InputError: they are not what was written.
        """
        columns = tuple(np.array(column[rows]) for column in self.inputs.columns)
        found = replace(self.inputs, columns=columns), np.array(self.kept[rows])
        other = np.flatnonzero(checksums(*found) != self.check[rows])
        if len(other):
            row = int(np.asarray(rows)[other[0]])
            rule = "must have the bytes that were written, got others"
            raise InputError(f"{self.folder}: row {row}: {rule}; remove this folder and prepare it again")
        return found


def checksums(inputs: Inputs, kept: np.ndarray) -> np.ndarray:
    """A checksum of each row, (n,): of what is kept and of all its arrays, one after the other."""
    found = [zlib.crc32(row.tobytes()) for row in kept]
    for column in inputs.columns:
        found = [zlib.crc32(row.tobytes(), before) for row, before in zip(column, found, strict=True)]
    return np.array(found, CHECK)


@dataclass(frozen=True)
class Prepared:
    """The folder of one array's data. It is complete when `meta.json` is there.

    Attributes:
        folder: absolute.
    """

    folder: Path

    @property
    def images(self) -> Path:
        """All images, (n, height, width, channels), one after the other."""
        return self.folder / "images"

    def arrays(self, kind: str, count: int) -> list[Path]:
        """A file for each array of a sample, of as many rows each."""
        return [self.images] if kind == "image" else [self.folder / f"array{i}" for i in range(count)]

    def files(self) -> list[Path]:
        """The large files that are there."""
        return [file for file in (self.check, self.kept, self.images, *self.folder.glob("array*")) if file.exists()]

    @property
    def kept(self) -> Path:
        """What is kept of each sample as its source gives it, (n,) of `INPUT_DTYPE`."""
        return self.folder / "inputs"

    @property
    def check(self) -> Path:
        """`checksums` of all rows, (n,)."""
        return self.folder / "check"

    @property
    def _meta(self) -> Path:
        return self.folder / "meta.json"

    @property
    def _identity(self) -> Path:
        """Whose the rows are that are there so far."""
        return self.folder / "identity"

    @property
    def _selection(self) -> Path:
        return self.folder / "selection.npz"

    @property
    def _digested(self) -> tuple[Path, Path]:
        """Those whose digests are in the meta data: rows of the others have checksums."""
        return self.check, self._selection

    def is_complete(self) -> bool:
        """Whether every sample is there."""
        try:
            return bool(self._read_meta()["schema"] == SCHEMA)
        except (OSError, ValueError, KeyError):
            return False

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read_meta(self) -> dict[str, Any]:
        return dict(json_text.read(self._meta))

    def open(self, identity: str) -> Opened:
        """The samples, and their inputs mapped from the files.

        Args:
            identity: of the data that is wanted, as `rundir.identity.data_digest` gives it.

        Raises:
            InputError: not complete, removed, of other data or not what was written.
        """
        try:
            meta = self._read_meta()
            if meta["schema"] != SCHEMA:
                raise ValueError(f"schema {meta['schema']}, not {SCHEMA}")
            for file in self._digested:
                _refuse_changed(file, meta["files"][file.name])
            columns = read_npz(self._selection, COLUMNS)
            selection = Selection(**columns)
            found, kind, n, own = meta["arrays"], meta["kind"], len(selection), meta["identity"]
            pairs = zip(self.arrays(kind, len(found)), found, strict=True)
            mapped = tuple(_mapped(file, np.dtype(each["dtype"]), tuple(each["shape"])) for file, each in pairs)
            kept, check = _mapped(self.kept, INPUT_DTYPE, (n,)), _mapped(self.check, CHECK, (n,))
        except (OSError, *DAMAGED) as error:
            rule = "--prepared: must hold an array's prepared data, which goes once the array has ended"
            raise InputError(f"{self.folder}: {rule}, got: {error}") from error
        if own != identity:
            raise InputError(f"{self.folder}: --prepared: must be of the data of this config, got other data")
        return Opened(selection, Inputs(kind, tuple(each["name"] for each in found), mapped), kept, check, self.folder)

    # -- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def appending(
        self, first: Inputs, identity: str
    ) -> Iterator[tuple[Callable[[Inputs, np.ndarray], None], int]]:
        """What appends inputs and what is kept of them to their files, and how many whole rows are there already.

        Args:
            first: the first sample, which says how many bytes a row of each file has. The files are locked.
            identity: of the data, see `open`; rows of other data are removed.

        Raises:
            InputError: another process prepares this, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = [self.kept, self.check, *self.arrays(first.kind, len(first.columns))]
        sizes = [INPUT_DTYPE.itemsize, CHECK.itemsize, *(np.asarray(column).nbytes for column in first.columns)]
        try:
            with ExitStack() as stack:
                files = [stack.enter_context(open_bytes(path, "ab")) for path in paths]
                lock(paths[0], files[0].fileno())
                done = self._keep_own(files, sizes, identity)

                def append(inputs: Inputs, kept: np.ndarray) -> None:
                    blocks = (kept, checksums(inputs, kept), *inputs.columns)
                    for file, block in zip(files, blocks, strict=True):
                        file.write(np.asarray(block).tobytes())

                yield append, done
                for file in files:
                    file.flush()
                    os.fsync(file.fileno())
        except BlockingIOError:
            raise InputError(f"{self.folder}: another process is preparing this data") from None
        except OSError as error:
            if is_full(error):
                raise not_written(self.folder, error) from error
            raise

    def _keep_own(self, files: Sequence[BinaryIO], sizes: Sequence[int], identity: str) -> int:
        """Keep whole rows of this data, and no others; returns how many there are."""
        done = min(file.tell() // size for file, size in zip(files, sizes, strict=True))
        own = self._identity.exists() and holds(self._identity, identity)
        if done and not own:
            log.warning("%s: what is there is of other data; it is prepared anew", self.folder)
        if not own:
            done = 0
            self._meta.unlink(missing_ok=True)
        for file, size in zip(files, sizes, strict=True):
            file.truncate(done * size)  # a kill may have torn the last
            os.fsync(file.fileno())  # before a new identity is there
        if not own:
            write_text(self._identity, identity)
        return done

    def finish(self, selection: Selection, identity: str, first: Inputs) -> None:
        """Say that all samples are there, each as the first is."""
        with atomic_path(self._selection) as temporary, open(temporary, "wb") as file:
            np.savez(file, **{name: getattr(selection, name) for name in COLUMNS})
        columns = zip(first.names, map(np.asarray, first.columns), strict=True)
        arrays = [
            {"name": name, "shape": [len(selection), *column.shape[1:]], "dtype": column.dtype.str}
            for name, column in columns
        ]
        files = {file.name: {"sha256": sha256(file), "n_bytes": file.stat().st_size} for file in self._digested}
        meta = {"schema": SCHEMA, "identity": identity, "kind": first.kind, "arrays": arrays, "files": files}
        write_text(self._meta, json_text.written(meta))
        sync_directory(self.folder)


def _refuse_changed(path: Path, written: Mapping[str, Any]) -> None:
    """Refuse a file that is not what was written; one of another size is not read, however large it is."""
    if path.stat().st_size != written["n_bytes"] or sha256(path) != written["sha256"]:
        raise ValueError(f"{path.name} that is not what was written")


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap:
    """A file of nothing but an array, mapped.

    Raises:
        OSError: it cannot be read, or is no file.
        ValueError: it has not as many bytes as the array.
    """
    with open_bytes(path) as file:
        wanted, size = math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size
        if size != wanted:
            raise ValueError(f"{path.name} of {size} bytes, not {wanted}")
        return np.memmap(file, dtype, "r", shape=shape)
