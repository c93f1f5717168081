"""What all HDF5 files of a run share: attributes, room on the disk, errors as one line."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from mia_batch.errors import InputError, InUseError
from mia_batch.files import is_full, not_written, refuse_no_file
from mia_batch.locks import lock

SCHEMA = 1
HDF5_OVERHEAD = 64 * 1024  # bytes, more than the headers of our files take
ATTRIBUTE_LIMIT = 60_000  # bytes; HDF5 holds attributes of up to 64 KiB in an object's header


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
            file.create_dataset(f"attrs/{name}", data=text)


def get_attrs(file: h5py.File) -> dict[str, Any]:
    """What `set_attrs` has written."""
    attrs = {name: json.loads(text) for name, text in file.attrs.items()}
    for name, dataset in file.get("attrs", {}).items():
        attrs[name] = json.loads(dataset.asstr()[()])
    return attrs


def get_attr(file: h5py.File, name: str, default: Any = None) -> Any:
    """One attribute that `set_attrs` has written; to read all of them takes longer."""
    if name in file.attrs:
        return json.loads(file.attrs[name])
    long = f"attrs/{name}"
    return json.loads(file[long].asstr()[()]) if long in file else default


def check_schema(file: h5py.File, path: Path, kind: str, schemas: Sequence[int] = (SCHEMA,)) -> None:
    """Close and refuse a file of another kind ("features", "attack") or schema."""
    found = file.attrs.get("kind"), file.attrs.get("schema")
    if found not in [(json.dumps(kind), json.dumps(schema)) for schema in schemas]:
        file.close()
        wanted = " or ".join(map(str, schemas))
        raise InputError(f"{path}: must be a {kind} file of schema {wanted}, got kind {found[0]}, schema {found[1]}")


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
    return InputError(f"{path}: must be a readable HDF5 file of this product, got: {error}")
