"""Samples of many kinds, drawn by a seed: what `tests/bench/networks.py` trains and audits networks on.

A sample is its class's pattern and noise. A share of the labels is wrong: these can only be learned by heart.
"""

import numpy as np

CLASSES = 4


def drawn(split, n, wrong, seed, classes=CLASSES):
    """A generator for patterns, one for the split's samples, the samples' true classes, and their labels."""
    rng = np.random.default_rng((seed, split == "train"))
    classes_of = rng.integers(0, classes, n)
    labels = (classes_of + np.where(rng.random(n) < wrong, rng.integers(1, classes, n), 0)) % classes
    return np.random.default_rng(seed), rng, classes_of, labels


def images(split, n, wrong, seed=1, channels=3, size=12, noise=90.0):
    """Images (size, size, channels) of bytes, and labels."""
    patterns, rng, classes_of, labels = drawn(split, n, wrong, seed)
    pattern = patterns.uniform(40, 215, (CLASSES, size, size, channels))
    pixels = pattern[classes_of] + noise * rng.normal(size=(n, size, size, channels))
    return list(zip(np.clip(pixels, 0, 255).astype(np.uint8), labels, strict=True))


def spectrograms(split, n, wrong, seed=1, noise=1.0, dtype="float32"):
    """Power over frequency and time, (1, 16, 24), in a band that is the class's, and labels."""
    _, rng, classes_of, labels = drawn(split, n, wrong, seed)
    power = noise * np.abs(rng.normal(size=(n, 1, 16, 24)))
    power += ((np.arange(16) // 4)[None, :] == classes_of[:, None])[:, None, :, None] * 0.5
    return list(zip(power.astype(dtype), labels, strict=True))


def bands(split, n, wrong, seed=1, noise=1.5, spoiled=0):
    """Reflectances (13, 8, 8) of a spectrum that is the class's, and labels; the first `spoiled` have a NaN."""
    patterns, rng, classes_of, labels = drawn(split, n, wrong, seed)
    values = patterns.normal(size=(CLASSES, 13))[classes_of][:, :, None, None]
    values = (values * 0.5 + noise * rng.normal(size=(n, 13, 8, 8))).astype(np.float32)
    values[:spoiled, 0, 0, 0] = np.nan
    return list(zip(values, labels, strict=True))


def _sentences(split, n, wrong, seed, longest):
    """Token ids from 1 to 200, of which a third are of the class's own quarter, 6 to `longest` of them."""
    _, rng, classes_of, labels = drawn(split, n, wrong, seed)
    found = []
    for each in classes_of:
        length = rng.integers(6, longest + 1)
        own = rng.integers(0, 200 // CLASSES, length) * CLASSES + each
        found.append(np.where(rng.random(length) < 1 / 3, own, rng.integers(0, 200, length)) + 1)
    return found, labels


def dataset(split, n, wrong, seed=1, longest=16):
    """A MindSpore dataset of columns ids, mask and topic, all of one length."""
    from mindspore.dataset import GeneratorDataset

    sentences, labels = _sentences(split, n, wrong, seed, longest)
    filled = [np.pad(ids, (0, longest - len(ids))).astype(np.int32) for ids in sentences]
    rows = [(ids, (ids > 0).astype(np.int32), np.int32(label)) for ids, label in zip(filled, labels, strict=True)]
    return GeneratorDataset(rows, ["ids", "mask", "topic"], shuffle=False)


def sentences(split, n, wrong, seed=1, longest=16, dtype="int64"):
    """Pairs of token ids and a mask of ones, of as many as there are, and labels."""
    found, labels = _sentences(split, n, wrong, seed, longest)
    return [
        ((ids.astype(dtype), np.ones(len(ids), np.int32)), label) for ids, label in zip(found, labels, strict=True)
    ]


def vectors(split, n, wrong, seed=1, classes=CLASSES, noise=1.5, shift=0):
    """Vectors of 20 numbers, and labels, all of them moved by `shift`."""
    patterns, rng, classes_of, labels = drawn(split, n, wrong, seed, classes)
    values = patterns.normal(size=(classes, 20))[classes_of] + noise * rng.normal(size=(n, 20))
    return list(zip(values.astype(np.float32), (labels + shift) % classes, strict=True))


def series(split, n, wrong, seed=1, noise=1.5):
    """Series of 12 steps of 6 numbers, whose level is the class's, and labels."""
    patterns, rng, classes_of, labels = drawn(split, n, wrong, seed)
    level = patterns.normal(size=(CLASSES, 6))[classes_of]
    values = level[:, None, :] + noise * rng.normal(size=(n, 12, 6))
    return list(zip(values.astype(np.float32), labels, strict=True))


def records(split, n, wrong, seed=1, noise=1.5):
    """Dictionaries of 16 numbers and a category from 0 to 9, and labels."""
    patterns, rng, classes_of, labels = drawn(split, n, wrong, seed)
    numbers = patterns.normal(size=(CLASSES, 16))[classes_of] + noise * rng.normal(size=(n, 16))
    category = (2 * classes_of + rng.integers(0, 4, n)) % 10
    inputs = [
        {"numbers": row, "category": each}
        for row, each in zip(numbers.astype(np.float32), category.astype(np.int32), strict=True)
    ]
    return list(zip(inputs, labels, strict=True))
