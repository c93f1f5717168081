"""A token classifier: embedding, one head of attention over the tokens that the mask leaves, and their mean."""

import mindspore as ms
from mindspore import nn, ops


class Classifier(nn.Cell):
    """Takes ids (n, length) and mask (n, length), gives logits (n, classes)."""

    def __init__(self, tokens, num_classes, width):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.query, self.key, self.value = (nn.Dense(width, width) for _ in range(3))
        self.hidden = nn.Dense(width, 2 * width)
        self.classifier = nn.Dense(2 * width, num_classes)
        self.scale = width**-0.5

    def construct(self, ids, mask):
        there = mask.astype(ms.float32)
        x = self.embedding(ids)
        scores = ops.matmul(self.query(x), self.key(x).swapaxes(1, 2)) * self.scale
        weights = ops.softmax(scores + (there.expand_dims(1) - 1) * 1e4, axis=-1)
        x = (x + ops.matmul(weights, self.value(x))) * there.expand_dims(-1)
        mean = x.sum(axis=1) / ops.maximum(there.sum(axis=1, keepdims=True), ms.Tensor(1.0, ms.float32))
        return self.classifier(ops.relu(self.hidden(mean)))


def net(num_classes, tokens=401, width=48):
    """`tokens` counts the padding's id, 0."""
    return Classifier(tokens, num_classes, width)
