"""Declared groups, from files and from a user's source, and inputs that a file of records has twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import write_records

from mia_batch.commands.check import data_lines
from mia_batch.errors import InputError
from mia_batch.inputs import NO_GROUP, content
from mia_batch.rundir.identity import data_digest, features_digest, verdict_identity
from mia_batch.settings.loading import load_config
from mia_batch.stages.plan import look_at, make_manifest

Write = Callable[..., Path]
EITHER = "must be the name of a column or attribute, or a file for each split: {train: FILE}"
SOURCE = """
import numpy as np

class Persons:
    def __init__(self, n):
        self.person = ["ann", "bob", "cyd"] * (n // 3)
        self.short = [1]
        self.labels = np.arange(n) % 10

    def __len__(self):
        return len(self.person)

    def __getitem__(self, i):
        image = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        return {"image": image, "label": i % 10, "camera": i // 10 - 1, "weight": 0.5}

def make(split, n=30):
    return Persons(n)

def dataset(split):
    import mindspore.dataset as ds
    columns = {"image": np.zeros((30, 8, 8, 3), np.uint8), "label": np.arange(30) % 10}
    names = {"person": ["ann", "bob", "cyd"] * 10, "camera": np.arange(30) // 10 - 1, "weight": np.ones(30) / 2}
    return ds.NumpySlicesDataset(columns | names, shuffle=True)
"""


def group_of(path: Path) -> np.ndarray:
    return look_at(load_config(path).data)[0].group


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        group_of(path)
    (line,) = caught.value.problems
    return line


@pytest.fixture
def source_config(tmp_path: Path, write_config: Write) -> Write:
    (tmp_path / "persons.py").write_text(SOURCE)
    return lambda group, function="make": write_config(
        {"data.path": None, "data.source": f"persons.py:{function}", "data.group": group}
    )


def files(tmp_path: Path, train: Any, test: Any) -> dict[str, str]:
    """Files of groups: arrays as .npy, text as it is."""
    found = {}
    for split, names in (("train", train), ("test", test)):
        path = tmp_path / f"{split}_groups.{'txt' if isinstance(names, str) else 'npy'}"
        path.write_text(names) if isinstance(names, str) else np.save(path, names)
        found[split] = str(path)
    return found


def test_without_a_group_there_is_none(write_config: Write) -> None:
    assert set(group_of(write_config()).tolist()) == {NO_GROUP}


def test_a_name_in_two_files_is_one_group(tmp_path: Path, write_config: Write) -> None:
    named = files(tmp_path, np.arange(90) // 2 + 7, "\n".join(["9", "-1", *(f"p{i}" for i in range(68))]))
    group = group_of(write_config({"data.group": named}))
    assert group[:90].tolist() == (np.arange(90) // 2).tolist()
    assert group[90] == group[4] == 2
    assert group[91] == NO_GROUP
    assert group[92:].tolist() == list(range(45, 113))


def test_the_rows_of_a_part_of_a_split_get_their_own(tmp_path: Path, write_config: Write) -> None:
    named = files(tmp_path, np.arange(90) // 10, np.arange(70) + 3)
    members, others = {"split": "train", "range": [45, 60]}, {"split": "test", "range": [1, 4]}
    path = write_config({"data.group": named, "data.members": members, "data.nonmembers": others})
    assert group_of(path).tolist() == [0] * 5 + [1] * 10 + [0, 1, 2]


@pytest.mark.parametrize(
    ("names", "rule"),
    [
        (np.arange(89), "must hold one group for each of the 90 samples of split 'train', got 89"),
        (np.arange(90.0), "must be a 1-D array of integers or text, got float64 of shape (90,)"),
        (np.arange(90)[:, None], "must be a 1-D array of integers or text, got int64 of shape (90, 1)"),
        (np.arange(90) > 3, "must be a 1-D array of integers or text, got bool of shape (90,)"),
        ("a\n\nb\n", "line 2: must be one integer or word, got ''"),
        ("a\nb c\n", "line 2: must be one integer or word, got 'b c'"),
        ("a\n" * 91, "must hold one group for each of the 90 samples of split 'train', got 91"),
    ],
)
def test_a_file_that_is_not_one_name_per_sample(tmp_path: Path, write_config: Write, names: Any, rule: str) -> None:
    named = files(tmp_path, names, np.arange(70))
    assert refused(write_config({"data.group": named})) == f"{named['train']}: {rule}"


@pytest.mark.parametrize(
    ("group", "rule"),
    [
        ("person", "data: group must be a file for each split, {train: FILE}: source cifar100 has none"),
        ({"train": "c.yaml"}, "data: group must have a file for each split, test missing"),
        ("groups.npy", f"data.group: {EITHER}"),
        (["a"], f"data.group: {EITHER}"),
        ({"train": "none.npy", "test": "c.yaml"}, "data.group.train: must be a file that can be read, got "),
    ],
)
def test_a_key_that_cannot_be(write_config: Write, group: Any, rule: str) -> None:
    path = write_config({"data.group": group})
    assert refused(path).startswith(f"{path}: {rule}")


@pytest.mark.parametrize("function", ["make", "dataset"])
def test_a_source_gives_its_attribute_or_its_column(source_config: Write, function: str) -> None:
    assert group_of(source_config("person", function)).tolist() == [0, 1, 2] * 20
    by_camera = group_of(source_config("camera", function)).tolist()
    assert by_camera == ([NO_GROUP] * 10 + [0] * 10 + [1] * 10) * 2


@pytest.mark.parametrize(
    ("function", "group", "rule"),
    [
        ("make", "short", "short must have one entry per sample, 30"),
        ("make", "face", "must be an attribute of the source or a key of "),
        ("make", "weight", "train sample 0: group must be an integer or a word, got float 0.5"),
        ("dataset", "face", "must be a column of "),
        ("dataset", "weight", "train sample 0: group must be an integer or a word, got ndarray array(0.5)"),
    ],
)
def test_a_source_without_such_groups_is_one_line(source_config: Write, function: str, group: str, rule: str) -> None:
    assert rule in refused(source_config(group, function))


def test_groups_are_of_the_features_and_the_limit_is_of_the_verdict(tmp_path: Path, write_config: Write) -> None:
    named = files(tmp_path, np.arange(90), np.arange(70))

    def manifest(**changes: Any) -> Any:
        path = write_config({name.replace("_", ".", 1): value for name, value in changes.items()})
        return make_manifest(load_config(path))

    plain, limited, grouped = manifest(), manifest(data_max_duplicates=0.2), manifest(data_group=named)
    assert features_digest(plain) == features_digest(limited)
    assert data_digest(plain) == data_digest(limited)
    assert verdict_identity(plain) != verdict_identity(limited)
    assert features_digest(plain) != features_digest(grouped)
    moved = {split: str(Path(file).rename(tmp_path / f"moved_{split}.npy")) for split, file in named.items()}
    assert features_digest(manifest(data_group=moved)) == features_digest(grouped)
    np.save(moved["train"], np.arange(90) // 2)
    assert features_digest(manifest(data_group=moved)) != features_digest(grouped)


def test_a_records_twins_are_found_before_anything_runs(records: Path, write_config: Write) -> None:
    """Of 90 and 70 records: also one with another label, not one within a side."""
    train = np.fromfile(records / "train.bin", np.uint8).reshape(-1, 3074)
    test = np.fromfile(records / "test.bin", np.uint8).reshape(-1, 3074)
    test[7, 2:], test[30, 2:] = train[4, 2:], train[50, 2:]
    test[7, 1] = (train[4, 1] + 1) % 10
    test[60] = test[61]
    test.tofile(records / "test.bin")
    config = load_config(write_config({"data.max_duplicates": 0.03}))
    assert data_lines(config.data, look_at(config.data)[0]) == [
        "data:    2 members and 2 non-members have an input that is on both sides, and are left out.",
        "         train sample 4, train sample 50; test sample 7, test sample 30",
    ]
    test[8, 2:] = train[5, 2:]
    test.tofile(records / "test.bin")
    *_, warning = data_lines(config.data, look_at(config.data)[0])
    assert warning.startswith(f"{'':<9}WARNING: this audit will not be evaluable: 3 of 70 non-members (4.3%) have ")


def test_check_counts_declared_groups(tmp_path: Path, write_config: Write) -> None:
    named = files(tmp_path, np.arange(90) // 3, np.r_[np.arange(20, 50), np.full(40, -1)])
    config = load_config(write_config({"data.group": named}))
    none, counted = data_lines(config.data, look_at(config.data)[0])
    assert none == "data:    no input is on both sides"
    assert counted == "         50 declared groups, 10 of them on both sides"


def test_an_image_has_one_hash_whatever_source_gives_it(tmp_path: Path) -> None:
    """Channel-last from a user's source, a view of channel-major bytes from a record."""
    record = np.fromfile(write_records(tmp_path / "train.bin", 1, seed=3), np.uint8)[2:]
    image = record.reshape(3, 32, 32).transpose(1, 2, 0)
    assert (content([image]) == content([np.ascontiguousarray(image)])).all()
