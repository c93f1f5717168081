"""MindSpore datasets read by index are what they give themselves, position by position, or they are refused."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mindspore")

from mindspore import dataset as ds
from mindspore.mindrecord import FileWriter
from PIL import Image

from mia_batch.errors import InputError
from mia_batch.network.datasets import open_dataset

N = 12
IMAGES = np.random.default_rng(3).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(N)
Make = Callable[..., Any]


class Rows:
    """Image and label of each number from 0."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.int64]:
        return IMAGES[i], LABELS[i]


def chain(*samplers: Any) -> Any:
    """Each of them samples what the next one gives."""
    for parent, child in pairwise(samplers):
        parent.add_child(child)
    return samplers[0]


def generator(**options: Any) -> Any:
    return ds.GeneratorDataset(Rows(), ["image", "label"], **options)


def slices(**options: Any) -> Any:
    return ds.NumpySlicesDataset({"image": IMAGES, "label": LABELS}, **options)


def as_images(dataset: Any) -> Any:
    """Every node that may stand above a source."""
    mapped = dataset.map(lambda image: image.astype(np.uint8), ["image"])
    return mapped.rename(["target"], ["label"]).project(["label", "image"])


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Make]:
    """How to make datasets of several kinds, N samples each, from files where they are of files."""
    folder = tmp_path_factory.mktemp("kinds")
    for name in "ab":
        (folder / "images" / name).mkdir(parents=True)
    for i, image in enumerate(IMAGES):
        Image.fromarray(image).save(folder / "images" / "ab"[i % 2] / f"{i:02}.png")
    grey = np.random.default_rng(4).integers(0, 256, (N, 28, 28), dtype=np.uint8)
    (folder / "train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, N, 28, 28) + grey.tobytes())
    (folder / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, N) + bytes(range(10)) + bytes(2))
    writer = FileWriter(str(folder / "record"), 1)
    writer.add_schema({"image": {"type": "int32", "shape": [8, 8, 3]}, "target": {"type": "int64"}}, "samples")
    writer.write_raw_data([{"image": IMAGES[i].astype(np.int32), "target": i} for i in range(N)])
    writer.commit()
    return {
        "generator": generator,
        "numpy": slices,
        "folder": lambda **k: ds.ImageFolderDataset(str(folder / "images"), decode=True, **k),
        "mnist": lambda **k: ds.MnistDataset(str(folder), "train", **k).map(lambda x: x.repeat(3, axis=2), ["image"]),
        "record": lambda **k: as_images(ds.MindDataset(str(folder / "record"), **k)),
    }


KINDS = ("generator", "numpy", "folder", "mnist", "record")


def by_index(dataset: Any) -> list[tuple[np.ndarray, int]]:
    """All samples, one by one from the last to the first, and once more all together."""
    rows = open_dataset(dataset, "f")
    alone = [next(iter(rows.read(np.array([i]), True))) for i in reversed(range(rows.size))][::-1]
    assert_same(alone, list(rows.read(np.arange(rows.size), True)))
    return alone


def iterated(dataset: Any) -> Iterator[tuple[np.ndarray, int]]:
    """What the dataset gives to its user."""
    for row in dataset.create_dict_iterator(num_epochs=1, output_numpy=True):
        yield row["image"], row["label"]


def assert_same(found: list[tuple[np.ndarray, int]], expected: list[tuple[np.ndarray, int]]) -> None:
    assert len(found) == len(expected)
    for (image, label), (other, wanted) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(image, other)
        assert label == wanted


FIXED: dict[str, Callable[[], dict[str, Any]]] = {
    "in order": lambda: {"shuffle": False},
    "the first": lambda: {"shuffle": False, "num_samples": 5},
    "more than there are": lambda: {"shuffle": False, "num_samples": 50},
    "subset": lambda: {"sampler": ds.SubsetSampler([7, 2, 11, 0])},
    "some of a subset": lambda: {"sampler": ds.SubsetSampler(np.array([7, 2, 11, 0]), num_samples=3)},
    "from the third": lambda: {"sampler": ds.SequentialSampler(2)},
    "part": lambda: {"sampler": ds.SequentialSampler(3, 4)},
    "none is all": lambda: {"sampler": ds.SequentialSampler(3, 0)},
    "over the end": lambda: {"sampler": ds.SequentialSampler(10, 5)},
    "part of a subset": lambda: {"sampler": chain(ds.SequentialSampler(1, 2), ds.SubsetSampler([9, 7, 5, 3]))},
    "subset of a part": lambda: {"sampler": chain(ds.SubsetSampler([2, 0]), ds.SequentialSampler(4, 5))},
    "three": lambda: {
        "sampler": chain(ds.SubsetSampler([1, 0]), ds.SequentialSampler(1), ds.SubsetSampler([9, 7, 5, 3]))
    },
}


@pytest.mark.parametrize("how", FIXED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fixed_order_is_honoured(kinds: dict[str, Make], kind: str, how: str) -> None:
    dataset = kinds[kind](**FIXED[how]())
    expected = list(iterated(dataset))
    assert_same(by_index(dataset), expected)
    assert_same(list(iterated(dataset)), expected)  # the user's dataset is as it was


@pytest.mark.parametrize("indices", [[7, 2, 11, 0], (7, 2, 11, 0), np.array([7, 2, 11, 0])])
def test_a_list_is_a_subset(indices: Any) -> None:
    assert [label for _, label in by_index(generator(sampler=indices))] == [7, 2, 11, 0]


def test_workers_change_nothing() -> None:
    dataset = generator(num_parallel_workers=2, sampler=chain(ds.SequentialSampler(1), ds.SubsetSampler([9, 7, 5])))
    assert_same(by_index(dataset), list(iterated(dataset)))


@pytest.mark.parametrize("seed", range(20))
def test_chains_of_any_make(seed: int) -> None:
    rng = np.random.default_rng(seed)
    samplers, size = [], N
    for _ in range(rng.integers(1, 5)):  # from the source upwards
        if rng.random() < 0.5:
            first = int(rng.integers(0, size))
            samplers.append(ds.SequentialSampler(first, int(rng.integers(1, N))))
            size = min(size - first, samplers[-1].num_samples)
        else:
            samplers.append(ds.SubsetSampler(rng.permutation(size).tolist(), int(rng.integers(1, N))))
            size = len(samplers[-1].indices)
    dataset = slices(sampler=chain(*reversed(samplers)))
    assert_same(by_index(dataset), list(iterated(dataset)))


@pytest.mark.parametrize("options", [{}, {"shuffle": True}, {"sampler": "random"}])
@pytest.mark.parametrize("kind", KINDS)
def test_all_samples_in_random_order_are_numbered_as_in_the_source(
    kinds: dict[str, Make], kind: str, options: dict[str, Any]
) -> None:
    given = {"sampler": ds.RandomSampler()} if "sampler" in options else options
    assert_same(by_index(kinds[kind](**given)), list(iterated(kinds[kind](shuffle=False))))


def test_parts_of_a_split_are_read_as_they_are() -> None:
    for part in slices(shuffle=False).split([7, 5], randomize=False):
        assert_same(by_index(part), list(iterated(part)))


def test_a_sampler_set_later_counts_whatever_size_was_known() -> None:
    source = generator(shuffle=False)
    dataset = source.map(lambda image: (image // 2).astype(np.uint8), ["image"])
    assert dataset.get_dataset_size() == N
    source.use_sampler(ds.SubsetSampler([4, 1]))
    assert_same(by_index(dataset), [(IMAGES[4] // 2, 4), (IMAGES[1] // 2, 1)])
    source.add_sampler(ds.SequentialSampler(1))
    assert_same(by_index(dataset), [(IMAGES[1] // 2, 1)])


class Backwards(ds.Sampler):
    """A sampler of the user's own, which may give what it likes."""

    def __iter__(self) -> Iterator[int]:
        yield from range(self.dataset_size - 1, -1, -1)


class Renamed(ds.SequentialSampler):
    """Not MindSpore's, though it is called so."""


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "random part": (lambda: slices(num_samples=5), "RandomSampler"),
    "with replacement": (lambda: slices(sampler=ds.RandomSampler(replacement=True)), "RandomSampler"),
    "random under": (
        lambda: slices(sampler=chain(ds.SequentialSampler(0, 5), ds.RandomSampler())), "RandomSampler"
    ),
    "random over": (
        lambda: slices(sampler=chain(ds.RandomSampler(), ds.SequentialSampler(0, 5))), "RandomSampler"
    ),
    "weighted": (lambda: slices(sampler=ds.WeightedRandomSampler([1.0] * N, 4)), "WeightedRandomSampler"),
    "random subset": (lambda: slices(sampler=ds.SubsetRandomSampler([1, 2])), "SubsetRandomSampler"),
    "shard": (lambda: slices(num_shards=2, shard_id=1), "DistributedSampler"),
    "shard in order": (lambda: slices(num_shards=2, shard_id=1, shuffle=False), "DistributedSampler"),
    "shard of a part": (  # MindSpore says of this one that it is not sharded
        lambda: slices(sampler=chain(ds.DistributedSampler(2, 0), ds.SequentialSampler())), "DistributedSampler"
    ),
    "random split": (lambda: slices(shuffle=False).split([7, 5])[0], "RandomSampler"),
    "iterable": (lambda: slices(sampler=iter([1, 2])), "IterSampler"),
    "of the user": (lambda: slices(sampler=Backwards()), "Backwards"),
    "of the user, named so": (lambda: slices(sampler=Renamed()), "Renamed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_fixed_order_is_refused(case: str) -> None:
    make, name = REFUSED[case]
    rule = r"f: sampler must have a fixed order: SequentialSampler \(shuffle=False\), SubsetSampler or a list .*"
    with pytest.raises(InputError, match=f"^{rule}, got {name}$"):
        open_dataset(make(), "f")


def test_a_sampler_by_class_is_refused(kinds: dict[str, Make]) -> None:
    with pytest.raises(InputError, match="got PKSampler"):
        open_dataset(kinds["folder"](sampler=ds.PKSampler(2)), "f")


@pytest.mark.parametrize(
    ("sampler", "rule"),
    [
        (lambda: [], "at least one sample, and each once, got none"),
        (lambda: ds.SequentialSampler(N), "at least one sample, and each once, got none"),
        (lambda: [3, 5, 3], "at least .* each once, got sample 3 2 times"),
        (lambda: chain(ds.SubsetSampler([0, 1, 2]), ds.SubsetSampler([8, 4, 8])), "at least .*, got sample 8 2 times"),
        (lambda: [1, N], "indices from 0 to 11, got 12"),
        (lambda: [1, -1], "indices from 0 to 11, got -1"),
        (lambda: chain(ds.SubsetSampler([5]), ds.SequentialSampler(4, 5)), "indices from 0 to 4, got 5"),
    ],
)
def test_samplers_that_mindspore_fails_on_are_one_line(sampler: Callable[[], Any], rule: str) -> None:
    with pytest.raises(InputError, match=f"^f: sampler must (have|give) {rule}$") as caught:
        open_dataset(slices(sampler=sampler()), "f")
    assert len(caught.value.problems) == 1


OTHER_NODES: dict[str, Callable[[Any], Any]] = {
    "TakeDataset": lambda dataset: dataset.take(5), "SkipDataset": lambda dataset: dataset.skip(5),
    "ConcatDataset": lambda dataset: dataset + slices(shuffle=False),
    "RepeatDataset": lambda dataset: dataset.repeat(2), "ShuffleDataset": lambda dataset: dataset.shuffle(4),
    "BatchDataset": lambda dataset: dataset.batch(2),
    "FilterDataset": lambda dataset: dataset.filter(lambda label: label > 2, ["label"]),
    "ZipDataset": lambda dataset: ds.zip((dataset.project(["image"]), slices(shuffle=False).project(["label"]))),
}  # fmt: skip


@pytest.mark.parametrize("node", OTHER_NODES)
@pytest.mark.parametrize("above", [False, True])
def test_nodes_that_change_order_or_number_are_refused(node: str, above: bool) -> None:
    dataset = OTHER_NODES[node](slices(shuffle=False))
    if above:
        dataset = dataset.map(lambda image: image, ["image"])
    with pytest.raises(InputError, match=f"f: must be a source with map, rename or project only .*, got {node}"):
        open_dataset(dataset, "f")


def test_a_batch_sampler_is_refused() -> None:
    dataset = generator(batch_sampler=ds.SequentialSampler(), collate_fn=lambda *columns: columns)
    with pytest.raises(InputError, match="one sample at a time, got a batch_sampler"):
        open_dataset(dataset, "f")


def test_a_source_that_cannot_be_opened_is_one_line() -> None:
    class NoLength:
        def __getitem__(self, i: int) -> tuple[np.ndarray, np.int64]:
            return Rows()[i]

    with pytest.raises(InputError, match=r"f: must be a dataset that can be opened, got RuntimeError: .*__len__"):
        open_dataset(ds.GeneratorDataset(NoLength(), ["image", "label"]), "f")
