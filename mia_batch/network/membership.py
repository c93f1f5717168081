"""A trained MindSpore `Model` and data sets of one's own -> logits, labels and hashes of the inputs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore.dataset import config
from mindspore.dataset.engine.datasets import Dataset, RepeatDataset
from mindspore.train import Model
from numpy.typing import NDArray

from mia_batch import signals
from mia_batch.errors import InputError, one_line
from mia_batch.inputs import content
from mia_batch.network.forward import Predictor

BATCH = 64  # of a data set that gives single samples
COLUMNS = ("image", "label")
UNSET_SEED = 5489  # of mindspore.dataset.config, which takes it for "draw anew"
SEED = 1
# Names of MindSpore's operations that make another input of a sample each time.
RANDOM = ("Rand", "AutoAugment", "TrivialAugment", "UniformAugment", "MixUp", "CutMix", "CutOut")

Batch = tuple[NDArray[Any], NDArray[np.integer]]


@dataclass(frozen=True)
class Answers:
    """What a model says of the samples of a data set, in the order of one iteration."""

    logits: NDArray[np.float32]  # (n_samples, n_classes)
    label: NDArray[np.int32]  # (n_samples,)
    content: NDArray[np.uint8]  # (n_samples, n_bytes) hash of the input as the network gets it


def check_model(model: Any) -> Model:
    """The model.

    Raises:
        TypeError: it is none of MindSpore's.
    """
    if not isinstance(model, Model):
        raise TypeError(f"model: must be a mindspore.train.Model, got {type(model).__name__}")
    return model


def check_dataset(dataset: Any, field: str) -> None:
    """Refuse what is no data set with an image and a label.

    Raises:
        TypeError: it is none of MindSpore's.
        InputError: it lacks a column, or cannot be opened.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(f"{field}: must be a mindspore.dataset.Dataset, got {type(dataset).__name__}")
    try:
        names = dataset.get_col_names()
    except Exception as error:  # MindSpore's kinds are many
        raise InputError(f"{field}: must be a data set that can be opened, got {one_line(error)}") from error
    if not set(COLUMNS) <= set(names):
        raise InputError(f"{field}: must have columns image and label (see rename), got {', '.join(names)}")
    if any(isinstance(node, RepeatDataset) and node.count in (None, -1) for node in _nodes(dataset)):
        raise InputError(f"{field}: must end, got repeat without a number")


def random_operations(dataset: Any) -> list[str]:
    """Names of the operations of a data set that give another input each time, each once."""
    names = [type(node).__name__ for node in _nodes(dataset)]
    return list(dict.fromkeys(name for name in names if name.startswith(RANDOM)))


def _nodes(dataset: Any) -> Iterator[Any]:
    """A data set, all that it is made of, and the operations on the way."""
    waiting = [dataset]
    while waiting:
        node = waiting.pop()
        yield node
        more = [getattr(node, name, None) or () for name in ("children", "operations", "transforms")]
        waiting += [each for kind in more if isinstance(kind, list | tuple) for each in kind]


def read_answers(model: Model, dataset: Any, field: str) -> Answers:
    """Run the model over one iteration of a data set that `check_dataset` has passed.

    Floats are given to the network as float32, and so are bytes; other integers, such as numbers of words, as they are.

    Args:
        model: its network for prediction gives logits.
        dataset: with columns image and label, in batches or sample by sample.
        field: what to call it in messages.

    Raises:
        InputError: the data set gives no samples, or others than these; the network does not take them, or gives no
            logits; a label is no class.
    """
    predictor: Predictor | None = None
    found: list[tuple[NDArray[Any], ...]] = []
    for images, labels in _batches(dataset, field):
        if predictor is None:
            predictor = Predictor(model.predict_network, len(images))
            _hold(predictor, images, field)
        for start in range(0, len(images), predictor.batch_size):
            part = images[start : start + predictor.batch_size]
            found.append((_logits(predictor, part), labels[start : start + predictor.batch_size], content(part)))
    if not found:
        raise InputError(f"{field}: must give samples, got none")
    logits, label, hashes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    try:
        signals.loss(logits, label)
    except ValueError as error:
        raise InputError(f"{field}: {error}") from error
    return Answers(logits, label.astype(np.int32), hashes)


def _hold(predictor: Predictor, images: NDArray[Any], field: str) -> None:
    """Refuse a model whose answers depend on the batch; what is no number is refused with all samples."""
    logits = _logits(predictor, images)
    if np.isfinite(logits).all():
        rows = np.arange(len(images))
        predictor.hold_to_one_answer(images, rows, logits, lambda i: f"sample {i} of {field}")


def _logits(predictor: Predictor, images: NDArray[Any]) -> NDArray[np.float32]:
    try:
        return predictor.logits(images)
    except InputError as error:
        raise InputError(map(_without_keys, error.problems)) from error
    except (ValueError, TypeError, RuntimeError) as error:  # in PYNATIVE mode they come when the output is read
        raise InputError(f"model: must take images of shape {images.shape}, got {one_line(error)}") from error


def _batches(dataset: Any, field: str) -> Iterator[Batch]:
    """Checked batches; of a data set that gives single samples, batches of those."""
    single: list[Batch] = []
    for row in _rows(dataset, field):
        image, label = np.asarray(row["image"]), np.asarray(row["label"])
        if label.ndim:
            yield _batch(image, label, field)
            continue
        single.append((image, label))
        if len(single) == BATCH:
            yield _stacked(single, field)
            single = []
    if single:
        yield _stacked(single, field)


def _rows(dataset: Any, field: str) -> Iterator[dict[str, NDArray[Any]]]:
    try:
        with _one_draw():
            yield from dataset.create_dict_iterator(num_epochs=1, output_numpy=True)
    except Exception as error:  # MindSpore's kinds are many, and those of the user's own code
        raise InputError(f"{field}: must be a data set that can be read, got {one_line(error)}") from error


@contextmanager
def _one_draw() -> Iterator[None]:
    """Have each iteration draw the same, where the user has set no seed.

    Each part of MindSpore's `split` draws anew when it is iterated, so that the parts would have samples in common.
    """
    seed, state, numpy_state = config.get_seed(), random.getstate(), np.random.get_state()  # noqa: NPY002
    if seed == UNSET_SEED:
        config.set_seed(SEED)  # which seeds the other two as well
    try:
        yield
    finally:
        if seed == UNSET_SEED:
            config.set_seed(seed)
            random.setstate(state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def _stacked(single: list[Batch], field: str) -> Batch:
    shapes = {image.shape for image, _ in single}
    if len(shapes) > 1:
        raise InputError(f"{field}: image must have one shape, got {' and '.join(map(str, sorted(shapes)[:2]))}")
    images, labels = zip(*single, strict=True)
    return _batch(np.stack(images), np.stack(labels), field)


def _batch(images: NDArray[Any], labels: NDArray[Any], field: str) -> Batch:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{field}: label must be an integer for each sample, got {labels.dtype} {labels.shape}")
    if not images.ndim or len(images) != len(labels):
        rule = "image and label must have a row for each sample"
        raise InputError(f"{field}: {rule}, got shapes {images.shape} and {labels.shape}")
    if images.dtype.kind not in "biuf" or not images.size:
        raise InputError(f"{field}: image must be numbers, got {images.dtype} of shape {images.shape}")
    as_floats = images.dtype.kind == "f" or images.dtype in (np.uint8, np.bool_)
    return np.ascontiguousarray(images.astype(np.float32) if as_floats else images), labels


def _without_keys(line: str) -> str:
    """A problem without the advice to write a key of a configuration, of which there is none here."""
    said, advice, _ = line.partition("; write model.")
    return f"{said}; wrap the network in one that gives the logits alone" if advice else line
