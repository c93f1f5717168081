"""The form of our HDF5 files: which datasets, of what types, shapes and storage. Nothing else is read.

A file may have been made by somebody else, so that it is asked for what HDF5 would do: follow links out of the file or
round in it, read values from elsewhere, decompress without end. What looks at a file costs no more than its headers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mia_batch.attacks.equal_outputs import KEY_BYTES
from mia_batch.errors import InputError
from mia_batch.files import open_bytes
from mia_batch.inputs import HASH_BYTES, STATISTICS

MOST_OBJECTS = 10_000  # links of one group of ours
MOST_ATTRIBUTES = 64
LARGEST_ATTRIBUTE = 1 << 16  # bytes in an object's header
SHOWN = 60  # characters of a name or value in a message


@dataclass(frozen=True)
class Form:
    """Of a dataset.

    Attributes:
        types: NumPy's names of those that it may have; "S" stands for bytes of any width, "O" for text.
        n_dimensions: of its shape, whose first is that of the rows.
        of_rows: whether it has as many rows as all others.
        widths: columns that it may have; any without.
    """

    types: Sequence[str]
    n_dimensions: int = 1
    of_rows: bool = True
    widths: Sequence[int] = ()


LONG_ATTRIBUTE = Form("O", 0, of_rows=False)
SAMPLES: Mapping[str, Form] = {
    "sample_index": Form(["<i8"]), "label": Form(["<i4"]), "split": Form("S"), "done": Form(["|u1"]),
    "check": Form(["<u4"]), "attrs/*": LONG_ATTRIBUTE,
    "content": Form(["|u1"], 2, widths=(HASH_BYTES, KEY_BYTES)),
}  # fmt: skip
FORMS: Mapping[str, Mapping[str, Form]] = {
    "features": {
        **SAMPLES, "member": Form(["|i1"]), "group": Form(["<i8"]), "group_name": Form("S"),
        "statistics": Form(["<f4"], 2, widths=(len(STATISTICS),)), "loss": Form(["<f8"]), "logits": Form(["<f4"], 2),
        "sample_id": Form("S"), "slices/*": Form(["<i4"]),
    },
    "reference": {**SAMPLES, "logits": Form(["<f4", "<f2"], 3)},
    "attack": {
        "scores": Form(["<f8"]), "predicted": Form(["|i1"]), "scored_by": Form(["<i4"]), "member": Form(["|i1"]),
        "evaluated": Form(["|b1", "|u1", "|i1"]), "attrs/*": LONG_ATTRIBUTE,
        "cv_results/*": Form(["<f8", "<i8", "|b1", "O"], of_rows=False),
    },
}  # fmt: skip
NEEDED = {
    "features": ("sample_index", "member", "loss", "done"),
    "reference": ("sample_index", "label", "split", "content", "logits", "done"),
    "attack": ("scores", "predicted", "member"),
}

OF_SCHEMA = {  # of files with a seal, by kind and schema
    ("features", "2"): ("label", "split", "group", "content", "statistics", "logits", "check"),
    ("reference", "1"): ("check",),
}


def check_attributes(file: h5py.File, path: Path) -> None:
    """Refuse attributes that are more than one text, or number, each: HDF5 stores a text once for many values.

    Raises:
        InputError: there is one, or there are too many.
    """
    if len(file.attrs) > MOST_ATTRIBUTES:
        raise InputError(f"{path}: must have at most {MOST_ATTRIBUTES} attributes, got {len(file.attrs)}")
    for name in file.attrs:
        found = file.attrs.get_id(name)
        if found.shape != () or found.get_storage_size() > LARGEST_ATTRIBUTE:
            got = f"shape {found.shape} of {found.get_storage_size()} bytes"
            raise InputError(f"{path}: attribute {shown(name)}: must be one value of JSON text, got {got}")


def check_schema(file: h5py.File, path: Path, kind: str, schemas: Sequence[int]) -> None:
    """Refuse a file of another kind ("features", "attack", "reference") or schema.

    Raises:
        InputError: it is one.
    """
    check_attributes(file, path)
    found = file.attrs.get("kind"), file.attrs.get("schema")
    if not any(_is(found[0], kind) and _is(found[1], schema) for schema in schemas):
        wanted = " or ".join(map(str, schemas))
        got = [shown(each) for each in found]
        raise InputError(f"{path}: must be a {kind} file of schema {wanted}, got kind {got[0]}, schema {got[1]}")


def _is(found: Any, wanted: str | int) -> bool:
    return isinstance(found, str) and found == json.dumps(wanted)


def check_structure(file: h5py.File, path: Path, kind: str, *, chunks: bool) -> None:
    """Refuse a file that has not the form of its kind; versions before kept results in `chunks`.

    Raises:
        InputError: says what of it.
    """
    forms, size = FORMS[kind], path.stat().st_size
    lengths: dict[str, int] = {}
    text = 0
    for name, found in _objects(file, path):
        if isinstance(found, h5py.Group) and f"{name}/*" not in forms:
            raise InputError(f"{path}: must hold nothing but what a {kind} file has, got a group {shown(name)}")
    for name, found in datasets(file, path):
        group = name.rpartition("/")[0]
        form = forms.get(f"{group}/*" if group else name)
        if form is None:
            raise InputError(f"{path}: must hold nothing but what a {kind} file has, got {shown(name)}")
        check_storage(found, f"{path}: {shown(name)}", size, chunks=chunks)
        _check_form(found, form, f"{path}: {shown(name)}")
        if (text := text + text_bytes(found, path)) > size:
            rule = "must have each text in the file for itself"
            raise InputError(f"{path}: {shown(name)}: {rule}, got {text} bytes of text in {size}")
        if form.of_rows:
            lengths[name] = found.shape[0]
    needed = NEEDED[kind] + (() if chunks else OF_SCHEMA.get((kind, str(file.attrs["schema"])), ()))
    missing = [name for name in needed if name not in lengths]
    if missing:
        raise InputError(f"{path}: {missing[0]}: must be there, got none")
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: all rows must have every column, got lengths {shown(lengths)}")


def datasets(file: h5py.File, path: Path) -> Iterator[tuple[str, h5py.Dataset]]:
    """The datasets at the top and in groups there, by name.

    Raises:
        InputError: a link that is not hard, too many, or groups in groups.
    """
    for name, found in _objects(file, path):
        if isinstance(found, h5py.Group):
            for inner, each in _objects(found, path):
                if not isinstance(each, h5py.Dataset):
                    raise InputError(f"{path}: {shown(f'{name}/{inner}')}: must be a dataset, got {shown(each)}")
                yield f"{name}/{inner}", each
        elif isinstance(found, h5py.Dataset):
            yield name, found
        else:
            raise InputError(f"{path}: {shown(name)}: must be a dataset or a group, got {shown(found)}")


def _objects(group: h5py.Group, path: Path) -> Iterator[tuple[str, Any]]:
    if len(group) > MOST_OBJECTS:
        raise InputError(f"{path}: must have at most {MOST_OBJECTS} datasets in a group, got {len(group)}")
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{path}: {shown(name)}: must be in this file by its name, got a {type(link).__name__}")
        yield name, group[name]


def check_storage(dataset: h5py.Dataset, where: str, size: int, *, chunks: bool) -> None:
    """Refuse a dataset whose values are not all in its file of `size` bytes, as they are.

    Raises:
        InputError: `where`, and what is wrong.
    """
    if dataset.shape is None:
        raise InputError(f"{where}: must have values, got none")
    properties = dataset.id.get_create_plist()
    layout = properties.get_layout()
    if properties.get_external_count() or layout not in (h5py.h5d.CONTIGUOUS, *([h5py.h5d.CHUNKED] if chunks else [])):
        rule = "must have its values in this file, one after the other"
        raise InputError(f"{where}: {rule}, got a virtual, external, compact or chunked dataset")
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if filters - {h5py.h5z.FILTER_FLETCHER32}:
        raise InputError(f"{where}: must not be compressed, got filters {sorted(filters)}")
    declared, stored = n_bytes(dataset), dataset.id.get_storage_size()
    first = dataset.id.get_offset() if layout == h5py.h5d.CONTIGUOUS else 0
    if declared and (first is None or not declared <= stored or first + stored > size):
        raise InputError(f"{where}: must have all its {declared} bytes in a file of {size}, got {stored} at {first}")


def n_bytes(dataset: h5py.Dataset) -> int:
    """Bytes that its shape and type declare, however many that are."""
    return math.prod(dataset.shape) * dataset.id.get_type().get_size()


def text_bytes(dataset: h5py.Dataset, path: Path) -> int:
    """Bytes that the texts of a dataset take once they are read, which may be one text of the file many times.

    HDF5 has a number of bytes and a place for each (its file format specification, IV.B). 0 of numbers, and of texts in
    chunks, which only a child reads first.
    """
    if not dataset.dtype.hasobject or not dataset.size or dataset.chunks:
        return 0
    width = dataset.id.get_type().get_size()
    with open_bytes(path) as file:
        file.seek(dataset.id.get_offset())
        values = file.read(dataset.size * width)
    lengths = np.frombuffer(values, dtype=[("length", "<u4"), ("place", f"V{width - 4}")])["length"]
    return int(lengths.sum(dtype=np.int64))


def _check_form(dataset: h5py.Dataset, form: Form, where: str) -> None:
    text = h5py.check_string_dtype(dataset.dtype)
    kind = dataset.dtype.kind if dataset.dtype.kind == "S" or text else dataset.dtype.str
    if (kind not in form.types) or (kind == "O" and text is None) or len(dataset.shape) != form.n_dimensions:
        wanted = f"{' or '.join(form.types)} of {form.n_dimensions} dimensions"
        got = f"{shown(dataset.dtype)} of {len(dataset.shape)}"
        raise InputError(f"{where}: must be {wanted}, got {got}")
    if form.widths and dataset.shape[-1] not in form.widths:
        raise InputError(f"{where}: must have {' or '.join(map(str, form.widths))} columns, got {dataset.shape[-1]}")


def check_values(values: Any, where: str, allowed: Sequence[int]) -> None:
    """Refuse values of an integer column, (n,), that are not those allowed, which follow each other.

    Raises:
        InputError: `where`, and the first of them.
    """
    wrong = (values < allowed[0]) | (values > allowed[-1])
    if wrong.any():
        got = values[np.argmax(wrong)]
        raise InputError(f"{where}: must be {' or '.join(map(str, allowed))}, got {got} in row {np.argmax(wrong)}")


def shown(value: object) -> str:
    """A name or value of a file for a message: on one line, and short."""
    text = " ".join("".join(c if c.isprintable() else "?" for c in str(value)).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
