"""Breast cancer data that scikit-learn brings along, as vectors: what an audit of tabular data reads."""

import numpy as np
from sklearn.datasets import load_breast_cancer


def vectors(split, wrong=0.0, seed=1):
    """Half of the 569 samples, each a vector of 30 floats and a class, 0 or 1.

    Args:
        split: "train" or "test".
        wrong: share of labels that are replaced by the other class; a network can only learn these by heart.
        seed: of the halves and of the wrong labels.
    """
    data, label = load_breast_cancer(return_X_y=True)
    data = ((data - data.mean(axis=0)) / data.std(axis=0)).astype(np.float32)
    rng = np.random.default_rng(seed)
    label = np.where(rng.random(len(label)) < wrong, 1 - label, label)
    train, test = np.array_split(rng.permutation(len(label)), 2)
    chosen = train if split == "train" else test
    return list(zip(data[chosen], label[chosen], strict=True))
