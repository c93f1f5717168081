"""What a later stage would refuse is refused before the first one, all of it at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rundirs import one_entry

from mia_batch.commands.run import check_memory
from mia_batch.errors import InputError
from mia_batch.settings.loading import load_config
from mia_batch.stages.plan import looked_at, make_plan

Write = Callable[..., Path]
ENTRY = one_entry(b"w")  # the smallest whole checkpoint


@pytest.fixture
def write(tmp_path: Path, write_config: Write) -> Write:
    whole = tmp_path / "whole.ckpt"
    whole.write_bytes(ENTRY)
    return lambda changes, checkpoint=whole: write_config(changes, checkpoint=checkpoint)


def problems(path: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        make_plan(load_config(path))
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"attack.eval_fraction": 0.001}, "attack.eval_fraction: must leave members and non-members on both sides"),
        ({"data.members": {"split": "train", "num_samples": 1}}, "attack.eval_fraction: must leave members"),
        ({"attack.cv": 60}, "attack.cv: must be at most 56, the rows of the rarer class that fit, got 60"),
        ({"attack.methods": [{"method": "knn", "params": {"n_neighbors": [3, 65]}}]},
         "attack.methods: knn: params.n_neighbors must be at most 64, the rows of a fold, got 65"),
    ],
)
def test_what_the_attack_stage_would_refuse(write: Write, changes: dict[str, Any], rule: str) -> None:
    path = write(changes)
    (line,) = problems(path)
    assert line.startswith(f"{path}: {rule}")


def test_all_problems_at_once(tmp_path: Path, write: Write) -> None:
    bad = tmp_path / "bad.ckpt"
    bad.write_text("no checkpoint")
    members, nonmembers = {"split": "train", "num_samples": 91}, {"split": "valid"}
    path = write({"data.members": members, "data.nonmembers": nonmembers}, checkpoint=bad)
    lines = problems(path)
    assert [line.startswith(start) for line, start in zip(lines, (
        f"{bad}: model.checkpoint: must be a complete",
        f"{path}: data.members: must stay within split 'train' of 90 samples",
        f"{path}: data.nonmembers: split must be one of train, test, got 'valid'",
    ), strict=True)] == [True] * 3


def test_images_of_a_wrong_shape(tmp_path: Path, write: Write) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef make(split): return [(np.zeros((3, 32, 32), np.uint8), 0)] * 60\n"
    )
    (line,) = problems(write({"data.source": "mine.py:make", "data.path": None}))
    rule = "data.mean, data.std: must have one value for each of the image's 32 channels, its last axis"
    assert line.endswith(f"{rule}, got 3 (CIFAR's, since none are stated) for train sample 0")


LABELS = """
import numpy as np

class Images:
    def __init__(self, split, wrong):
        self.wrong = {wrong!r} if split == {split!r} else ""
        if {known!r}:
            setattr(self, {known!r}, np.arange(90) % 10)
        self.reads = 0

    def __len__(self): return 90

    def __getitem__(self, i):
        self.reads += 1
        label = {{"transform": i % 10 + 20, "some": i % 10 + (i % 4 == 3), "time": self.reads}}.get(self.wrong, i % 10)
        return np.zeros((32, 32, 3), np.uint8), label

def make(split): return Images(split, {wrong!r})
"""


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("known", "wrong"),
    [("targets", "transform"), ("labels", "transform"), ("labels", "some"), ("labels", "time"), ("", "time")],
)
def test_labels_that_are_not_those_of_the_samples(
    tmp_path: Path, write: Write, split: str, known: str, wrong: str
) -> None:
    path = write({"data.source": "mine.py:make", "data.path": None})
    (tmp_path / "mine.py").write_text(LABELS.format(known=known, wrong=wrong, split=split))
    (line,) = problems(path)
    rule = "the label read with the input must equal the one in labels or targets, or read alone, got"
    assert re.fullmatch(rf"{path}: data.source: {split} sample \d+: {rule} \d+ and \d+", line)


@pytest.mark.parametrize("known", ["targets", "labels", ""])
def test_labels_that_are(tmp_path: Path, write: Write, known: str) -> None:
    path = write({"data.source": "mine.py:make", "data.path": None})
    (tmp_path / "mine.py").write_text(LABELS.format(known=known, wrong="", split="train"))
    assert make_plan(load_config(path)).selection.label.tolist() == 2 * [i % 10 for i in range(90)]


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({}, "data.image_size, data.mean and data.std are not stated"),
        ({"data.image_size": [32, 32], "data.std": [0.2, 0.2, 0.2]}, "data.mean is not stated"),
        ({"data.image_size": [32, 32], "data.std": [0.2, 0.2, 0.2], "data.mean": [0.5, 0.5, 0.5]}, None),
    ],
)
def test_a_loud_line_where_an_own_source_is_preprocessed_as_cifar(
    tmp_path: Path, write: Write, caplog: pytest.LogCaptureFixture, stated: dict[str, Any], said: str | None
) -> None:
    (tmp_path / "mine.py").write_text(LABELS.format(known="labels", wrong="", split="train"))
    make_plan(load_config(write({"data.source": "mine.py:make", "data.path": None, **stated})))
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ([said] if said else [])
    caplog.clear()
    make_plan(load_config(write(stated)))  # CIFAR's records
    assert caplog.records == []


@pytest.mark.parametrize("n", [1, 2, 5, 90])
def test_rows_of_every_split_are_looked_at(n: int) -> None:
    split = np.array(["b"] * 30 + ["a"] + ["c"] * 4)
    found = looked_at(split, n)
    assert [(rows[0], len(set(rows))) for rows in found] == [(30, 1), (0, min(n, 30)), (31, min(n, 4))]
    assert [set(split[rows]) for rows in found] == [{"a"}, {"b"}, {"c"}]
    for rows, again in zip(found, looked_at(split, n), strict=True):
        np.testing.assert_array_equal(rows, again)


@pytest.mark.parametrize(("batch_size", "ranks"), [(10**9, 1), (16, 10**6)])
def test_what_does_not_fit_into_memory(write: Write, batch_size: int, ranks: int) -> None:
    config = load_config(write({"extract.batch_size": batch_size}))
    with pytest.raises(InputError, match=f"{ranks} rank.s. with batches of {batch_size} images of 32x32 must fit"):
        check_memory(config, ranks)
    check_memory(load_config(write({})), 2)
