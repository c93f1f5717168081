"""Records, index files, selections and users' sources, good and bad, on synthetic bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import open_samples, select_all

from mia_batch.data.digests import data_digests
from mia_batch.data.index_files import read_indices
from mia_batch.data.selection import Selection, select
from mia_batch.errors import InputError
from mia_batch.settings.schema import DataConfig
from mia_batch.settings.user_code import resolve


def make_records(path: Path, count: int, *, labels: int = 2, seed: int = 0) -> np.ndarray:
    """Write `count` records of valid labels and random pixels; returns them, (count, labels + 3072)."""
    rng = np.random.default_rng(seed)
    records = rng.integers(0, 256, (count, labels + 3072), dtype=np.uint8)
    records[:, 0] = rng.integers(0, 20 if labels == 2 else 10, count)
    if labels == 2:
        records[:, 1] = rng.integers(0, 100, count)
    path.parent.mkdir(parents=True, exist_ok=True)
    records.tofile(path)
    return records


def config(path: Path | None, **changes: Any) -> DataConfig:
    fields: dict[str, Any] = {
        "source": "cifar100",
        "path": path,
        "members": {"split": "train"},
        "nonmembers": {"split": "test"},
    }
    return DataConfig.model_validate(fields | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_records(tmp_path / "train.bin", 30, seed=1)
    make_records(tmp_path / "test.bin", 20, seed=2)
    return tmp_path


@pytest.mark.parametrize("layout", ["{0}.bin", "{0}/{0}.bin"])
@pytest.mark.parametrize(("label", "column"), [("coarse", 0), ("fine", 1)])
def test_cifar100_in_both_layouts(tmp_path: Path, layout: str, label: str, column: int) -> None:
    train = make_records(tmp_path / layout.format("train"), 7, seed=1)
    test = make_records(tmp_path / layout.format("test"), 5, seed=2)
    data = config(tmp_path, label=label)
    selection = select_all(data)
    assert selection.sample_index.tolist() == [*range(7), *range(5)]
    assert selection.split.tolist() == ["train"] * 7 + ["test"] * 5
    assert selection.member.tolist() == [1] * 7 + [0] * 5
    np.testing.assert_array_equal(selection.label, np.concatenate([train[:, column], test[:, column]]))
    kinds = [getattr(selection, name).dtype for name in ("sample_index", "label", "member")]
    assert kinds == [np.int64, np.int32, np.int8]
    images = np.asarray(open_samples(data).read("train", np.array([4, 0]))[0].columns[0])
    # channel-major bytes: value of pixel (row, column, channel) stands at 2 + channel * 1024 + row * 32 + column
    assert images.shape == (2, 32, 32, 3)
    assert images[0, 3, 5, 2] == train[4, 2 + 2 * 1024 + 3 * 32 + 5]


@pytest.mark.parametrize("prefix", ["", "{split}/"])
def test_cifar10_under_its_own_names(tmp_path: Path, prefix: str) -> None:
    where = tmp_path / prefix.format(split="train")
    parts = [make_records(where / f"data_batch_{i}.bin", i, labels=1, seed=i) for i in (1, 2, 3)]
    make_records(tmp_path / prefix.format(split="test") / "test_batch.bin", 4, labels=1)
    data = config(tmp_path, source="cifar10")
    everything = np.concatenate(parts)
    selection = select_all(data)
    np.testing.assert_array_equal(selection.label[:6], everything[:, 0])
    index = np.array([5, 0, 3, 1, 5])
    images = np.asarray(open_samples(data).read("train", index)[0].columns[0])
    np.testing.assert_array_equal(images.transpose(0, 3, 1, 2).reshape(5, -1), everything[index, 1:])


def test_cifar10_in_one_file_and_a_gap_in_the_batches(tmp_path: Path) -> None:
    make_records(tmp_path / "one" / "train.bin", 3, labels=1)
    make_records(tmp_path / "one" / "test.bin", 3, labels=1)
    assert len(select_all(config(tmp_path / "one", source="cifar10"))) == 6
    make_records(tmp_path / "gap" / "data_batch_1.bin", 3, labels=1)
    make_records(tmp_path / "gap" / "data_batch_3.bin", 3, labels=1)
    with pytest.raises(InputError, match=r"numbered from 1 without a gap, got \[1, 3\]"):
        select_all(config(tmp_path / "gap", source="cifar10"))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _shift(path: Path) -> None:
    path.write_bytes(path.read_bytes()[1:] + b"\0")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _label(position: int, value: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[3074 * 6 + position] = value
        path.write_bytes(bytes(content))

    return damage


BAD_FILES = {
    "truncated": (_cut, r"cifar100 records of 3074 bytes, got 92120 bytes \(29 records and 2974 bytes\)"),
    "empty": (lambda path: path.write_bytes(b""), "at least one record of 3074 bytes, got an empty file"),
    "folder": (_folder, "must be a file of cifar100 records, got a folder"),
    "missing": (Path.unlink, "must hold the records of split 'train'"),
    "fine 100": (_label(1, 100), r"train.bin: record 6: fine label must be 0 to 99, got 100 \(1 of 30 records"),
    "fine 200": (_label(1, 200), "record 6: fine label must be 0 to 99, got 200"),
    "coarse 20": (_label(0, 20), "record 6: coarse label must be 0 to 19, got 20"),
    "shifted": (_shift, "coarse label must be 0 to 19"),
    "cifar10": (lambda path: make_records(path, 30, labels=1), r"; it is 30 records of cifar10"),
    "cifar10 padded": (
        lambda path: path.write_bytes(make_records(path, 30, labels=1).tobytes() + bytes(30)),
        r"label must be 0 to (19|99), got",
    ),
    "twice": (lambda path: make_records(path.parent / "train" / "train.bin", 3), "must hold split 'train' once"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_record_files_are_one_line(folder: Path, case: str) -> None:
    damage, rule = BAD_FILES[case]
    damage(folder / "train.bin")  # type: ignore[operator]
    with pytest.raises(InputError, match=rule) as caught:
        select_all(config(folder))
    assert [len(problem.splitlines()) for problem in caught.value.problems] == [1]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"path": "train.bin"}, "data.path: must be the folder of the records, got the file"),
        ({"path": "elsewhere"}, "must hold the records of split 'train'"),
        ({"source": "cifar10", "label": "coarse"}, "data.label: cifar10 records have fine, got 'coarse'"),
        ({"members": {"split": "valid"}}, "data.members: split must be one of train, test, got 'valid'"),
        ({"members": {"split": "train", "num_samples": 31}}, "split 'train' of 30 samples, got num_samples: 31"),
        ({"members": {"split": "train", "range": [20, 31]}}, r"data.members: must stay .* got range: \[20, 31\]"),
        (
            {"members": [{"split": "train", "range": [0, 9]}, {"split": "train", "range": [7, 12]}]},
            "data.members: must give each sample once, got 2 of split 'train' twice, the first 7",
        ),
        (
            {"members": [{"split": "test", "num_samples": 3}, {"split": "test", "range": [29, 31]}]},
            r"data.members\[1\]: must stay within split 'test' of 20",
        ),
        (
            {"nonmembers": [{"split": "test"}, {"split": "train", "range": [25, 30]}]},
            "data.nonmembers: must not overlap .* 5 samples of split 'train' on both sides, the first 25",
        ),
    ],
)
def test_bad_selections_are_one_line(folder: Path, changes: dict[str, Any], rule: str) -> None:
    if "path" in changes:
        changes = changes | {"path": folder / changes["path"]}
    with pytest.raises(InputError, match=rule) as caught:
        select_all(config(**({"path": folder} | changes)))
    assert {len(problem.splitlines()) for problem in caught.value.problems} == {1}


def test_blocks_join_in_the_order_given(folder: Path) -> None:
    np.save(folder / "some.npy", np.array([9, 2, 5], dtype=np.uint16))
    members = [{"split": "train", "indices": folder / "some.npy"}, {"split": "test", "range": [3, 5]}]
    nonmembers = [{"split": "train", "range": [28, 30]}, {"split": "test", "num_samples": 2}]
    selection = select_all(config(folder, members=members, nonmembers=nonmembers))
    assert selection.sample_index.tolist() == [9, 2, 5, 3, 4, 28, 29, 0, 1]
    assert selection.split.tolist() == ["train"] * 3 + ["test"] * 2 + ["train"] * 2 + ["test"] * 2
    assert selection.member.tolist() == [1] * 5 + [0] * 4


@pytest.mark.parametrize("text", ["3\n1\n2\n", "# mine\n3\n\n 1 # one\r\n+2", "\ufeff3\n1\n2"])
def test_index_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.txt").write_text(text, encoding="utf-8")
    assert read_indices(tmp_path / "index.txt").tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("a.txt", "1\n2.5\n", r"a.txt: line 2: must be one integer, got '2.5'"),
        ("a.txt", "1\n2 3\n", "line 2: must be one integer, got '2 3'"),
        ("a.txt", "1\n\n-4\n", "line 3: index must be >= 0, got -4"),
        ("a.txt", "7\n5\n7\n", r"line 3: each index must be given once, got 7 again \(first at line 1\)"),
        ("a.txt", "# nothing\n", "at least one index, got none"),
        ("a.txt", b"\xff\xfe\x00", "text with one integer a line, or .npy"),
        ("a.txt", "9" * 19, "must be one integer"),
        ("a.npy", np.array([1.0, 2.0]), r"1-D array of integers, got float64 of shape \(2,\)"),
        ("a.npy", np.array([True, False]), "numpy.flatnonzero turns a mask into indices"),
        ("a.npy", np.zeros((2, 2), int), "1-D array of integers, got int64 of shape"),
        ("a.npy", np.zeros(0, int), "at least one index"),
        ("a.npy", np.array([4, -1]), "entry 1: index must be >= 0, got -1"),
        ("a.npy", np.array([2**63], dtype=np.uint64), "below 2"),
        ("a.npy", b"not numpy", "must be a .npy file of integers"),
        ("a.npy", b"", "must be a .npy file of integers"),
        ("missing.txt", None, "must be a readable file of indices"),
    ],
)
def test_bad_index_files_are_one_line(tmp_path: Path, name: str, content: Any, rule: str) -> None:
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=rule) as caught:
        read_indices(path)
    assert len(str(caught.value).splitlines()) == 1


def test_index_out_of_range_and_folder(folder: Path) -> None:
    (folder / "index.txt").write_text("3\n30\n31\n")
    with pytest.raises(InputError, match=r"entry 1 \(from 0\): index must be below 30, .* got 30 \(2 such\)"):
        select_all(config(folder, members={"split": "train", "indices": folder / "index.txt"}))
    with pytest.raises(InputError, match="got a folder"):
        read_indices(folder)


def test_selection_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match="of one length"):
        Selection(np.arange(3), np.array(["a"] * 3), np.zeros(2), np.zeros(3), np.zeros(3))


def test_digests_name_files_within_the_folder(folder: Path) -> None:
    import hashlib

    expected = {f"{s}.bin": hashlib.sha256((folder / f"{s}.bin").read_bytes()).hexdigest() for s in ("train", "test")}
    assert data_digests(config(folder)) == expected
    only_train = config(folder, nonmembers={"split": "train", "range": [0, 1]})
    assert list(data_digests(only_train)) == ["train.bin"]


# --- users' sources --------------------------------------------------------------------------------------------------

SOURCE = '''
import numpy as np

class Squares:
    """Sample i has label i % 7 and an image of i's; reads are counted."""
    reads = []
    def __init__(self, size): self.size = size
    def __len__(self): return self.size
    def __getitem__(self, i):
        Squares.reads.append(i)
        return np.full((8, 9, 3), i, np.uint8), i % 7

class WithLabels(Squares):
    @property
    def targets(self): return np.arange(self.size) % 5

def plain(split, size=40): return Squares(size if split == "train" else 10)
def labelled(split): return WithLabels(20)
def with_path(split, path): return Squares(len(path.read_text()))
def dataset(split, path=None, **wrong):
    import mindspore.dataset as ds
    found = ds.GeneratorDataset(plain(split), ["image", "label"], shuffle=wrong.get("shuffle", True))
    found = found.map(lambda x: (x + 1).astype(np.uint8), ["image"])
    if wrong.get("batch"): found = found.batch(2)
    if wrong.get("rename"): found = found.rename(["label"], ["target"])
    return found
def items(split, what="none"):
    image, label = np.zeros((4, 4, 3), np.uint8), 1
    item = {
        "none": None, "three": (image, label, 0), "float label": (image, 1.5), "negative": (image, -1),
        "text label": (image, "cat"), "flat": (np.zeros(4, np.uint8), 1),
        "int image": (np.zeros((4, 4, 3), np.int64), 1), "uint16": (np.zeros((4, 4, 3), np.uint16), 1),
        "nan": (np.full((4, 4, 3), np.nan), 1), "normalised": (np.full((4, 4, 3), -1.0), 1),
        "dict": {"image": image, "label": np.int64(3)}, "list": [image, np.array([3])],
        "float": (np.full((4, 4, 3), 254.5), 1), "unit": (np.full((4, 4, 3), 0.25), 1),
    }[what]
    return [item] * 3
def leaves(split): raise SystemExit(0)
class Leaving(list):
    def __getitem__(self, i): raise SystemExit("gone")
def leaving(split): return Leaving([0] * 3)
def fails(split):
    class Broken(Squares):
        def __getitem__(self, i): raise KeyError("no such image")
    return Broken(5)
def short(split): raise RuntimeError("not here\\nsecond line")
def iterable(split): return iter([])
value = 3
'''


@pytest.fixture
def user(tmp_path: Path) -> Callable[..., DataConfig]:
    (tmp_path / "mine.py").write_text(SOURCE)

    def make(function: str, path: Path | None = None, **kwargs: Any) -> DataConfig:
        sides = {"members": {"split": "train", "num_samples": 3}, "nonmembers": {"split": "test", "range": [1, 3]}}
        return config(path, source=f"{tmp_path}/mine.py:{function}", kwargs=kwargs, **sides)

    return make


def reads_of(data: DataConfig) -> list[int]:
    """Indices that the source's class has been asked for."""
    return resolve(data.source, "data.source").__globals__["Squares"].reads


def test_random_access_object(user: Callable[..., DataConfig]) -> None:
    data = user("plain", size=30)
    source = open_samples(data)
    selection = select(data, source)
    assert selection.label.tolist() == [0, 1, 2, 1, 2]
    assert reads_of(data) == [0, 1, 2, 1, 2]  # only the chosen ones
    inputs, labels = source.read("train", np.array([7, 3]))
    assert labels.tolist() == [0, 3]
    assert [image[0, 0, 0] for image in inputs.columns[0]] == [7, 3]


def test_labels_of_an_object_are_used_where_it_has_them(user: Callable[..., DataConfig]) -> None:
    assert select_all(user("labelled")).label.tolist() == [0, 1, 2, 1, 2]


def test_path_reaches_the_factory(user: Callable[..., DataConfig], tmp_path: Path) -> None:
    (tmp_path / "length.txt").write_text("x" * 12)
    data = user("with_path", path=tmp_path / "length.txt")
    assert open_samples(data).size("train") == 12
    assert list(data_digests(data)) == ["path"]


@pytest.mark.parametrize(("what", "label"), [("dict", 3), ("list", 3), ("float", 1)])
def test_forms_of_an_item(user: Callable[..., DataConfig], what: str, label: int) -> None:
    data = user("items", what=what)
    source = open_samples(data)
    assert select(data, source).label.tolist() == [label] * 5
    ((image,),) = source.read("train", np.array([1]))[0].columns
    assert image.dtype == (np.float32 if what == "float" else np.uint8)


@pytest.mark.parametrize(
    ("function", "kwargs", "rule"),
    [
        ("nowhere", {}, "has no function 'nowhere'; it has plain, labelled"),
        ("value", {}, "must be callable, got int"),
        ("short", {}, "raised RuntimeError: not here$"),
        ("plain", {"sise": 3}, "raised TypeError: .*unexpected keyword argument 'sise'"),
        ("iterable", {}, "must return a map-style MindSpore dataset or an object with __len__ and __getitem__"),
        ("fails", {}, "reading sample 0 raised KeyError: 'no such image'"),
        ("items", {"what": "none"}, r"\[0\]: must be \(input, label\), .* got NoneType"),
        ("items", {"what": "three"}, r"must be \(input, label\), .* got 3 values"),
        ("items", {"what": "float label"}, "train sample 0: label must be an integer >= 0, got float 1.5"),
        ("items", {"what": "negative"}, "label must be an integer >= 0, got int -1"),
        ("items", {"what": "text label"}, "label must be an integer >= 0, got str 'cat'"),
        ("items", {"what": "flat"}, r"image must be \(height, width, channels\) .* got uint8 of shape \(4,\)"),
        ("items", {"what": "int image"}, "image must be uint8 or float; data.preprocess: none .* got int64"),
        ("items", {"what": "uint16"}, "image must be uint8 or float; data.preprocess: none .* got uint16"),
        ("items", {"what": "nan"}, "float pixels must be 0 to 255, got nan"),
        ("items", {"what": "unit"}, "float pixels must be 0 to 255, not 0 to 1, got 0.25 to 0.25"),
        ("leaves", {}, "leaves called with .* raised SystemExit: 0"),
        ("leaving", {}, "reading sample 0 raised SystemExit: gone"),
        ("items", {"what": "normalised"}, "float pixels must be 0 to 255, got -1.0"),
    ],
)
def test_bad_sources_are_one_line(
    user: Callable[..., DataConfig], function: str, kwargs: dict[str, Any], rule: str
) -> None:
    data = user(function, **kwargs)

    def read() -> None:
        source = open_samples(data)
        select(data, source)
        source.read("train", np.arange(3))

    with pytest.raises(InputError, match=rule) as caught:
        read()
    assert len(str(caught.value).splitlines()) == 1


def test_mindspore_dataset_is_read_by_index(user: Callable[..., DataConfig]) -> None:
    data = user("dataset")
    source = open_samples(data)
    assert source.size("train") == 40
    assert select(data, source).label.tolist() == [0, 1, 2, 1, 2]
    inputs, labels = source.read("train", np.array([33, 4, 33, 0]))
    assert labels.tolist() == [5, 4, 5, 0]
    assert [int(image[0, 0, 0]) for image in inputs.columns[0]] == [34, 5, 34, 1]  # the map ran
    assert sorted(set(reads_of(data))) == [0, 1, 2, 4, 33]


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"batch": True}, r"no batch, shuffle, repeat, .*\), got BatchDataset"),
        ({"rename": True}, "must have columns image and label, got .*target"),
    ],
)
def test_bad_mindspore_datasets(user: Callable[..., DataConfig], wrong: dict[str, Any], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        select_all(user("dataset", **wrong))


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("no_such_package.data:make", "must be importable, got ModuleNotFoundError: No module named 'no_such_package'"),
        ("{folder}/none.py:make", "must be importable, got FileNotFoundError"),
        ("{folder}/broken.py:make", "must be importable, got SyntaxError"),
    ],
)
def test_sources_that_cannot_be_imported(tmp_path: Path, source: str, rule: str) -> None:
    (tmp_path / "broken.py").write_text("def make(:\n")
    data = config(None, source=source.format(folder=tmp_path))
    with pytest.raises(InputError, match=rule) as caught:
        select_all(data)
    assert len(str(caught.value).splitlines()) == 1
