"""What all HDF5 files of a run share: how they are opened, attributes, room on the disk, errors as one line."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from mia_batch.errors import InputError, InUseError
from mia_batch.files import is_full, not_written, refuse_no_file
from mia_batch.locks import lock, try_lock
from mia_batch.rundir.first_look import look_first
from mia_batch.rundir.seal import Seal, make_seal, read_seal
from mia_batch.rundir.structure import check_schema, check_structure, datasets, n_bytes

log = logging.getLogger(__name__)
SCHEMA = 1
HDF5_OVERHEAD = 64 * 1024  # bytes, more than the headers of our files take
ATTRIBUTE_LIMIT = 60_000  # bytes; HDF5 holds attributes of up to 64 KiB in an object's header
LONG = "attrs"  # group of those that are longer
_said: set[Path] = set()  # files of versions before, of which the log says so once


@dataclass(frozen=True)
class OwnFile:
    """A file of ours that HDF5 has open, and its seal; None of one of a version that wrote none."""

    path: Path
    file: h5py.File
    seal: Seal | None

    @property
    def whole(self) -> bool:
        """Whether its writer has finished it, as far as the file says."""
        return self.seal is None or self.seal.whole

    def check_parts(self, *names: str) -> None:
        """Check the values of some datasets, of all without names; of a file without a seal the log says so.

        Raises:
            InputError: they are not what was written.
        """
        if self.seal:
            self.seal.check_parts(names or None)
        elif self.path not in _said:
            _said.add(self.path)
            rule = "its form was checked, its values cannot be"
            log.warning("%s: is of a version that wrote no digests: %s", self.path, rule)


def open_own(
    path: Path, kind: str, schemas: Sequence[int], *, mode: str = "r", beside_writer: bool = False
) -> OwnFile:
    """Open a file of ours; HDF5 sees it only after its seal was checked, or another process has had a first look.

    Args:
        path: of the file.
        kind: "features", "reference" or "attack".
        schemas: that are read.
        mode: as h5py's.
        beside_writer: read it though another process may write it.

    Raises:
        BlockingIOError: another process writes it.
        InputError: damaged, not of the kind or of its form.
        Exception: as HDF5 raises them; see `reading`.
    """
    seal = read_seal(path)
    if seal is None:
        look_first(path, kind, schemas)
    elif seal.kind != kind:
        raise InputError(f"{path}: must be a {kind} file, got kind {seal.kind}")
    else:
        seal.check_rest()
    if mode == "r":
        file = h5py.File(path, "r", locking=False)
    else:
        file = h5py.File(h5py.h5f.open(os.fsencode(path), fapl=_access()))
        lock_file(path, file)
    try:
        if mode == "r" and not beside_writer:
            try_lock(file.id.get_vfd_handle(), shared=True)
        check_schema(file, path, kind, schemas)
        check_structure(file, path, kind, chunks=seal is None)
        if seal and {name: part[:2] for name, part in seal.parts.items()} != places(file, path):
            raise seal.damaged("seal")
    except BaseException:
        file.close()
        raise
    return OwnFile(path, file, seal)


@contextmanager
def own_file(
    path: Path, kind: str, schemas: Sequence[int] = (SCHEMA,), *, beside_writer: bool = False
) -> Iterator[OwnFile]:
    """`open_own` for reading.

    Raises:
        InputError: missing, damaged, not of the kind or of its form, or in use by a writer.
    """
    with reading(path):
        opened = open_own(path, kind, schemas, beside_writer=beside_writer)
        with opened.file:
            yield opened


def look(path: Path, kind: str, schemas: Sequence[int]) -> None:
    """Read all of a file that HDF5 keeps in structures of its own, where damage may lead it astray.

    Raises:
        InputError: not of the kind or of its form.
        Exception: as HDF5 raises them.
    """
    with h5py.File(path, "r", locking=False) as file:
        check_schema(file, path, kind, schemas)
        check_structure(file, path, kind, chunks=True)
        get_attrs(file)
        for _, dataset in datasets(file, path):
            if dataset.chunks or dataset.dtype.hasobject:
                dataset[()]


def places(file: h5py.File, path: Path) -> dict[str, tuple[int, int]]:
    """First byte and bytes of the values of each dataset of numbers."""
    return {
        name: (dataset.id.get_offset(), n_bytes(dataset))
        for name, dataset in datasets(file, path) if not dataset.dtype.hasobject and dataset.size
    }  # fmt: skip


@contextmanager
def new_file(path: Path, kind: str, block: int, *, unfilled: Collection[str] = ()) -> Iterator[h5py.File]:
    """A file that is sealed once its user has filled it.

    Args:
        path: a temporary name.
        kind: as of `open_own`.
        block: bytes of its user's block, see `seal.block_bytes`.
        unfilled: datasets whose values come later, which get no digest yet.

    Raises:
        InputError: the disk is full.
    """
    with create(path, block) as file:
        yield file
        close_sealed(file, kind, unfilled=unfilled)


def create(path: Path, block: int) -> h5py.File:
    """A new file of the format whose first bytes `seal` knows, with a user's block of so many bytes."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_userblock(block)
    return h5py.File(h5py.h5f.create(os.fsencode(path), h5py.h5f.ACC_TRUNC, creation, _access()))


def _access() -> h5py.h5p.PropFAID:
    """How a file is written: without HDF5's own lock, and without its buffer of values.

    What that buffer holds is written when an object goes, where a full disk has nobody whom it could tell.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
    access.set_file_locking(False, False)
    access.set_sieve_buf_size(0)
    return access


def close_sealed(file: h5py.File, kind: str, *, unfilled: Collection[str] = ()) -> None:
    """Close a file that is filled, and write its seal; arguments as those of `new_file`."""
    sync(file)
    path, block = Path(file.filename), file.userblock_size
    found = places(file, path)
    file.close()  # which may shorten it
    make_seal(path, kind, block, found).filled(found.keys() - set(unfilled)).write()


def check_room(directory: Path, n_bytes: int) -> None:
    """Check that the disk has room for a file of `n_bytes` and HDF5's headers.

    HDF5 cannot close its file cleanly once the disk is full, and NumPy's writing does not say what is wrong.

    Raises:
        InputError: the disk is too full, or the directory cannot be written.
    """
    with as_input_error(directory), tempfile.TemporaryFile(dir=directory) as file:
        os.posix_fallocate(file.fileno(), 0, n_bytes + HDF5_OVERHEAD)


def lock_file(path: Path, file: h5py.File) -> None:
    """Keep every other writer out of a file that was opened for writing, until it is closed.

    HDF5's own lock is flock alone, which some file systems do not know, and which the environment may turn off.

    Raises:
        BlockingIOError: another process writes it; then it is closed.
        InputError: its file system has no locks; likewise.
    """
    try:
        lock(path, file.id.get_vfd_handle())
    except BaseException:
        file.close()
        raise


def sync(file: h5py.File) -> None:
    """Put what was written onto the disk; HDF5's own flush only hands it to the kernel."""
    file.flush()
    os.fsync(file.id.get_vfd_handle())


def set_attrs(file: h5py.File, attrs: Mapping[str, Any]) -> None:
    """Write each of `attrs` as JSON."""
    for name, value in attrs.items():
        text = json.dumps(value, allow_nan=False)
        if len(text) < ATTRIBUTE_LIMIT:
            file.attrs[name] = text
        else:  # too long for an attribute (a grid of thousands of values): a dataset of that name
            file.create_dataset(f"{LONG}/{name}", data=text)


def get_attrs(file: h5py.File) -> dict[str, Any]:
    """What `set_attrs` has written."""
    attrs, n_bytes, size = {}, 0, os.fstat(file.id.get_vfd_handle()).st_size
    for name, text in file.attrs.items():
        n_bytes += len(text)
        if n_bytes > size:
            raise ValueError(f"attributes: must have each text in the file for itself, got {n_bytes} bytes in {size}")
        attrs[name] = json.loads(text)
    for name, dataset in file.get(LONG, {}).items():
        attrs[name] = json.loads(dataset.asstr()[()])
    return attrs


def get_attr(file: h5py.File, name: str, default: Any = None) -> Any:
    """One attribute that `set_attrs` has written; to read all of them takes longer."""
    if name in file.attrs:
        return json.loads(file.attrs[name])
    long = f"{LONG}/{name}"
    return json.loads(file[long].asstr()[()]) if long in file else default


@contextmanager
def as_input_error(path: Path) -> Iterator[None]:
    """Turn errors of the file system and of HDF5 into one line."""
    try:
        yield
    except BlockingIOError as error:
        raise InUseError(f"{path}: is in use by another process") from error
    except FileExistsError:  # of a link to a new name, whose caller knows what it means
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: does not exist") from error
    except (OSError, KeyError, RuntimeError) as error:
        if is_full(error):
            raise not_written(path, error) from error
        if isinstance(error, PermissionError):
            raise InputError(f"{path}: must be a file that can be read and written") from error
        raise _unreadable(path, error) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """`as_input_error` for reading a file, where a damaged one may also raise errors of type or value."""
    try:
        with as_input_error(path):
            refuse_no_file(path)
            yield
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    said = getattr(error, "strerror", None) or error
    return InputError(f"{path}: must be a readable HDF5 file of this product, got: {said}")
