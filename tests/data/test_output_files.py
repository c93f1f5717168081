"""Outputs from files: every format gives the same numbers, and what cannot be is one line that says where."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from outputs import WRITERS, a_raw_config, flat, made_up, softmax, write_csv, write_hdf5, write_npz

from mia_batch import signals
from mia_batch.data import tables
from mia_batch.data.csv_table import CsvTable
from mia_batch.data.npy_table import StoredArray
from mia_batch.data.outputs import Outputs
from mia_batch.data.repeated import first_repeated
from mia_batch.errors import InputError
from mia_batch.settings.loading import make_config
from mia_batch.settings.outputs import OutputsConfig


def of(files: Any, **data: Any) -> Outputs:
    """The outputs of such a section `data`."""
    files = files if isinstance(files, dict) else str(files)
    found = make_config(a_raw_config(files, **data), Path("c.yaml")).data
    assert isinstance(found, OutputsConfig)
    return Outputs(found)


def everything(outputs: Outputs) -> dict[str, np.ndarray]:
    """All that is read."""
    samples = outputs.read_samples()
    columns = {name: getattr(samples, name) for name in ("member", "label", "group", "sample_id", "rows")}
    columns |= {name: numbers for name, (numbers, _) in samples.slices.items()}
    columns["outputs"] = np.concatenate(list(outputs.read_outputs()))
    return {name: column for name, column in columns.items() if column is not None}


def problem(work: Callable[[], Any]) -> str:
    """The one line of a refusal."""
    with pytest.raises(InputError) as error:
        work()
    (line,) = error.value.problems
    assert "\n" not in line
    return line


def refusal(path: Path, arrays: dict[str, Any], **data: Any) -> str:
    """Of a .npz of these arrays."""
    return problem(lambda: everything(of(write_npz(path, arrays), **data)))


def changed(array: np.ndarray, place: Any, value: float) -> np.ndarray:
    """The array with another value at one place."""
    found = array.copy()
    found[place] = value
    return found


def with_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With groups, ids and slices, some of them text."""
    n = len(arrays["label"])
    return arrays | {
        "group": np.arange(n) // 2 - 1, "sample_id": np.array([f"rec {i}ä" for i in range(n)]),
        "site": np.array(["north", "south", "west"])[np.arange(n) % 3], "age": np.arange(n) % 5,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["logits", "probabilities", "loss"])
def test_every_format_gives_the_same(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK_VALUES", 64)  # many blocks
    arrays = made_up()
    z, y = arrays.pop("logits"), arrays["label"]
    p = softmax(z)
    p[5], p[6] = [1, 0, 0, 0], [1 - 1e-12, 1e-12, 0, 0]
    arrays[kind] = {"logits": z, "probabilities": p, "loss": signals.loss(z, y)}[kind]
    found = {
        name: everything(of(write(tmp_path / name, with_names(arrays)), columns={"slices": ["site", "age"]}))
        for name, write in WRITERS.items()
    }
    names = {"logits": "z.npy", "probabilities": "p.npy", "loss": "l.npy"}
    parts = {name: str(tmp_path / names.get(name, f"{name}.npy")) for name in with_names(arrays)}
    for name, array in with_names(arrays).items():
        np.save(parts[name], array)
    found["npy"] = everything(of(parts, columns={"slices": ["site", "age"]}))
    first = found["npz"]
    for name, columns in found.items():
        assert columns.keys() == first.keys()
        for column in columns:
            assert np.array_equal(columns[column], first[column]), (name, column)
            assert columns[column].dtype == first[column].dtype
    assert first["outputs"].dtype == ("float64" if kind == "loss" else "float32")
    if kind == "logits":
        assert np.array_equal(first["outputs"], z)
    if kind == "probabilities":
        exact = np.log(np.maximum(p, signals.LEAST)).astype(np.float32)
        assert np.array_equal(first["outputs"], exact)
        assert first["outputs"][5].tolist() == [0, *[np.float32(np.log(signals.LEAST))] * 3]
    assert np.array_equal(first["group"][:6], [-1, -1, 0, 0, 1, 1])  # -1 is of none, as in files of groups
    assert first["sample_id"][1].decode() == "rec 1ä"
    assert np.array_equal(first["site"], np.arange(300) % 3)


def test_members_come_first_in_the_order_of_the_file(tmp_path: Path) -> None:
    arrays = made_up(9)
    rows = of(write_npz(tmp_path / "a", arrays)).read_samples().rows
    order = np.argsort(rows)
    assert np.array_equal(arrays["member"][order], sorted(arrays["member"], reverse=True))
    assert np.array_equal(order, [*np.flatnonzero(arrays["member"]), *np.flatnonzero(arrays["member"] == 0)])


def test_two_files_are_the_two_sides(tmp_path: Path) -> None:
    arrays = made_up(40)
    sides = {}
    for side, word in ((1, "members"), (0, "nonmembers")):
        own = {name: array[arrays["member"] == side] for name, array in arrays.items() if name != "member"}
        sides[word] = str((write_csv if side else write_npz)(tmp_path / word, own))
    one, two = everything(of(write_npz(tmp_path / "one", arrays))), everything(of(sides))
    for name in ("label", "outputs", "member"):
        first, second = np.empty_like(one[name]), np.empty_like(two[name])
        first[one["rows"]], second[two["rows"]] = one[name], two[name]
        assert np.array_equal(first, second)


def test_a_member_column_that_contradicts_its_file_is_refused(tmp_path: Path) -> None:
    arrays = made_up(20)
    path, other = (str(write_npz(tmp_path / name, arrays)) for name in "ab")
    line = problem(lambda: of({"members": path, "nonmembers": other}).read_samples())
    assert f"{path}: member: row {np.argmin(arrays['member'])}: must be 1 in the file of members, got 0" == line


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, ">f4", np.longdouble])
def test_one_column_is_of_two_classes(tmp_path: Path, dtype: Any) -> None:
    z, y, m = np.array([-3, 0, 2, 7], dtype), [0, 1, 1, 0], [1, 1, 0, 0]
    for logits in (z, z[:, np.newaxis]):
        found = everything(of(write_npz(tmp_path / "a", {"logits": logits, "label": y, "member": m})))
        assert np.array_equal(found["outputs"], np.column_stack([np.zeros(4), z]))
    p = np.array([0, 0.25, 1, 0.5], np.float32)
    found = everything(of(write_npz(tmp_path / "b", {"probabilities": p, "label": y, "member": m})))
    expected = np.log(np.maximum(np.column_stack([1 - p, p]), signals.LEAST).astype(np.float64))
    np.testing.assert_allclose(found["outputs"], expected, rtol=1e-6)


@pytest.mark.parametrize("format", WRITERS)
@pytest.mark.parametrize("words", [["false", "true"], ["0", "1"], ["FALSE", "True"]])
def test_membership_may_be_words_in_every_format(tmp_path: Path, format: str, words: list[str]) -> None:
    arrays = made_up(30)
    member = np.array(words)[arrays["member"]]
    found = of(WRITERS[format](tmp_path / "a", {**arrays, "member": member})).read_samples()
    assert np.array_equal(found.member, arrays["member"])
    wrong = np.array([*member[:7], "yes", *member[8:]])
    line = problem(of(WRITERS[format](tmp_path / "b", {**arrays, "member": wrong})).read_samples)
    assert line.endswith("7: must be 0 or 1, or false or true, got 'yes'" if format != "csv" else
                         "line 9: must be 0 or 1, or false or true, got 'yes'")  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logits": lambda z: z.astype(object)}, "logits: must hold numbers or text, got Python objects (a pickle)"),
        ({"logits": lambda z: z.astype(complex)}, "logits: must hold numbers or text, got complex128"),
        ({"logits": lambda z: z.astype(str)}, "logits: must hold numbers, got text"),
        ({"logits": lambda z: z > 0}, "logits: must hold numbers, got bool"),
        ({"logits": lambda z: z[:-1]}, "label: must have a row for each of 29 samples, got 30"),
        ({"logits": lambda z: z[:, :, None]}, "logits: must have one or two dimensions, samples first, got 3"),
        ({"logits": lambda z: z[:, :0]}, "logits: must have columns, got none"),
        ({"logits": lambda z: changed(z, (12, 2), np.nan)}, "logits: row 12: must be finite, got nan"),
        ({"logits": lambda z: changed(z, (12, 3), -np.inf)}, "row 12: must be finite, got -inf"),
        ({"logits": lambda z: z.astype(float) * 1e300}, "logits: row 0: must be in the range of float32, got"),
        ({"label": lambda y: y + 0.5}, "label: must be integers, got float64"),
        ({"label": lambda y: y.astype(float)}, "label: must be integers, got float64"),
        ({"label": lambda y: y - 9}, "label: row 0: must be in 0..3, got -"),
        ({"label": lambda y: changed(y, 7, 4)}, "label: row 7: must be in 0..3, got 4"),
        ({"label": lambda y: np.full(30, 2**63, np.uint64)}, "label: row 0: must be in 0..3, got 9223372036854775808"),
        ({"label": lambda y: y > 0}, "label: must be integers, got bool"),
        ({"label": lambda y: np.stack([y, y], 1)}, "label: must be one value of each sample, got 2"),
        ({"member": lambda m: changed(m, 3, 2)}, "member: row 3: must be 0 or 1, or false or true, got 2"),
        ({"member": lambda m: changed(m.astype(float), 3, np.nan)}, "member: row 3: must be 0 or 1"),
        ({"member": lambda m: changed(m.astype(float), 3, 0.5)}, "member: row 3: must be 0 or 1"),
        ({"member": lambda m: m * 0}, "must have members and non-members, got no members"),
        ({"member": lambda m: m * 0 + 1}, "must have members and non-members, got no non-members"),
        ({"member": None}, "must say who is a member, in a column member"),
        ({"label": None}, "must have true classes, in a column label"),
        ({"logits": None}, "must have logits, probabilities, loss, or data.columns must name them; it has label, mem"),
        ({"group": lambda _: np.arange(30.0)}, "group: must hold integers or text, got float64"),
        ({"sample_id": lambda _: np.arange(30) % 29}, "sample_id: must be another for each sample, got '0' twice"),
        ({"sample_id": lambda _: np.array(["x" * 300] * 30)}, "sample_id: row 0: must have at most 255 bytes"),
        ({"sample_id": lambda _: np.array([*"abc", ""] + ["d"] * 26)}, "sample_id: row 3: must be there, got ''"),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be_are_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    arrays = made_up(30)
    for name, new in change.items():
        if new is None:
            del arrays[name]
        else:
            arrays[name] = new(arrays.get(name))
    line = refusal(tmp_path / "a", arrays)
    assert line.startswith(f"{tmp_path / 'a.npz'}: ")
    assert said in line


@pytest.mark.parametrize(
    ("p", "said"),
    [
        ([0.5, 0.4], "row 1: must sum to 1, got 0.9"), ([1.1, -0.1], "row 1: must be at least 0, got -0.1"),
        ([0.5, 0.502], "row 1: must sum to 1, got 1.002"), ([0.333, 0.667], ""),
        ([np.nan, 1], "must be finite, got nan"),
    ],
)  # fmt: skip
def test_probabilities_are_distributions(tmp_path: Path, p: list[float], said: str) -> None:
    arrays = {"probabilities": np.array([[0.5, 0.5], p]), "label": [0, 1], "member": [0, 1]}
    path = write_npz(tmp_path / "a", arrays)
    if said:
        assert said in problem(lambda: everything(of(path)))
    else:
        everything(of(path))
    one = {**arrays, "probabilities": np.array([0.5, 1.5])}
    assert "row 1: must be at most 1, got 1.5" in refusal(tmp_path / "b", one)


@pytest.mark.parametrize(
    ("loss", "said"),
    [([1, -1e-9], "loss: row 1: must be at least 0, got -1e-09"), ([1, np.inf], "must be finite, got inf"),
     ([[1, 2], [3, 4]], "loss: must be one number of each sample, got 2")],
)  # fmt: skip
def test_losses_are_cross_entropies(tmp_path: Path, loss: Any, said: str) -> None:
    assert said in refusal(tmp_path / "a", {"loss": np.array(loss), "member": [0, 1]})


def test_losses_alone_can_do_without_labels(tmp_path: Path) -> None:
    found = everything(of(write_npz(tmp_path / "a", {"loss": np.array([0.5, 2, 0]), "member": [True, False, True]})))
    assert found["outputs"].tolist() == [0.5, 2, 0]
    assert set(found) == {"member", "rows", "outputs"}
    for side, losses in (("members", [1.0]), ("nonmembers", [2.0, 3.0])):
        np.save(tmp_path / f"{side}.npy", losses)
    files = {side: str(tmp_path / f"{side}.npy") for side in ("members", "nonmembers")}
    assert everything(of(files, columns={"loss": "loss"}))["outputs"].tolist() == [1, 2, 3]
    with pytest.raises(InputError, match=r"must say whether a \.npy holds logits or probabilities or loss"):
        of(files)


def text(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


GOOD = "logit_0,logit_1,label,member\n1,2,0,1\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "must hold outputs, got an empty file"),
        ("\n\n", "must have logits, probabilities, loss, or data.columns must name them; it has nothing"),
        ("1,2,0,1\n3,4,1,0\n", "line 1: must be a header with the columns' names, got '1'"),
        (f"1{'0' * 99}\n1\n", f"line 1: must be a header with the columns' names, got '1{'0' * 76}...'"),
        ("logit_0,logit_1,label,member\n", "must have rows, got none"),
        (GOOD + "1,2,0\n", "line 3: must have 4 values, as the header, got 3"),
        (GOOD + "1,,0,0\n", "line 3: logit_1: must be a number, got ''"),
        (GOOD + "1,1_000,0,0\n", "line 3: logit_1: must be a number, got '1_000'"),
        (GOOD + "1,٣,0,0\n", "line 3: logit_1: must be a number, got '٣'"),
        (GOOD + "\n1,NaN,0,0\n", "logits: line 4: must be finite, got nan"),
        (GOOD + "1,2,,0\n", "label: line 3: must be an integer in 0..1, got ''"),
        (GOOD + "1,2,1.0,0\n", "label: line 3: must be an integer in 0..1, got '1.0'"),
        (GOOD + "1,2,²,0\n", "label: line 3: must be an integer in 0..1, got '²'"),
        (GOOD + "1,2,-1,0\n", "label: line 3: must be an integer in 0..1, got '-1'"),
        (GOOD + "1,2,7,0\n", "label: line 3: must be in 0..1, got '7'"),
        (GOOD + "1,2,0,yes\n", "member: line 3: must be 0 or 1, or false or true, got 'yes'"),
        (GOOD + '1,"2,0,0\n', "line 3: logit_1: must be CSV that can be read, got a quote that is never closed"),
        (GOOD + '1,"' + "2,0,0\n" * 50_000, "got a value of more than 131072 characters: is a quote never closed?"),
        ("logit_0,logit_2,label,member\n1,2,0,1\n", "a column for each class up to logit_2, number 1 is missing"),
        ("logit_0,logit_0,label,member\n1,2,0,1\n", "line 1: must name each column once, got logit_0 twice"),
        ("logit_0,,label,member\n1,2,0,1\n", "line 1: must name every column, got none at 2"),
        (GOOD.encode("utf-16"), "must be text in UTF-8, got UnicodeDecodeError"),
        (GOOD.encode() + b"1,\xff,0,0\n", "must be text in UTF-8, got UnicodeDecodeError"),
        (GOOD + "1,2,0," + "0" * 200_000 + "\n", "line 3: member: must be CSV that can be read, got a value of"),
    ],
)  # fmt: skip
def test_csv_that_cannot_be_is_one_line(tmp_path: Path, content: str | bytes, said: str) -> None:
    csv.field_size_limit(1 << 30)  # as a library may have done, for the whole process
    path = text(tmp_path / "a.csv", content)
    line = problem(lambda: everything(of(path)))
    assert line.startswith(f"{path}: ")
    assert said in line


@pytest.mark.parametrize(
    "content",
    [
        "logit_0;logit_1;label;member\n1;2;0;True\n3;4;1;false\n",
        "logit_0\tlogit_1\tlabel\tmember\n1\t2\t0\t1\n3\t4\t1\t0\n",
        '\ufeff"logit_0","logit_1","label","member"\r\n"1"," 2",0,1\r\n\r\n3,4,1, 0\r\n\r\n',
        "note,member,logit1,label,logit0\n\"a,\n\"\"b\"\"\",1,2,0,1\n,0,4,1,3\n",
    ],
)  # fmt: skip
def test_csv_of_many_hands_is_read(tmp_path: Path, content: str) -> None:
    found = everything(of(text(tmp_path / "a.csv", content)))
    assert found["outputs"].tolist() == [[1, 2], [3, 4]]
    assert found["member"].tolist() == [1, 0]
    assert found["label"].tolist() == [0, 1]


def test_thousands_of_columns_are_read(tmp_path: Path) -> None:
    arrays = made_up(6, 3000)
    assert np.array_equal(everything(of(write_csv(tmp_path / "a", arrays)))["outputs"], arrays["logits"])


@contextmanager
def at_most(mebibytes: float) -> Iterator[None]:
    """Assert that Python and numpy never hold more in the block."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert peak < mebibytes


def test_columns_that_are_not_asked_for_are_not_held(tmp_path: Path) -> None:
    """As text a row of 100 classes takes 7 KB."""
    header = ",".join([f"logit_{i}" for i in range(100)] + ["label", "member"])
    line = ",".join(["-1.234567"] * 100)
    rows = [f"{line},{i % 100},{i % 2}" for i in range(10_000)]
    table = CsvTable(text(tmp_path / "a.csv", "\n".join([header, *rows, ""])))
    with at_most(20):
        blocks = list(table.read(["member", "label"]))
    assert [int(value) for _, label in blocks for value in label] == [i % 100 for i in range(10_000)]
    with at_most(60):
        assert sum(len(block) for block in table.numbers([f"logit_{i}" for i in range(100)])) == 10_000


@pytest.mark.parametrize(
    ("format", "role"),
    [*product(WRITERS, ["sample_id", "group", "site"]), ("csv", "label"), ("csv", "member")],
)
def test_a_text_that_is_too_long_is_refused_before_all_are_as_wide(tmp_path: Path, format: str, role: str) -> None:
    arrays = made_up(2000)
    short = arrays[role] if role in arrays else [f"name {i}" for i in range(2000)]
    names = np.array([*map(str, short[:1500]), "ä" * (128 if "npz" in format else 50_000), *map(str, short[1501:])],
                     dtype=object)  # fmt: skip
    path = tmp_path / "a"
    written = WRITERS[format](path, {**arrays, role: names.astype(np.str_) if "npz" in format else names})
    outputs = of(written, columns={"slices": ["site"] if role == "site" else []})
    with at_most(20):
        line = problem(outputs.read_samples)
    row = "line 1502" if format == "csv" else "row 1500"
    assert line.startswith(f"{written}: {role}: {row}: must have at most 255 bytes, got 'ää")


def test_text_is_read_in_blocks_that_stay_small(tmp_path: Path) -> None:
    arrays = {**made_up(60_000), "site": np.array(["a" * 255] * 59_999 + ["b"])}
    for write in (write_csv, write_hdf5, write_npz):
        outputs = of(write(tmp_path / "a", arrays), columns={"slices": ["site"]})
        with at_most(60):  # 58 MiB at once would be as much again for each step
            assert outputs.read_samples().slices["site"][0].tolist() == [0] * 59_999 + [1]


def test_columns_by_name(tmp_path: Path) -> None:
    z = made_up(10, 3)
    arrays = {"z": z["logits"], "y": z["label"], "is_in": z["member"], "logits": z["logits"] * 0}
    path = write_npz(tmp_path / "a", arrays)
    names = {"logits": "z", "label": "y", "member": "is_in"}
    assert np.array_equal(everything(of(path, columns=names))["outputs"], z["logits"])
    columns = write_csv(tmp_path / "b", z)
    for named in ("logit", "logit_", ["logit_2", "logit_0", "logit_1"]):
        order = [2, 0, 1] if isinstance(named, list) else [0, 1, 2]
        assert np.array_equal(everything(of(columns, columns={"logits": named}))["outputs"], z["logits"][:, order])
    for key, name in (("label", "yy"), ("logits", "zz"), ("slices", ["s"]), ("logits", ["z", "q"])):
        line = problem(lambda key=key, name=name: of(path, columns={key: name}))  # type: ignore[misc]
        assert f"data.columns.{key}: must be there, got" in line
        assert "it has z, y, is_in, logits" in line


@pytest.mark.parametrize("write", [write_npz, write_hdf5])
def test_what_nobody_asks_for_may_be_anything(tmp_path: Path, write: Callable[..., Path]) -> None:
    arrays = made_up(20)
    more: dict[str, Any] = {"epoch": np.array(3), "images": np.zeros((20, 3, 2, 2)), "when": np.array(["a"], "S1")}
    if write is write_npz:
        more |= {"names": np.array([{}] * 20), "days": np.zeros(20, "M8[s]")}
    path = write(tmp_path / "a", {**more, **arrays})
    assert np.array_equal(everything(of(path))["outputs"], arrays["logits"])
    said = {
        "epoch": "must have one or two dimensions, samples first, got 0",
        "images": "must have one or two dimensions, samples first, got 4", "names": "Python objects (a pickle)",
        "days": "must hold numbers or text, got datetime64[s]", "when": "must have a row for each of 20 samples, got 1",
    }  # fmt: skip
    for name in more:
        for key in ("label", "member", "group"):
            line = problem(lambda name=name, key=key: of(path, columns={key: name}))  # type: ignore[misc]
            assert line.startswith(f"{path}: {name}: ")
            assert said[name] in line


def test_a_damaged_array_that_nobody_asks_for_is_not_read(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a", made_up(20))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("old.npy", b"no array")
    everything(of(path))
    assert "old: must be a readable array of numpy (.npy), got" in problem(lambda: of(path, columns={"loss": "old"}))


def npy_bytes(array: np.ndarray, **header: Any) -> bytes:
    """A .npy, with another header than its own if asked for."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array) | header)
    return file.getvalue() + array.tobytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"nothing of numpy's", "must be a readable array of numpy (.npy), got ValueError"),
        (b"\x93NUMPY\x01\x00\x10\x00", "must be a readable array of numpy (.npy), got"),
        (npy_bytes(np.zeros((4, 3), "f4"))[:-1], "must have 176 bytes, as its header says, got 175"),
        (npy_bytes(np.zeros((4, 3), "f4")) + b"x", "must have 176 bytes, as its header says, got 177"),
        (npy_bytes(np.zeros((4, 3), "f4"), shape=(10**15, 3)), "bytes, as its header says, got 176"),
        (npy_bytes(np.zeros((4, 3), "f4"), shape=(-4, -3)), "must have 176 bytes, as its header says, got 176"),
        (npy_bytes(np.zeros(4, [("a", "f4")])), "must hold numbers or text, got [('a', '<f4')]"),
    ],
)  # fmt: skip
def test_damaged_arrays_are_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path, np_y, np_m = text(tmp_path / "z.npy", content), tmp_path / "y.npy", tmp_path / "m.npy"
    for each in (np_y, np_m):
        np.save(each, np.zeros(4, int))
    line = problem(lambda: of({"logits": str(path), "label": str(np_y), "member": str(np_m)}))
    assert said in line
    assert line.startswith(f"{path}: ")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("logits.npy", content)
    assert said in problem(lambda: of(tmp_path / "a.npz"))


def test_damaged_archives_are_one_line(tmp_path: Path) -> None:
    whole = write_npz(tmp_path / "a", made_up(30)).read_bytes()
    for cut in (whole[: len(whole) // 2], b"no zip"):
        path = text(tmp_path / "b.npz", cut)
        assert "must be a .npz file of numpy, got BadZipFile" in problem(lambda path=path: of(path))  # type: ignore[misc]
    broken = bytearray(whole)
    broken[200] ^= 1
    path = text(tmp_path / "c.npz", bytes(broken))
    assert "logits: must be a readable array of numpy (.npy), got BadZipFile" in problem(lambda: everything(of(path)))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("logits.npy", npy_bytes(np.zeros((4, 3))))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("logits.npy", npy_bytes(np.zeros((4, 3))))
    assert "logits: must be there once, got it twice" in problem(lambda: of(tmp_path / "d.npz"))


def test_a_copy_of_columns_is_made_where_it_may_be_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the system's folder of temporary files, which is often memory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    arrays, scratch = made_up(30), tmp_path / "run"
    outputs = of(WRITERS["npz_by_columns"](tmp_path / "a", arrays))
    assert "gone: does not exist" in problem(lambda: list(outputs.read_outputs()))
    scratch.mkdir()
    assert np.array_equal(np.concatenate(list(outputs.read_outputs(scratch))), arrays["logits"])
    assert list(scratch.iterdir()) == []

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert problem(lambda: list(outputs.read_outputs(scratch))) == f"{scratch}: the disk is full"
    one = write_npz(tmp_path / "b", {"member": arrays["member"]})
    with zipfile.ZipFile(one, "a") as archive:
        archive.writestr("loss.npy", npy_bytes(np.ones((30, 1)), fortran_order=True))
    everything(of(one))  # one column is read as it is


def test_what_is_no_fault_of_the_file_is_not_said_to_be(tmp_path: Path) -> None:
    def fails(error: Exception) -> StoredArray:
        def opened() -> Any:
            raise error

        return StoredArray("a.npz: z", opened, 100)

    line = problem(fails(OSError(errno.EIO, "Input/output error")).with_header)
    assert line == "a.npz: z: must be in a file that can be read, got: Input/output error"
    line = problem(fails(OSError(errno.EINVAL, "Invalid argument")).with_header)
    assert line == "a.npz: z: must be a readable array of numpy (.npy), got: Invalid argument"
    with pytest.raises(MemoryError):
        fails(MemoryError()).with_header()


def test_nothing_outside_an_hdf5_file_is_followed(tmp_path: Path) -> None:
    arrays = made_up(20)
    other = write_hdf5(tmp_path / "other", arrays)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("label", "member"):
            file[name] = arrays[name]
        file["logits"] = h5py.ExternalLink(str(other), "logits")
    assert "it has label, member" in problem(lambda: of(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["logits"]
        file["logits"], file["loop"] = h5py.SoftLink("/loop"), h5py.SoftLink("/logits")
        file.create_group("deep")["up"] = file["/"]  # a circle of hard links
    assert "it has label, member" in problem(lambda: of(tmp_path / "a.h5"))
    layout = h5py.VirtualLayout((20, 4), "f4")
    layout[:] = h5py.VirtualSource(str(other), "logits", (20, 4))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["logits"]
        file.create_virtual_dataset("logits", layout)
    outputs = of(tmp_path / "a.h5")
    assert "logits: must have its values in this file, got a virtual" in problem(lambda: everything(outputs))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, external=[(str(tmp_path / name), 0, array.nbytes)])
    assert "got a virtual or external dataset" in problem(lambda: everything(of(tmp_path / "b.h5")))


@pytest.mark.parametrize(("n_bytes", "rule"), [
    (10_000, r"sample_id: must have its text once for each row, got more text than the file's \d+ bytes"),
    (10_000_000, "must be an HDF5 file that can be read, got .*memory allocation failed"),
])  # fmt: skip
def test_many_rows_that_name_one_text_take_no_memory(tmp_path: Path, n_bytes: int, rule: str) -> None:
    path, n = write_hdf5(tmp_path / "a", made_up(2000)), 2000
    with h5py.File(path, "r+") as file:
        names = file.create_dataset("sample_id", data=["x" * n_bytes] + ["y"] * (n - 1), dtype=h5py.string_dtype())
        first, width = names.id.get_offset(), names.id.get_storage_size() // n
    data = bytearray(path.read_bytes())
    data[first : first + n * width] = data[first : first + width] * n
    path.write_bytes(data)
    assert re.search(rule, problem(lambda: of(path)))


def test_what_is_no_hdf5_file_is_one_line(tmp_path: Path) -> None:
    whole = write_hdf5(tmp_path / "a", made_up(200)).read_bytes()
    for content in (b"no HDF5", whole[: len(whole) // 2]):
        path = text(tmp_path / "b.h5", content)
        assert "must be an HDF5 file that can be read" in problem(lambda path=path: everything(of(path)))
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["logits"] = 3.0
    assert "logits: must have one or two dimensions, samples first, got 0" in problem(lambda: of(tmp_path / "c.h5"))


def test_files_that_are_none_are_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "empty.npz").touch()
    (tmp_path / "a.xlsx").write_text("x")
    assert "must be a file" in problem(lambda: of(tmp_path / "pipe.npz"))
    assert "must be a file" in problem(lambda: of(tmp_path / "folder.npz"))
    assert "got an empty file" in problem(lambda: of(tmp_path / "empty.npz"))
    assert "whose name ends in .npz, .npy" in problem(lambda: of(tmp_path / "a.xlsx"))
    for name, state in (("pipe", "is no regular file"), ("folder", "is a folder"), ("gone", "does not exist")):
        raw = a_raw_config(str(tmp_path / f"{name}.npz"))
        line = problem(lambda raw=raw: make_config(raw, Path("c.yaml"), need=("data",)))
        assert line.endswith(f"which {state}")


def test_parquet_that_cannot_be_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    columns: dict[str, Any] = flat(made_up(20))

    def write(**changed: Any) -> Path:
        parquet.write_table(pyarrow.table({**columns, **changed}), tmp_path / "a.parquet")
        return tmp_path / "a.parquet"

    missing = [None if i == 4 else 1.0 for i in range(20)]
    assert "logit_2: row 4: must be there" in problem(lambda: everything(of(write(logit_2=missing))))
    missing = [None if i == 4 else 1 for i in range(20)]
    assert "label: row 4: must be there" in problem(lambda: everything(of(write(label=missing))))
    ragged = [[1.0, 2.0]] * 7 + [[1.0]] + [[1.0, 2.0]] * 12
    assert "logits: row 7: must have 2 values, got 1" in problem(
        lambda: everything(of(write(logits=ragged, label=[0, 1] * 10)))
    )
    lists = columns["logit_0"].tolist()
    same = of(write(logits=[[z, -z] for z in lists], label=[0, 1] * 10))
    np.testing.assert_array_equal(everything(same)["outputs"][:, 1], -columns["logit_0"])
    assert "must be a Parquet file" in problem(lambda: of(text(tmp_path / "b.parquet", b"PAR1 no more")))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "needs pyarrow, which is not installed: pip install" in problem(lambda: of(tmp_path / "a.parquet"))


def test_files_must_agree(tmp_path: Path) -> None:
    one, two = made_up(10), made_up(10, 5)
    for arrays in (one, two):
        del arrays["member"]
    files = {"members": str(write_npz(tmp_path / "a", one)), "nonmembers": str(write_npz(tmp_path / "b", two))}
    assert f"/b.npz: columns of logits: must be as in {tmp_path}/a.npz, 4, got 5" in problem(lambda: of(files))
    write_npz(tmp_path / "b", {"loss": np.ones(10), "label": two["label"]})
    assert "b.npz: outputs: must be as in" in problem(lambda: of(files))
    write_npz(tmp_path / "b", {**one, "group": np.arange(10)})
    assert "b.npz: has group, which the other file has not" in problem(lambda: of(files))


@pytest.mark.parametrize("width", [3, 16, 17, 40])
def test_the_first_repeated_name_is_found(width: int) -> None:
    names = np.array([str(i).zfill(width) for i in range(100)], dtype=f"S{width}")
    assert first_repeated(names) is None
    names[[40, 70, 90]] = names[[3, 2, 2]]
    assert first_repeated(names) == 40


def test_slices_of_too_many_values_are_refused(tmp_path: Path) -> None:
    arrays = {**made_up(2000), "age": np.arange(2000)}
    line = refusal(tmp_path / "a", arrays, columns={"slices": ["age"]})
    assert "age: must have at most 1000 different values" in line


def test_an_empty_line_of_one_column_is_a_value_that_is_missing(tmp_path: Path) -> None:
    other = text(tmp_path / "b.csv", "loss\n1\n2\n")
    for content, line in (("loss\n1\n\n2\n", 3), ("loss\r\n\r\n1\r\n\r\n2", 2), ("loss\n\n\n1\n", 2)):
        path = text(tmp_path / "a.csv", content)
        said = problem(lambda path=path: everything(of({"members": str(path), "nonmembers": str(other)})))
        assert said == f"{path}: line {line}: must have a value, got an empty line"
    path = text(tmp_path / "a.csv", "loss\n1\n3\n\n\n")
    assert everything(of({"members": str(path), "nonmembers": str(other)}))["outputs"].tolist() == [1, 3, 1, 2]


def test_names_in_a_header_may_have_spaces_around_them(tmp_path: Path) -> None:
    path = text(tmp_path / "a.csv", "logit_0, logit_1, label , member\n1, 2, 0, 1\n3, 4, 1, 0\n")
    assert everything(of(path))["outputs"].tolist() == [[1, 2], [3, 4]]
    path = text(tmp_path / "b.csv", "logit_0, logit_0,label,member\n1,2,0,1\n")
    assert problem(lambda: of(path)) == f"{path}: line 1: must name each column once, got logit_0 twice"


@pytest.mark.parametrize("again", ["logit0", "logit_00"])
def test_two_columns_of_one_number_are_refused(tmp_path: Path, again: str) -> None:
    columns = flat(made_up(20))
    line = refusal(tmp_path / "a", {**columns, again: columns["logit_1"]})
    assert line.endswith(f"must have one column for each class, got logit_0 and {again} for number 0")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"logits": ["logit_0", "logit_1", "label"]}, "label: must be another column than that of logits, got label"),
        ({"logits": ["logit_0", "member"]}, "member: must be another column than that of logits, got member"),
        ({"logits": ["logit_0", "logit_1", "logit_0"]}, "logits: must name each column once, got logit_0"),
        ({"label": "member"}, "member: must be another column than that of label, got member"),
        ({"group": "label"}, "group: must be another column than that of label, got label"),
        ({"slices": ["logit_0"]}, "slices: must be another column than that of logits, got logit_0"),
    ],
)
def test_a_column_in_two_roles_is_refused(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    line = refusal(tmp_path / "a", flat(made_up(20)), columns=columns)
    assert line.endswith(f": data.columns.{said} twice")


def test_subsets_may_be_of_labels(tmp_path: Path) -> None:
    assert everything(of(write_npz(tmp_path / "a", made_up(20)), columns={"slices": ["label"]}))


def test_two_usual_names_of_labels_are_refused(tmp_path: Path) -> None:
    arrays = made_up(20)
    arrays["labels"] = arrays["label"][::-1]
    assert "data.columns.label: must say which is meant, got label and labels" in refusal(tmp_path / "a", arrays)
    found = everything(of(tmp_path / "a.npz", columns={"label": "labels"}))["label"]
    assert found.tolist() == arrays["labels"].tolist()


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("groups", "or named in data.columns, got groups; did you mean group?"),
        ("lable", "or named in data.columns, got lable; did you mean label?"),
        ("other", "or named in data.columns, got other"),
        ("loss", "must be of use, got loss beside logits, which count"),
    ],
)
def test_a_file_that_is_named_and_not_used_is_refused(tmp_path: Path, part: str, said: str) -> None:
    files = {}
    for name, array in {**made_up(20), part: np.arange(20.0)}.items():
        np.save(tmp_path / f"{name}.npy", array)
        files[name] = str(tmp_path / f"{name}.npy")
    line = problem(lambda: of(files))
    assert line.startswith(f"data.files.{part}: ")
    assert line.endswith(said)


def test_one_file_for_two_things_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", np.zeros((4, 2)))
    path = str(tmp_path / "z.npy")
    line = problem(lambda: of({"logits": path, "label": path}))
    assert line == f"data.files.label: must be another file than data.files.logits, got the same: {path}"
    line = problem(lambda: of({"members": {"loss": path}, "nonmembers": {"losses": path}}))
    assert "data.files.nonmembers.losses: must be another file than data.files.members.loss, got the same" in line


def test_parquet_of_other_types_says_which(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import decimal

    import pyarrow.parquet as parquet

    columns: dict[str, Any] = flat(made_up(4, 2))
    kinds = {
        "decimal128(2, 1)": pyarrow.array([decimal.Decimal("1.5")] * 4),
        "struct<a: double>": pyarrow.array([{"a": 1.0}] * 4),
        "list of decimal128(2, 1)": pyarrow.array([[decimal.Decimal("1.5")]] * 4),
    }
    for kind, array in kinds.items():
        parquet.write_table(pyarrow.table({**columns, "logit_0": array}), tmp_path / "a.parquet")
        line = problem(lambda: of(tmp_path / "a.parquet"))
        assert line.endswith(f"a.parquet: logit_0: must hold numbers or text, got Parquet's {kind}")
        assert everything(of(tmp_path / "a.parquet", columns={"logits": ["logit_1"]})) is not None
    lists = [None, [1.0, 2.0], [2.0, 1.0], [3.0, 1.0]]
    parquet.write_table(
        pyarrow.table({"logits": lists, "label": [0] * 4, "member": [1, 0] * 2}), tmp_path / "a.parquet"
    )
    line = problem(lambda: everything(of(tmp_path / "a.parquet")))
    assert line.endswith("logits: row 0: must be there, got a missing value")
