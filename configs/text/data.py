"""Made-up sentences of token ids, drawn by a seed, of several lengths: what an audit of text reads."""

import numpy as np

TOKENS, CLASSES = 400, 4
LONGEST = 24


class Sentences:
    """Item i is a dictionary: ids (length,), a mask of ones (length,), and a label. The length is 6 to 24.

    A third of the tokens are of the label's own quarter of the vocabulary, the others are any.
    """

    def __init__(self, n, wrong, seed):
        rng = np.random.default_rng(seed)
        topic = rng.integers(0, CLASSES, n)
        self.labels = np.where(rng.random(n) < wrong, rng.integers(0, CLASSES, n), topic)
        self.sentences = [self._sentence(rng, label) for label in topic]

    def _sentence(self, rng, label):
        length = rng.integers(6, LONGEST + 1)
        own = rng.integers(0, TOKENS // CLASSES, length) * CLASSES + label
        return np.where(rng.random(length) < 1 / 3, own, rng.integers(0, TOKENS, length)) + 1  # 0 is for padding

    def __len__(self):
        return len(self.sentences)

    def __getitem__(self, i):
        ids = self.sentences[i]
        return {"ids": ids, "mask": np.ones(len(ids), np.int32), "label": self.labels[i]}


def sentences(split, n=400, wrong=0.0, seed=1):
    """One split.

    Args:
        split: "train" or "test".
        n: sentences of it.
        wrong: share of labels that are drawn anew; a network can only learn these by heart.
        seed: of everything.
    """
    return Sentences(n, wrong, (seed, split == "train"))
