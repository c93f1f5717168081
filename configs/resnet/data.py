"""Handwritten digits that scikit-learn brings along: what an audit of images reads."""

import numpy as np
from sklearn.datasets import load_digits


def digits(split, n=400, wrong=0.0, seed=1):
    """Some of the 1,797 images, each (8, 8) bytes of one channel, and its digit.

    Args:
        split: "train" or "test".
        n: images of it, at most 898.
        wrong: share of labels that are replaced by another; a network can only learn these by heart.
        seed: of the halves and of the wrong labels.
    """
    bundled = load_digits()
    images = np.round(bundled.images * (255 / 16)).astype(np.uint8)
    rng = np.random.default_rng(seed)
    moved = np.where(rng.random(len(images)) < wrong, rng.integers(1, 10, len(images)), 0)
    labels = (bundled.target + moved) % 10
    train, test = np.array_split(rng.permutation(len(images)), 2)
    chosen = (train if split == "train" else test)[:n]
    return list(zip(images[chosen], labels[chosen], strict=True))
