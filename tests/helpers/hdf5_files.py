"""HDF5 files of ours as others may have made them: without a seal, or changed by somebody who seals them again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import h5py

from mia_batch.rundir.features import FeatureStore
from mia_batch.rundir.seal import make_seal, read_seal


def unseal(path: Path) -> None:
    """Make it a file of a version that wrote no digests."""
    seal = read_seal(path)
    assert seal is not None
    path.write_bytes(path.read_bytes()[seal.n_bytes :])


def change(path: Path, change: Callable[[h5py.File], None]) -> None:
    """Change a file by way of h5py; what its seal says stays."""
    with h5py.File(path, "r+") as file:
        change(file)


def make_of_before(path: Path, *, without: Collection[str] = ("content", "statistics", "group", "check")) -> None:
    """Make features.h5 one of schema 1, which had neither these columns nor a seal."""

    def remove(file: h5py.File) -> None:
        file.attrs["schema"] = "1"
        for name in without:
            file.pop(name, None)

    change(path, remove)
    unseal(path)


def forget_rows(path: Path, rows: Sequence[int]) -> None:
    """Have these rows of features.h5 computed again, with other values in their places until then."""
    with FeatureStore(path) as store:
        kept = store.done()
        kept[rows] = False
        store.keep(kept)

    def spoil(file: h5py.File) -> None:
        for name in ("content", "statistics", "logits", "loss"):
            for row in rows:
                file[name][row] = 0

    change(path, spoil)


def change_and_seal(path: Path, change: Callable[[h5py.File], None]) -> None:
    """Change a file and seal it again, as whoever knows how this is done may."""
    seal = read_seal(path)
    assert seal is not None
    with h5py.File(path, "r+") as file:
        change(file)
        places = _places(file)
    unfilled = {name for name, part in seal.parts.items() if part.digest is None}
    make_seal(path, seal.kind, seal.n_bytes, places).filled(places.keys() - unfilled).write()


def _places(file: h5py.File) -> dict[str, tuple[int, int]]:
    """First byte and bytes of the values of each dataset that has them in one place."""
    found: dict[str, tuple[int, int]] = {}

    def note(name: str, each: object) -> None:
        if not isinstance(each, h5py.Dataset) or each.dtype.hasobject or each.external:
            return
        if each.id.get_offset() and each.id.get_storage_size():
            found[name] = each.id.get_offset(), each.id.get_storage_size()

    file.visititems(note)
    return found
